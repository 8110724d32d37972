//! The real agent on a socketpair: commands that are attached to again after their session was lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use banger_wire::guest::exec::{UNKNOWN, WINDOW};
use banger_wire::guest::frame::Taken;
use banger_wire::guest::{
    AttachRequest, ClientError, ExecEvent, ExecId, ExecOutput, ExecRequest, ExitStatus, GuestClient,
};
use bytes::Bytes;
use common::{LIMIT, run, sh, start, until};
use tokio::time::timeout;

/// A client of a command as the command line is one: it counts what it got.
struct Client {
    id: ExecId,
    /// Standard output.
    got: Vec<u8>,
    /// Standard error.
    errors: Vec<u8>,
    taken: Taken,
}

impl Client {
    fn new() -> Self {
        Self {
            id: ExecId::random().unwrap(),
            got: Vec::new(),
            errors: Vec::new(),
            taken: Taken::default(),
        }
    }

    fn request(&self, script: &str) -> ExecRequest {
        ExecRequest {
            id: Some(self.id),
            ..sh(script)
        }
    }

    /// Bytes of both streams.
    fn count(&self) -> u64 {
        (self.got.len() + self.errors.len()) as u64
    }

    fn again(&self) -> AttachRequest {
        AttachRequest {
            id: self.id,
            output: self.count(),
        }
    }

    /// The next event; output is kept.
    async fn next(&mut self, output: &mut ExecOutput) -> Option<ExitStatus> {
        let event = timeout(LIMIT, output.next()).await.expect("an event");
        match event.unwrap().unwrap() {
            ExecEvent::Stdout(data) => self.got.extend_from_slice(&data),
            ExecEvent::Stderr(data) => self.errors.extend_from_slice(&data),
            ExecEvent::Taken(taken) => self.taken = taken,
            ExecEvent::Exit(status) => return Some(status),
        }
        None
    }
}

async fn count(output: &mut ExecOutput, client: &mut Client, bytes: usize) {
    while client.got.len() < bytes {
        assert_eq!(client.next(output).await, None);
    }
}

/// R-PROG-2: the session is lost again and again while a command writes and reads; nothing is lost, nothing comes twice.
#[tokio::test]
async fn no_byte_is_lost_or_repeated_over_many_sessions() {
    let Some(agent) = start() else { return };
    let mut client = Client::new();
    let input: Bytes = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut session = agent.client().await;
    let request = client.request("cat; echo end >&2; exit 5");
    let mut stream = session.exec(&request).await.unwrap();
    let mut sessions = 1;
    let status = loop {
        let (to, mut from) = stream.split();
        // What was received is not sent again, what was not is.
        let mut sent = client.taken.received;
        let cut_at = client.got.len() + 400_000;
        let end = loop {
            let window = WINDOW - (sent - client.taken.consumed);
            let at = usize::try_from(sent).unwrap();
            let part = input.slice(at..input.len().min(at + usize::try_from(window).unwrap()));
            if !part.is_empty() {
                sent += part.len() as u64;
                to.stdin(part).await.unwrap();
                if sent == input.len() as u64 {
                    to.eof().await.unwrap();
                }
            }
            if let Some(status) = client.next(&mut from).await {
                break Some(status);
            }
            to.got(client.count()).await.unwrap();
            if client.got.len() > cut_at {
                break None;
            }
        };
        if let Some(status) = end {
            to.leave(from).await;
            break status;
        }
        // Killed: no farewell, and a new hello on the same port.
        drop((to, from, session));
        session = agent.client().await;
        sessions += 1;
        stream = session.attach(&client.again()).await.unwrap();
        assert_eq!(
            client.next(&mut stream.output).await,
            None,
            "taken comes first"
        );
        if client.taken.received == input.len() as u64 {
            stream.input.eof().await.unwrap();
        }
    };
    assert_eq!(status, ExitStatus::Exited { code: 5 });
    assert!(sessions > 4, "{sessions}");
    assert!(client.got == input, "the input comes back once");
    assert_eq!(client.errors, b"end\n");
    session.collected(client.id).await.unwrap();
    let refused = session.attach(&client.again()).await.unwrap_err();
    assert!(refused.unknown(), "{refused}");
}

/// A command that ended while nobody was there is kept with its status.
#[tokio::test]
async fn a_command_that_ended_meanwhile_tells_its_end() {
    let Some(agent) = start() else { return };
    let mut client = Client::new();
    let session = agent.client().await;
    let request = client.request("echo one; sleep 0.2; echo two; exit 9");
    let mut stream = session.exec(&request).await.unwrap();
    count(&mut stream.output, &mut client, 4).await;
    drop((stream, session));
    until("the command to end", || agent.children().is_empty()).await;
    let session = agent.client().await;
    let mut stream = session.attach(&client.again()).await.unwrap();
    let status = loop {
        if let Some(status) = client.next(&mut stream.output).await {
            break status;
        }
    };
    assert_eq!(status, ExitStatus::Exited { code: 9 });
    assert_eq!(client.got, b"one\ntwo\n");
    // Still there: the host may have died with the status in its hands.
    drop(stream);
    let mut stream = session.attach(&client.again()).await.unwrap();
    assert_eq!(client.next(&mut stream.output).await, None);
    assert_eq!(client.next(&mut stream.output).await, Some(status));
    stream.input.leave(stream.output).await;
    timeout(LIMIT, session.collected(client.id))
        .await
        .unwrap()
        .unwrap();
}

