//! `--nat` and `vm set --nat` of a user network (R-NET-3, R-CLI-3), seen from inside the guest.

use banger_testkit::{Home, Signal, signal, wait_until};
use std::{
    io::Write,
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Connections the host's service has seen.
static SEEN: AtomicU32 = AtomicU32::new(0);

/// A service on the host's loopback.
fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a service");
    let port = listener.local_addr().expect("its port").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            SEEN.fetch_add(1, Ordering::Relaxed);
            let _ = stream.expect("a connection").write_all(b"reached");
        }
    });
    port
}

/// Whether the guest reaches it: 10.0.2.2 is the host's loopback.
fn reached(home: &Home, port: u16) -> bool {
    let perl = format!(
        "use Socket; $SIG{{ALRM}} = sub {{ exit 3 }}; alarm 3; socket(S, PF_INET, SOCK_STREAM, 0) or die; \
         connect(S, sockaddr_in({port}, inet_aton('10.0.2.2'))) or exit 4; read(S, $b, 7); print $b"
    );
    let before = SEEN.load(Ordering::Relaxed);
    let run = home.banger(&["vm", "exec", "dev", "--", "perl", "-e", &perl]);
    let reached = run.out() == "reached";
    assert!(reached || [3, 4].contains(&run.status), "{run:?}");
    assert_eq!(SEEN.load(Ordering::Relaxed) > before, reached);
    reached
}

#[test]
fn nat_is_changed_while_the_guest_runs() {
    let home = Home::new();
    let port = service();
    let set = |flag| home.banger(&["vm", "set", "dev", flag]).exits(0);
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    assert!(!reached(&home, port), "closed unless asked for");
    for _ in 0..2 {
        let told = set("--nat");
        assert!(told.err().contains("10.0.2.2"), "{}", told.err());
        assert!(reached(&home, port));
        set("--no-nat");
        assert!(!reached(&home, port));
    }
    set("--nat");
    // It stays over the death of the daemon, and over a stop.
    home.kill_daemon();
    assert!(reached(&home, port));
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["vm", "start", "dev"]).exits(0);
    assert!(reached(&home, port));
    assert_eq!(home.show("dev")["nat"], true);
    // Of a stopped VM, together with the rest.
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["vm", "set", "dev", "--no-nat", "--vcpu", "1"])
        .exits(0);
    home.banger(&["vm", "start", "dev"]).exits(0);
    assert!(!reached(&home, port));
    // What cannot be done of a running VM takes the rest along.
    let refused = home.banger(&["vm", "set", "dev", "--nat", "--vcpu", "1"]);
    assert_ne!(refused.status, 0);
    assert!(!reached(&home, port));
    let open = home
        .banger(&["run", "--rm", "--nat", "--", "true"])
        .exits(0);
    assert!(open.err().contains("10.0.2.2"), "{}", open.err());
    home.finish();
}

/// The row says first what is wanted: a daemon that is killed before the VMM was told leaves that to the next.
#[test]
fn a_vmm_that_was_not_told_yet_is_told_by_the_next_daemon() {
    let home = Home::new();
    let port = service();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let vmm = home.vmms()[0];
    signal(vmm, Signal::STOP);
    let mut asked = home.start(&["vm", "set", "dev", "--nat"], b"");
    wait_until("the row to say it", Duration::from_secs(30), || {
        let row = home.show("dev");
        (row["nat"] == true).then_some(()).ok_or(row.to_string())
    });
    asked.kill();
    home.kill_daemon();
    asked.finish();
    signal(vmm, Signal::CONT);
    wait_until("the next daemon to do it", Duration::from_secs(60), || {
        reached(&home, port)
            .then_some(())
            .ok_or("closed".to_owned())
    });
    home.finish();
}
