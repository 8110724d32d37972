//! What a client says of a daemon that ends while it is asked (R-PROG-2).

#![allow(clippy::disallowed_methods, reason = "a socket of the test's own")]

use banger_wire::api::{Client, ClientError, VmList};
use std::{
    io::Read,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread,
};

/// A daemon that does this with its listener and is no more; what a client got of it.
fn asked(name: &str, ends: impl FnOnce(UnixListener) + Send + 'static) -> ClientError {
    let socket: PathBuf =
        std::env::temp_dir().join(format!("banger-client-{name}-{}", std::process::id()));
    let listener = UnixListener::bind(&socket).expect("a socket");
    let daemon = thread::spawn(move || ends(listener));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let answer = runtime.block_on(Client::new(socket.clone()).call(&VmList::default()));
    daemon.join().expect("no panic in the daemon");
    std::fs::remove_file(socket).expect("the socket goes");
    answer.expect_err("there was no answer")
}

/// Waits until something was sent, and reads so much of it.
fn read(stream: &mut UnixStream, bytes: usize) -> Vec<u8> {
    let limit = Some(std::time::Duration::from_secs(10));
    stream.set_read_timeout(limit).expect("a limit");
    let mut got = vec![0; bytes];
    let count = stream.read(&mut got).expect("a request");
    got.truncate(count);
    got
}

#[test]
fn a_connection_that_was_never_accepted_was_not_read() {
    let error = asked("backlog", |listener| {
        // The client is in the queue, and its request with it, when the listener goes.
        let mut ready = [rustix::event::PollFd::new(
            &listener,
            rustix::event::PollFlags::IN,
        )];
        let limit = rustix::time::Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        rustix::event::poll(&mut ready, Some(&limit)).expect("a connection");
        thread::sleep(std::time::Duration::from_millis(50));
    });
    assert!(matches!(error, ClientError::Unread(_)), "{error:?}");
    assert!(error.no_daemon());
}

/// A connect that does not block has two steps: the queue, and then the socket's error. A listener that goes between them is what
/// the second tells of.
#[test]
fn a_daemon_that_goes_while_one_connects_is_none() {
    let name = format!("banger-client-going-{}", std::process::id());
    let socket = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&socket).expect("a socket");
    let stream = UnixStream::connect(&socket).expect("a place in the queue");
    drop(listener);
    std::fs::remove_file(&socket).expect("the socket goes");
    let source = stream.take_error().expect("a socket").expect("an error");
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionReset);
    let error = ClientError::Connect { socket, source };
    assert!(error.no_daemon(), "{error:?}");
}

#[test]
fn a_request_that_was_read_in_part_was_not_read() {
    for bytes in [0, 1, 40] {
        let error = asked(&format!("part-{bytes}"), move |listener| {
            let (mut stream, _) = listener.accept().expect("a client");
            read(&mut stream, bytes);
        });
        assert!(
            matches!(error, ClientError::Unread(_)),
            "{bytes}: {error:?}"
        );
    }
}

#[test]
fn of_a_request_that_was_read_nobody_knows_whether_it_was_done() {
    let error = asked("whole", |listener| {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut got = Vec::new();
        while !got.ends_with(b"}") {
            got.extend(read(&mut stream, 4096));
        }
    });
    assert!(matches!(error, ClientError::Lost(_)), "{error:?}");
    assert!(!error.no_daemon());
}
