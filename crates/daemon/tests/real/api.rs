//! The API over a real socket, without a VM: dispatch, refusals, read-only mode, recover.

use crate::support::{Home, api_error, runtime, wait_until};
use banger_wire::api::{self, ClientError, Code, Event, METHODS, Outcome, Shape, VmShape};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

/// One request as `curl --unix-socket` would send it; status line and body come back.
fn raw(home: &Home, method: &str, headers: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(home.paths.socket()).unwrap();
    let length = body.len();
    let request = format!(
        "POST /v1/{method} HTTP/1.1\r\nhost: banger\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    // In one write: a refusal may come, and the connection end, before a second one.
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn every_method_of_the_table_is_dispatched() {
    let home = Home::new().started();
    for (name, shape) in METHODS.iter().filter(|(name, _)| *name != "shutdown") {
        // Nothing of this is valid, and each must be refused for what it is, never as unknown.
        let answer = raw(&home, name, "", r#"{"no such field":1}"#);
        assert!(answer.starts_with("HTTP/1.1 400"), "{name}: {answer}");
        let needs_upgrade = answer.contains("Upgrade: banger-frames");
        assert_eq!(needs_upgrade, *shape == Shape::Frames, "{name}: {answer}");
    }
    assert!(raw(&home, "vm.fly", "", "{}").starts_with("HTTP/1.1 404"));
}

#[test]
fn the_simple_methods_answer() {
    let home = Home::new().started();
    home.call(&api::Ping {}).unwrap();
    assert_eq!(
        home.call(&api::GetVersion {}).unwrap(),
        api::Version::current()
    );
    let status = home.status();
    assert_eq!(status.socket, home.paths.socket());
    assert_eq!((status.vms, status.streams, status.read_only), (0, 0, None));
    assert_eq!(home.call(&api::VmList::default()).unwrap(), []);
    // An empty body is an empty request.
    assert!(raw(&home, "vm.list", "", "").ends_with("\r\n\r\n[]\n"));
}

#[test]
fn another_api_version_is_refused_with_the_way_out() {
    let home = Home::new().started();
    let answer = raw(&home, "ping", "banger-api: 99\r\n", "{}");
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(answer.contains("bad_version") && answer.contains("banger daemon stop"));
}

fn create(shape: VmShape) -> api::VmCreate {
    api::VmCreate {
        shape,
        detached: false,
    }
}

fn create_fails(home: &Home, shape: VmShape) -> api::ApiError {
    let error = runtime().block_on(async {
        let mut events = home.client().events(&create(shape)).await?;
        while events.next().await?.is_some() {}
        Ok::<_, ClientError>(())
    });
    api_error(error.err())
}

#[test]
fn what_no_vm_could_be_is_refused_before_anything_exists() {
    let home = Home::new().started();
    let refused = |shape| create_fails(&home, shape);
    let image = refused(VmShape {
        image: Some("zzz".to_owned()),
        ..VmShape::default()
    });
    assert_eq!(image.code, Code::NotFound);
    assert!(image.hint.is_some() && image.op_id.is_some());
    let kernel = refused(VmShape {
        kernel: Some("../../etc".to_owned()),
        ..VmShape::default()
    });
    assert_eq!(kernel.code, Code::NotFound);
    let vcpus = refused(VmShape {
        vcpus: Some(0),
        ..VmShape::default()
    });
    assert_eq!(vcpus.code, Code::BadRequest);
    let answer = raw(&home, "vm.create", "", r#"{"shape":{"name":"No_Good"}}"#);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(home.status().vms, 0);
    let left: Vec<_> = std::fs::read_dir(home.paths.state_dir.join("vms"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // Each failed operation is listed with its error.
    let operations = home.call(&api::OperationList {}).unwrap();
    assert_eq!(operations.len(), 3);
    assert!(
        operations
            .iter()
            .all(|op| op.outcome == Outcome::Failed && op.error.is_some())
    );
}

#[test]
fn requests_about_no_vm_are_not_found() {
    let home = Home::new().started();
    let vm = "nobody".to_owned();
    assert_eq!(
        home.refused(&api::VmShow { vm: vm.clone() }).code,
        Code::NotFound
    );
    assert_eq!(
        home.refused(&api::VmStop { vm: vm.clone() }).code,
        Code::NotFound
    );
    assert_eq!(
        home.refused(&api::VmKill { vm: vm.clone() }).code,
        Code::NotFound
    );
    let delete = api::VmDelete {
        vm: vm.clone(),
        force: true,
    };
    assert_eq!(home.refused(&delete).code, Code::NotFound);
    let refused = |argv: &[&str]| {
        let command = api::Command {
            argv: argv.iter().map(ToString::to_string).collect(),
            ..api::Command::default()
        };
        let exec = api::VmExec {
            vm: vm.clone(),
            command,
        };
        api_error(runtime().block_on(home.client().frames(&exec)).err()).code
    };
    assert_eq!(refused(&["true"]), Code::NotFound);
    // What no guest could run is refused for that, whichever VM is meant.
    assert_eq!(refused(&[]), Code::BadRequest);
}

#[test]
fn a_qemu_that_is_missing_is_named_before_anything_exists() {
    let home = Home::new();
    std::fs::write(&home.paths.config, "qemu_bin = \"/nonexistent/qemu\"\n").unwrap();
    let home = home.started();
    let error = create_fails(&home, VmShape::default());
    assert_eq!(error.code, Code::Precondition);
    assert!(error.to_string().contains("/nonexistent/qemu"), "{error}");
    assert_eq!(home.status().vms, 0);
}

/// R-SVC-8: the command, the kernel and what the machine lacks are told in one answer, each with its way out.
#[test]
fn a_run_is_refused_for_every_reason_at_once() {
    let home = Home::new();
    std::fs::write(&home.paths.config, "qemu_bin = \"/nonexistent/qemu\"\n").unwrap();
    let home = home.started();
    let run = api::VmRun {
        shape: VmShape {
            kernel: Some("zzz".to_owned()),
            image: Some("yyy".to_owned()),
            vcpus: Some(0),
            ..VmShape::default()
        },
        command: api::Command::default(),
        rm: true,
    };
    let error = api_error(runtime().block_on(home.client().frames(&run)).err());
    let all: Vec<_> = std::iter::once(&error).chain(&error.also).collect();
    // Whether an agent lies beside this daemon is the build's matter; it would be the sixth.
    let codes: Vec<_> = all.iter().take(5).map(|e| e.code).collect();
    use Code::{BadRequest, NotFound, Precondition};
    let wanted = [BadRequest, BadRequest, NotFound, NotFound, Precondition];
    assert_eq!(codes, wanted, "{error}");
    assert!(all.iter().all(|e| e.hint.is_some()), "{all:?}");
    assert!(home.call(&api::OperationList {}).unwrap().is_empty());
}

#[test]
fn a_database_that_is_gone_makes_the_daemon_read_only_until_recover() {
    let home = Home::new().started();
    home.stop();
    // A VM's directory without any row: what was in it must survive whatever happens.
    let vm = home.paths.state_dir.join("vms/00ab12cd34ef");
    std::fs::create_dir(&vm).unwrap();
    std::fs::write(vm.join("work.ext4"), "data").unwrap();
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(home.paths.state_dir.join(file));
    }
    assert!(home.start().status.success());
    let why = home.status().read_only.expect("read-only");
    assert!(why.contains("there is no database"), "{why}");
    let refused = home.refused(&api::VmList::default());
    assert_eq!(refused.code, Code::Unavailable);
    assert_eq!(refused.hint.as_deref(), Some("banger recover"));
    assert_eq!(
        create_fails(&home, VmShape::default()).code,
        Code::Unavailable
    );

    let view = home.call(&api::Recover {}).unwrap();
    assert_eq!(
        (view.adopted.len(), view.failed.len()),
        (0, 1),
        "no vm.json"
    );
    assert_eq!(home.status().read_only, None);
    assert_eq!(home.status().lost.len(), 1);
    assert_eq!(
        std::fs::read_to_string(vm.join("work.ext4")).unwrap(),
        "data"
    );
}

#[test]
fn a_damaged_database_is_kept_aside_and_the_instance_stays() {
    let home = Home::new().started();
    let instance = home.status().instance;
    home.stop();
    std::fs::write(
        home.paths.state_dir.join("state.db"),
        "no database at all, but text",
    )
    .unwrap();
    for file in ["state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(home.paths.state_dir.join(file));
    }
    assert!(home.start().status.success());
    assert!(
        home.status()
            .read_only
            .expect("read-only")
            .contains("damaged")
    );
    let view = home.call(&api::Recover {}).unwrap();
    let kept = view.kept_database.expect("kept");
    assert!(std::fs::read_to_string(kept).unwrap().contains("but text"));
    assert_eq!(home.status().instance, instance);
}

#[test]
fn shutdown_ends_the_daemon_and_takes_its_socket_away() {
    let home = Home::new().started();
    let pid = home.call(&api::Shutdown {}).unwrap().pid;
    wait_until("the process is gone", || {
        std::fs::read_link(format!("/proc/{pid}/exe")).is_err()
    });
    assert!(!home.paths.socket().exists());
    let error = home.call(&api::Ping {}).unwrap_err();
    assert!(error.no_daemon(), "{error:?}");
}

#[test]
fn a_stream_ends_with_its_failure() {
    let home = Home::new().started();
    let answer = raw(&home, "vm.start", "", r#"{"vm":"nobody"}"#);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let last = answer.lines().rfind(|line| line.starts_with('{')).unwrap();
    let event: Event = serde_json::from_str(last).unwrap();
    assert!(matches!(event, Event::Failed { error } if error.code == Code::NotFound));
}
