//! The real agent on a socketpair: connections from the host to sockets of the guest (R-GUEST-2, R-NET-3).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use banger_wire::guest::forward::MOST_FORWARDS;
use banger_wire::guest::{
    ClientError, ForwardEvent, ForwardOutput, ForwardStream, ForwardTarget, GuestClient,
};
use bytes::Bytes;
use common::{Bare, LIMIT, run, sh};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::timeout;

/// Bytes that are not all the same, and not the same from anywhere.
fn bytes(length: usize, seed: u8) -> Vec<u8> {
    let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed;
    (0..length).map(byte).collect()
}

async fn listener() -> (TcpListener, ForwardTarget) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, ForwardTarget::new(None, port))
}

/// A connection and its end in the guest.
async fn connected(client: &GuestClient) -> (ForwardStream, TcpStream) {
    let (listener, target) = listener().await;
    let stream = client.forward(&target).await.unwrap();
    let accepted = timeout(LIMIT, listener.accept()).await.unwrap();
    (stream, accepted.unwrap().0)
}

async fn next(output: &mut ForwardOutput) -> Result<Option<ForwardEvent>, ClientError> {
    timeout(LIMIT, output.next()).await.expect("an event")
}

async fn to_eof(output: &mut ForwardOutput) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match next(output).await.unwrap().unwrap() {
            ForwardEvent::Data(data) => all.extend_from_slice(&data),
            ForwardEvent::Eof => return all,
        }
    }
}

#[tokio::test]
async fn each_direction_ends_for_itself() {
    let guest = Bare::start();
    let client = guest.client().await;
    // The host first: what comes back is sent when its end has been seen.
    let (ForwardStream { input, mut output }, mut service) = connected(&client).await;
    let sent = bytes(1 << 20, 7);
    let (given, back) = (Bytes::from(sent.clone()), sent.clone());
    let served = tokio::spawn(async move {
        let mut got = Vec::new();
        service.read_to_end(&mut got).await.unwrap();
        got.reverse();
        service.write_all(&got).await.unwrap();
    });
    input.send(given).await.unwrap();
    input.eof().await.unwrap();
    let mut got = to_eof(&mut output).await;
    got.reverse();
    assert!(got == back, "other bytes came back");
    assert_eq!(next(&mut output).await.unwrap(), None);
    served.await.unwrap();

    // The service first: it reads on.
    let (ForwardStream { input, mut output }, mut service) = connected(&client).await;
    let given = sent.clone();
    let served = tokio::spawn(async move {
        service.write_all(&given).await.unwrap();
        service.shutdown().await.unwrap();
        let mut got = Vec::new();
        service.read_to_end(&mut got).await.unwrap();
        got
    });
    assert!(to_eof(&mut output).await == sent, "other bytes came");
    input
        .send(Bytes::from_static(b"after the end"))
        .await
        .unwrap();
    input.eof().await.unwrap();
    assert_eq!(served.await.unwrap(), b"after the end");
    assert_eq!(next(&mut output).await.unwrap(), None);
}

#[tokio::test]
async fn nobody_there_is_told_before_the_stream() {
    let guest = Bare::start();
    let client = guest.client().await;
    let (gone, target) = listener().await;
    drop(gone);
    let refused = client.forward(&target).await.unwrap_err();
    assert!(refused.unreachable(), "{refused:?}");
    assert!(refused.to_string().contains("refused"), "{refused}");
    let nowhere = ForwardTarget::Unix(b"/tmp/no/such/socket".to_vec());
    let refused = client.forward(&nowhere).await.unwrap_err();
    assert!(refused.unreachable(), "{refused:?}");
}