/// One id is one command, however often its start is asked for.
#[tokio::test]
async fn a_start_that_is_repeated_starts_nothing() {
    let Some(agent) = start() else { return };
    let mut client = Client::new();
    let session = agent.client().await;
    let request = client.request("echo $$; sleep 60");
    let mut first = session.exec(&request).await.unwrap();
    count(&mut first.output, &mut client, 2).await;
    let mut second = session.exec(&request).await.unwrap();
    let mut other = Client::new();
    while other.got.is_empty() {
        other.next(&mut second.output).await;
    }
    assert_eq!(client.got, other.got);
    // The newer attachment counts; the older one ends without a status.
    let end = timeout(LIMIT, first.output.next()).await.unwrap();
    assert!(matches!(end, Err(ClientError::ConnectionLost)), "{end:?}");
    second.input.leave(second.output).await;
    until("the hang-up to end it", || agent.children().is_empty()).await;
}

/// What a command writes while nobody gets it is bounded, and so is what it is sent and does not read; a signal comes
/// through all the same.
#[tokio::test]
async fn nobody_there_is_no_reason_to_grow() {
    let Some(agent) = start() else { return };
    let client = Client::new();
    let session = agent.client().await;
    let mut stream = session.exec(&client.request("yes")).await.unwrap();
    let mut got = 0;
    while got < WINDOW {
        match timeout(LIMIT, stream.output.next()).await.unwrap().unwrap() {
            Some(ExecEvent::Stdout(data)) => got += data.len() as u64,
            other => panic!("{other:?}"),
        }
    }
    let more = timeout(Duration::from_millis(300), async {
        while stream.output.next().await.is_ok() {}
    });
    assert!(more.await.is_err(), "it waits for the host to get it");
    stream.input.got(got).await.unwrap();
    assert!(timeout(LIMIT, stream.output.next()).await.unwrap().is_ok());
    stream.input.leave(stream.output).await;

    let deaf = Client::new();
    let (to, mut from) = session
        .exec(
            &deaf.request("trap 'echo heard; exit 3' TERM; echo up; while :; do sleep 0.01; done"),
        )
        .await
        .unwrap()
        .split();
    let mut client = deaf;
    count(&mut from, &mut client, 3).await;
    to.stdin(vec![0; usize::try_from(WINDOW).unwrap()].into())
        .await
        .unwrap();
    to.signal(15).await.unwrap();
    let status = loop {
        if let Some(status) = client.next(&mut from).await {
            break status;
        }
    };
    assert_eq!(status.code(), 3);
    assert!(client.got.ends_with(b"heard\n"));
    to.leave(from).await;
}

/// Detached: started, left alone, nothing kept.
#[tokio::test]
async fn a_detached_command_goes_on_alone() {
    let Some(agent) = start() else { return };
    let session = agent.client().await;
    let mark = agent.home().join("mark");
    let mut request = sh("cat; sleep 0.2; echo done >/root/mark");
    request.detach = true;
    let (out, _, status) = run(&session, &request).await;
    assert_eq!((&out[..], status.code()), (&b""[..], 0));
    drop(session);
    until("its mark", || {
        std::fs::read(&mark).is_ok_and(|text| text == b"done\n")
    })
    .await;
    let session = agent.client().await;
    let mut missing = ExecRequest::new(["/nonexistent"]);
    missing.detach = true;
    assert_eq!(run(&session, &missing).await.2.code(), 127);
}

/// A thousand commands, collected: neither descriptors nor processes nor memory stay.
#[tokio::test]
async fn a_thousand_commands_leave_nothing() {
    let Some(agent) = start() else { return };
    let session = agent.client().await;
    let some = async |number: usize| {
        let mut running = tokio::task::JoinSet::new();
        for index in 0..number {
            let session: GuestClient = session.clone();
            running.spawn(async move {
                let mut client = Client::new();
                let script = format!("(sleep 0.01 &) ; echo {index}");
                let mut stream = session.exec(&client.request(&script)).await.unwrap();
                while client.next(&mut stream.output).await.is_none() {}
                stream.input.leave(stream.output).await;
                session.collected(client.id).await.unwrap();
            });
            if running.len() >= 20 {
                running.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    };
    some(100).await;
    until("all children to be reaped", || agent.children().is_empty()).await;
    let descriptors = agent.descriptors();
    let mut grown = Vec::new();
    // What is lost with each command is lost in every round; what the allocator keeps for its threads, in one of them.
    while grown.last().is_none_or(|kib| *kib >= 512) && grown.len() < 3 {
        let memory = agent.memory_kib();
        some(900).await;
        until("all children to be reaped", || agent.children().is_empty()).await;
        until("descriptors to be closed", || {
            agent.descriptors() <= descriptors
        })
        .await;
        grown.push(agent.memory_kib().saturating_sub(memory));
    }
    assert!(
        grown.last().is_some_and(|kib| *kib < 512),
        "{grown:?} KiB more after 900 commands each"
    );
}

#[tokio::test]
async fn an_unknown_command_is_refused_as_that() {
    let Some(agent) = start() else { return };
    let session = agent.client().await;
    let refused = session.attach(&Client::new().again()).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { status: UNKNOWN, message } if message.contains("no such command")),
        "{refused}"
    );
    // Of an id that is not known there is nothing to wait for.
    timeout(LIMIT, session.collected(ExecId::MAIN))
        .await
        .unwrap()
        .unwrap();
}
