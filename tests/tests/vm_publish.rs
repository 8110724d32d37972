//! Reaching services in a guest without root (R-NET-3, R-GUEST-2): published ports and connections by name.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use banger_testkit::{Home, wait_until};
use sha2::{Digest, Sha256};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Services of the guest, in Perl, which every Debian image has. `reverse` answers when the other side has sent its last
/// byte; `first` ends its own side at once and keeps what comes; `hold` answers nothing.
const SERVICES: &str = r#"
use strict; use Socket; $SIG{CHLD} = 'IGNORE';
sub serve { my ($port, $with) = @_; return if fork;
  socket(my $s, PF_INET, SOCK_STREAM, 0) or die; setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
  bind($s, sockaddr_in($port, INADDR_LOOPBACK)) or die; listen($s, 128) or die;
  while (accept(my $c, $s)) { if (!fork) { close $s; binmode $c; $with->($c); exit } close $c } exit }
sub all { my $c = shift; my $all = ''; while (sysread($c, my $b, 65536)) { $all .= $b } $all }
sub put { my ($c, $b) = @_; my $o = 0; while ($o < length $b) { $o += syswrite($c, $b, 65536, $o) || exit } }
serve(7001, sub { my $c = shift; put($c, scalar reverse all($c)) });
serve(7002, sub { my $c = shift; put($c, "mine\n"); shutdown($c, 1);
  my $got = all($c); open my $f, '>', '/root/got.new'; print $f $got; close $f; rename '/root/got.new', '/root/got' });
serve(7003, sub { my $c = shift; put($c, "held\n"); sleep 1000 });
"#;

fn start_services(home: &Home, vm: &str) {
    let put = ["vm", "exec", vm, "--", "sh", "-c", "cat >/root/services.pl"];
    home.banger_with(&put, SERVICES.as_bytes()).exits(0);
    home.guest_sh(
        vm,
        "setsid perl /root/services.pl </dev/null >/dev/null 2>&1 &",
    )
    .exits(0);
    wait_until("the guest's services to listen", LIMIT, || {
        let ports = home.banger(&["vm", "ports", vm, "--json"]).exits(0).json();
        let listens = |port| {
            ports
                .as_array()
                .is_some_and(|p| p.iter().any(|s| s["port"] == port))
        };
        match [7001, 7002, 7003].into_iter().all(listens) {
            true => Ok(()),
            false => Err(ports.to_string()),
        }
    });
}

/// Bytes that are not all the same.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("a published port");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream
}