#[tokio::test]
async fn loopback_is_both_families_and_a_socket_is_a_path() {
    let guest = Bare::start();
    let client = guest.client().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let unix = UnixListener::bind(&path).unwrap();
    let target = ForwardTarget::Unix(path.to_str().unwrap().into());
    let mut stream = client.forward(&target).await.unwrap();
    let (mut service, _) = unix.accept().await.unwrap();
    service.write_all(b"unix").await.unwrap();
    drop(service);
    assert_eq!(to_eof(&mut stream.output).await, b"unix");

    let listener = match TcpListener::bind("[::1]:0").await {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            banger_testkit::skip("no IPv6 loopback here");
            return;
        }
        bound => bound.unwrap(),
    };
    let port = listener.local_addr().unwrap().port();
    let mut stream = client
        .forward(&ForwardTarget::Loopback(port))
        .await
        .unwrap();
    listener
        .accept()
        .await
        .unwrap()
        .0
        .write_all(b"six")
        .await
        .unwrap();
    assert_eq!(to_eof(&mut stream.output).await, b"six");
}

#[tokio::test]
async fn what_breaks_at_one_end_breaks_at_the_other() {
    let guest = Bare::start();
    let client = guest.client().await;
    // The host leaves without an end: a reset, not an end of file.
    let (stream, mut service) = connected(&client).await;
    stream
        .input
        .send(Bytes::from_static(b"part"))
        .await
        .unwrap();
    let mut part = [0; 4];
    service.read_exact(&mut part).await.unwrap();
    drop(stream);
    let read = timeout(LIMIT, service.read(&mut part)).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    // The service does.
    let (mut stream, service) = connected(&client).await;
    service.set_zero_linger().unwrap();
    drop(service);
    let read = next(&mut stream.output).await;
    assert!(matches!(read, Err(ClientError::ConnectionLost)), "{read:?}");
    // It does after its own end of file: what was on the way to it is lost, and that is no orderly end.
    let (mut stream, mut service) = connected(&client).await;
    service.shutdown().await.unwrap();
    assert_eq!(to_eof(&mut stream.output).await, b"");
    service.set_zero_linger().unwrap();
    drop(service);
    let sent = async { while stream.input.send(Bytes::from(vec![7; 4096])).await.is_ok() {} };
    timeout(LIMIT, sent)
        .await
        .expect("a guest that takes no more");
    let read = next(&mut stream.output).await;
    assert!(matches!(read, Err(ClientError::ConnectionLost)), "{read:?}");
}

#[tokio::test]
async fn stalled_connections_stall_nobody_and_are_bounded() {
    let guest = Bare::start();
    let client = guest.client().await;
    let (listener, target) = listener().await;
    let (mut streams, mut services) = (Vec::new(), Vec::new());
    for _ in 0..MOST_FORWARDS {
        streams.push(client.forward(&target).await.unwrap());
        let (service, _) = listener.accept().await.unwrap();
        // Fills every buffer on the way: nobody reads.
        while service.try_write(&[1; 65536]).is_ok() {}
        services.push(service);
    }
    let refused = client.forward(&target).await.unwrap_err();
    let many = matches!(refused, ClientError::Refused { status: 429, .. });
    assert!(many, "{refused:?}");
    let (out, ..) = run(&client, &sh("echo commands go on")).await;
    assert_eq!(out, b"commands go on\n");
    drop((streams.pop(), services.pop()));
    let mut again = client.forward(&target).await;
    let end = tokio::time::Instant::now() + LIMIT;
    while again.is_err() && tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
        again = client.forward(&target).await;
    }
    listener
        .accept()
        .await
        .unwrap()
        .0
        .write_all(b"room")
        .await
        .unwrap();
    assert_eq!(to_eof(&mut again.unwrap().output).await, b"room");
}

#[tokio::test]
async fn a_thousand_connections_leave_nothing() {
    let guest = Bare::start();
    let client = guest.client().await;
    let before = guest.count("fd");
    for round in 0..1000_u32 {
        let (stream, mut service) = connected(&client).await;
        if round % 2 == 0 {
            stream.input.eof().await.unwrap();
            assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
        }
    }
    common::until("the last connections to be closed", || {
        guest.count("fd") <= before
    })
    .await;
}
