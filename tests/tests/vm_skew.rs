//! A daemon that is newer than the agents of its VMs (R-PROG-4).

use banger_testkit::{Home, binaries};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

const OLDER_AGENT: &[u8] = include_bytes!("../fixtures/agent-protocol-1.zst");

/// Programs as they are, beside the agent of the protocol's version before.
fn with_older_agent(dir: &Path) {
    fs::create_dir(dir).expect("a directory");
    for program in ["banger", "bangerd"] {
        fs::copy(binaries().join(program), dir.join(program)).expect("a copy");
    }
    let agent = dir.join("banger-agent");
    let older = zstd::decode_all(OLDER_AGENT).expect("the recorded agent");
    fs::write(&agent, older).expect("the recorded agent");
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("its mode");
}

#[test]
fn vms_with_an_older_agent_are_used_as_ever() {
    let mut home = Home::new();
    let older = home.scratch().join("older");
    with_older_agent(&older);
    home.set_programs(&older);
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.kill_daemon();
    home.set_programs(&binaries());

    let shown = home.show("dev");
    assert_eq!(shown["state"], "running");
    let input: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let echoed = home
        .banger_with(
            &[
                "vm",
                "exec",
                "dev",
                "--",
                "sh",
                "-c",
                "cat; echo end >&2; exit 7",
            ],
            &input,
        )
        .exits(7);
    assert!(echoed.stdout == input, "{} bytes", echoed.stdout.len());
    assert_eq!(echoed.err(), "end\n");
    let killed = home.guest_sh("dev", "kill -TERM $$").exits(128 + 15);
    assert_eq!(killed.out(), "");
    home.banger(&["vm", "exec", "dev", "--", "/nonexistent"])
        .exits(127);

    // What it is too old for is refused with the way out.
    let health = home.banger(&["vm", "health", "dev", "--json"]).exits(0);
    let agent = &health.json()[0]["agent"];
    assert!(
        agent["round_trip_ms"].is_number() && agent["clock_offset_ms"].is_null(),
        "{agent}"
    );
    for verb in ["ports", "stats"] {
        let refused = home.banger(&["vm", verb, "dev"]).exits(125).err();
        assert!(refused.contains("older than this daemon"), "{refused}");
    }
    let detached = home
        .banger(&["vm", "exec", "-d", "dev", "--", "true"])
        .exits(125);
    assert!(
        detached.err().contains("older than this daemon"),
        "{}",
        detached.err()
    );
    assert!(
        detached.err().contains("banger vm start dev"),
        "{}",
        detached.err()
    );
    let note = home.scratch().join("note");
    fs::write(&note, "x").expect("a file");
    let (note, back) = (note.to_str().expect("UTF-8"), home.scratch().join("hosts"));
    let back = back.to_str().expect("UTF-8");
    for sides in [[note, "dev:"], ["dev:/etc/hosts", back]] {
        let refused = home
            .banger(&["vm", "cp", sides[0], sides[1]])
            .exits(125)
            .err();
        assert!(
            refused.contains("older than this daemon and cannot copy files")
                && refused.contains("banger vm stop dev; banger vm start dev"),
            "{refused}"
        );
    }
    assert!(
        !Path::new(back).exists(),
        "a file of a copy that was refused"
    );

    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["vm", "start", "dev"]).exits(0);
    home.banger(&["vm", "cp", note, "dev:"]).exits(0);
    home.banger(&["vm", "exec", "-d", "dev", "--", "true"])
        .exits(0);
    home.banger(&["vm", "kill", "dev"]).exits(0);
    home.banger(&["vm", "delete", "dev"]).exits(0);
    home.finish();
}

/// A command of an older agent ends with its session; its VM goes all the same when it was made for it.
#[test]
fn a_vm_for_one_command_of_an_older_agent_goes_with_the_daemon() {
    let mut home = Home::new();
    let older = home.scratch().join("older");
    with_older_agent(&older);
    home.set_programs(&older);
    let run = home.start(&["vm", "run", "--rm", "--", "sleep", "60"], b"");
    banger_testkit::wait_until("the VM to run", std::time::Duration::from_secs(60), || {
        let listed = home.banger(&["ps", "--json"]).exits(0).json();
        match listed[0]["state"].as_str() {
            Some("running") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    home.kill_daemon();
    home.set_programs(&binaries());
    run.finish().exits(125);
    banger_testkit::wait_until("the VM to go", std::time::Duration::from_secs(60), || {
        let listed = home.banger(&["vm", "list", "--json"]).exits(0).json();
        if listed == serde_json::json!([]) {
            Ok(())
        } else {
            Err(listed.to_string())
        }
    });
    home.finish();
}