/// Sends these bytes to `reverse` and ends the sending side; the answer must be the same bytes backwards.
fn there_and_back(to: SocketAddr, length: usize, seed: u64) {
    let sent = bytes(length, seed);
    let mut stream = connect(to);
    let mut sender = stream.try_clone().expect("a second descriptor");
    let given = sent.clone();
    let sending = std::thread::spawn(move || {
        sender.write_all(&given).expect("the guest reads");
        sender.shutdown(Shutdown::Write).expect("an end");
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("the guest's answer");
    sending.join().expect("the sender");
    back.reverse();
    assert_eq!(
        Sha256::digest(&back),
        Sha256::digest(&sent),
        "{length} bytes"
    );
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Where the host listens for a port of the guest.
fn published(home: &Home, vm: &str, guest: u16) -> SocketAddr {
    let shown = home.show(vm);
    let ports = shown["ports"].as_array().expect("ports");
    let port = ports
        .iter()
        .find(|p| p["guest"] == guest)
        .expect("the port");
    assert_eq!(port["address"], "127.0.0.1");
    at(u16::try_from(port["host"].as_u64().expect("a port")).expect("a port"))
}

#[test]
fn published_ports_carry_connections_whole() {
    let home = Home::new();
    let host = free_port().to_string();
    let wish = format!("{host}:7001");
    let args = [
        "vm", "create", "--name", "dev", "-p", &wish, "-p", "7002", "-p", "7003", "-p", "7009",
    ];
    let made = home.banger(&args).exits(0);
    assert!(
        made.err()
            .contains(&format!("port 127.0.0.1:{host}->7001/tcp")),
        "{}",
        made.err()
    );
    start_services(&home, "dev");
    let reverse = published(&home, "dev", 7001);
    assert_eq!(reverse.port().to_string(), host);
    there_and_back(reverse, 1 << 20, 7);
    there_and_back(reverse, 0, 7);

    // The guest ends its side first and takes what still comes.
    let mut stream = connect(published(&home, "dev", 7002));
    let mut mine = String::new();
    stream.read_to_string(&mut mine).expect("the guest's bytes");
    assert_eq!(mine, "mine\n");
    let sent = bytes(1 << 20, 9);
    stream.write_all(&sent).expect("the guest reads");
    drop(stream);
    let seen = "while ! [ -e /root/got ]; do sleep 0.05; done; sha256sum </root/got";
    let digest: String = Sha256::digest(&sent)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert!(
        home.guest_sh("dev", seen)
            .exits(0)
            .out()
            .starts_with(&digest)
    );

    // Nobody listens there in the guest: the connection is reset.
    let mut refused = connect(published(&home, "dev", 7009));
    let error = refused.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let ports = home.banger(&["vm", "ports", "dev"]).exits(0);
    assert!(
        ports.out().contains(&format!("http://127.0.0.1:{host}")),
        "{}",
        ports.out()
    );
    assert!(
        ports.err().contains("nothing listens on port 7009"),
        "{}",
        ports.err()
    );
    let ps = home.banger(&["ps"]).exits(0).out();
    assert!(ps.contains(&format!("127.0.0.1:{host}->7001/tcp")), "{ps}");

    // Fifty at once, while others stand still.
    let held: Vec<TcpStream> = (0..20)
        .map(|_| connect(published(&home, "dev", 7003)))
        .collect();
    std::thread::scope(|scope| {
        for seed in 0..50 {
            scope.spawn(move || there_and_back(reverse, 100_000, seed));
        }
    });
    home.guest_sh("dev", "true").exits(0);

    // The end of the VM is no end of file.
    let mut held = held.into_iter();
    let mut one = held.next().expect("a connection");
    let mut word = [0; 5];
    one.read_exact(&mut word).expect("the guest's word");
    home.banger(&["vm", "kill", "dev"]).exits(0);
    let error = one.read(&mut word).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let closed = TcpStream::connect(reverse).expect_err("nobody listens for a stopped VM");
    assert_eq!(closed.kind(), ErrorKind::ConnectionRefused);
    home.finish();
}

#[test]
fn published_ports_outlive_daemons_and_stops() {
    let home = Home::new();
    let port = free_port();
    let wish = format!("127.0.0.1:{port}:7001/tcp");
    home.banger(&["run", "-d", "--name", "dev", "-p", &wish])
        .exits(0);
    start_services(&home, "dev");
    let mut held = connect(at(port));
    home.kill_daemon();
    // Also a daemon that is killed ends nothing in order.
    let error = held.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // The next command brings them back.
    home.banger(&["ps"]).exits(0);
    there_and_back(at(port), 100_000, 3);

    // Taken while the VM is down: it comes up all the same, says so, and gets it when it is free.
    home.banger(&["vm", "stop", "dev"]).exits(0);
    let taken = TcpListener::bind(at(port)).expect("a stopped VM holds no port");
    let started = home.banger(&["vm", "start", "dev"]).exits(0);
    assert!(
        started.err().contains("is not published"),
        "{}",
        started.err()
    );
    let shown = home.banger(&["vm", "show", "dev"]).exits(0).out();
    assert!(
        shown.contains("not published: Address already in use"),
        "{shown}"
    );
    assert_eq!(home.show("dev")["ports"][0]["listening"], false);
    drop(taken);
    wait_until("the port to be published again", LIMIT, || {
        match home.show("dev")["ports"][0]["listening"] == true {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    });
    start_services(&home, "dev");
    there_and_back(at(port), 100_000, 4);
    home.finish();
}

#[test]
fn a_port_that_is_taken_is_refused_before_anything_exists() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let number = taken.local_addr().expect("its number").port();
    let wish = format!("{number}:80");
    // Every reason at once.
    let args = [
        "vm",
        "create",
        "-p",
        &wish,
        "-p",
        "192.0.2.1:8080:80",
        "--disk-size",
        "1M",
    ];
    let refused = home.banger(&args).exits(125);
    for part in [
        &format!("port 127.0.0.1:{number} of the host cannot be published: Address already in use"),
        "port 192.0.2.1:8080 of the host cannot be published",
        "the work disk has at least",
    ] {
        assert!(refused.err().contains(part), "{part}: {}", refused.err());
    }
    let twice = free_port();
    let wish = format!("{twice}:80");
    let args = ["vm", "run", "--rm", "-p", &wish, "-p", &wish, "--", "true"];
    let refused = home.banger(&args).exits(125);
    assert!(
        refused.err().contains("Address already in use"),
        "{}",
        refused.err()
    );
    home.assert_no_vms();
    TcpListener::bind(at(twice)).expect("a refused port is free again");
    home.finish();
}

#[test]
fn a_connection_by_name_is_stdin_and_stdout() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    start_services(&home, "dev");
    let sent = bytes(1 << 20, 5);
    let back = home.banger_with(&["internal", "connect", "dev.vm", "7001"], &sent);
    let mut back = back.exits(0).stdout;
    back.reverse();
    assert!(back == sent, "other bytes came back");
    // The guest's end is our stdout's, before ours.
    let mut child = home
        .command(&["internal", "connect", "dev", "7002"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("banger");
    let mut mine = String::new();
    let mut stdout = child.stdout.take().expect("stdout");
    stdout.read_to_string(&mut mine).expect("the guest's bytes");
    assert_eq!(mine, "mine\n");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(b"after")
        .expect("a reader");
    assert!(child.wait().expect("its end").success());
    let got = "while ! [ -e /root/got ]; do sleep 0.05; done; cat /root/got";
    assert_eq!(home.guest_sh("dev", got).exits(0).out(), "after");

    let refused = home.banger(&["internal", "connect", "dev", "9"]).exits(125);
    assert!(
        refused
            .err()
            .contains("cannot connect in VM 'dev': Connection refused"),
        "{}",
        refused.err()
    );
    assert!(
        refused.err().contains("banger vm ports dev"),
        "{}",
        refused.err()
    );
    home.finish();
}
