//! The real agent on a socketpair: commands, streams, statuses, signals, sessions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use banger_wire::guest::connect::shake;
use banger_wire::guest::{
    ClientError, ExecEvent, ExecRequest, ExitStatus, FailureKind, GuestClient, GuestState, TtySize,
};
use bytes::Bytes;
use common::{LIMIT, run, sh, start, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

#[tokio::test]
async fn output_and_error_apart_and_the_exit_code() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let (out, err, status) = run(&client, &sh("echo out; echo err >&2; exit 42")).await;
    assert_eq!((&out[..], &err[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(status, ExitStatus::Exited { code: 42 });
    let health = client.health().await.unwrap();
    assert_eq!(health.state, GuestState::Ready);
    assert_eq!(health.boot_nonce, client.ack().boot_nonce.to_string());
    client.ready().await.unwrap();
    client.sync().await.unwrap();
}

/// What a command writes at its own places does not reach the machine's, and it sees none of their files.
#[tokio::test]
async fn the_guest_has_places_and_users_of_its_own() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let outside = std::env::temp_dir();
    let look = format!(
        "pwd; id -un; ls -A /root /tmp; echo x >/root/f; echo x >/tmp/{}; cat /etc/passwd /etc/group",
        std::process::id()
    );
    let (out, err, _) = run(&client, &sh(&look)).await;
    let expected = "/root\nroot\n/root:\n\n/tmp:\nroot:x:0:0:root:/root:/bin/sh\n\
                    user:x:1000:1000:user:/home/user:/bin/sh\nroot:x:0:\nuser:x:1000:\n";
    assert_eq!(
        String::from_utf8_lossy(&out),
        expected,
        "{}",
        String::from_utf8_lossy(&err)
    );
    assert_eq!(std::fs::read(agent.home().join("f")).unwrap(), b"x\n");
    assert!(!outside.join(std::process::id().to_string()).exists());
}

#[tokio::test]
async fn binary_input_comes_back_equal() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let data: Bytes = (0..4 * 1024 * 1024_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (input, output) = client
        .exec(&ExecRequest::new(["cat"]))
        .await
        .unwrap()
        .split();
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        input.stdin(sent).await.unwrap();
        input.eof().await.unwrap();
    });
    let (out, _, status) = timeout(LIMIT, output.collect()).await.unwrap().unwrap();
    writer.await.unwrap();
    assert!(out == data, "{} bytes came back", out.len());
    assert_eq!(status.code(), 0);
}

#[tokio::test]
async fn a_slow_host_gets_everything() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let mut output = client
        .exec(&sh("head -c 1000000 /dev/zero"))
        .await
        .unwrap()
        .output;
    // Longer than the grace after the end of the command.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let mut count = 0;
    let status = loop {
        match timeout(LIMIT, output.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
        {
            ExecEvent::Stdout(data) => count += data.len(),
            ExecEvent::Stderr(data) => panic!("{data:?}"),
            ExecEvent::Taken(_) => {}
            ExecEvent::Exit(status) => break status,
        }
    };
    assert_eq!((count, status.code()), (1_000_000, 0));
    assert_eq!(output.next().await.unwrap(), None);
}

#[tokio::test]
async fn failures_have_a_shells_codes() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let failure = async |request: ExecRequest| match run(&client, &request).await {
        (_, _, ExitStatus::Failed(failure)) => failure.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        failure(ExecRequest::new(["no-such-program"])).await,
        FailureKind::NotFound
    );
    assert_eq!(
        failure(ExecRequest::new(["/no/such"])).await,
        FailureKind::NotFound
    );
    assert_eq!(failure(ExecRequest::new([""])).await, FailureKind::NotFound);
    assert_eq!(
        failure(ExecRequest::new(["/etc/passwd"])).await,
        FailureKind::NotExecutable
    );
    assert_eq!(
        failure(ExecRequest::new(["/etc"])).await,
        FailureKind::NotExecutable
    );
    let script = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let file = agent.home().join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        ExecRequest::new([format!("/root/{name}")])
    };
    let lost = script("lost", "#!/no/such/interpreter\n");
    assert_eq!(failure(lost).await, FailureKind::NotFound);
    // As under a shell, a script without a first line is run by /bin/sh.
    let (out, _, _) = run(&client, &script("plain", "echo no first line\n")).await;
    assert_eq!(out, b"no first line\n");
    let mut request = sh("true");
    request.cwd = Some("/no/such".into());
    assert_eq!(failure(request).await, FailureKind::Cwd);
    let mut request = sh("true");
    request.user = Some("no-such-user".into());
    assert_eq!(failure(request).await, FailureKind::User);
    let refused = client.exec(&ExecRequest::default()).await.unwrap_err();
    assert!(
        matches!(refused, ClientError::Refused { status: 400, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn environment_and_directory() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let mut request = sh("echo \"$A|$PATH|$PWD|${BANGER_LEAK-none}\"");
    request.env = BTreeMap::from([
        ("A".into(), "a b".into()),
        ("PATH".into(), "/usr/bin:/bin".into()),
    ]);
    request.cwd = Some("/usr".into());
    let (out, _, _) = run(&client, &request).await;
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "a b|/usr/bin:/bin|/usr|none\n"
    );
    let long = "x".repeat(100_000);
    let (out, _, _) = run(&client, &ExecRequest::new(["printf", "%s", &long])).await;
    assert_eq!(out.len(), long.len());
}

#[tokio::test]
async fn signals_reach_the_group_and_name_the_end() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let (input, mut output) = client
        .exec(&sh("echo ready; sleep 60 & wait"))
        .await
        .unwrap()
        .split();
    assert_eq!(
        output.next().await.unwrap(),
        Some(ExecEvent::Stdout("ready\n".into()))
    );
    input.signal(15).await.unwrap();
    let (_, _, status) = timeout(LIMIT, output.collect()).await.unwrap().unwrap();
    assert_eq!(status, ExitStatus::Signaled { signal: 15 });
    assert_eq!(status.code(), 143);
    until("the group to be gone", || agent.children().is_empty()).await;
}

#[tokio::test]
async fn a_body_that_ends_is_no_end_of_input() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let (input, mut output) = client
        .exec(&sh("echo ready; cat; echo eof"))
        .await
        .unwrap()
        .split();
    assert_eq!(
        output.next().await.unwrap(),
        Some(ExecEvent::Stdout("ready\n".into()))
    );
    drop(input);
    assert!(
        timeout(Duration::from_millis(700), output.next())
            .await
            .is_err()
    );
    drop(output);
    until("the hang-up to end it", || agent.children().is_empty()).await;
}

#[tokio::test]
async fn a_background_process_does_not_keep_the_request() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let start = Instant::now();
    let (out, _, status) = run(&client, &sh("sleep 7 & echo hi")).await;
    assert_eq!((&out[..], status.code()), (&b"hi\n"[..], 0));
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn terminal_size_echo_interrupt_and_end() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let mut request =
        sh("stty size; read line; stty size; echo \"got $line\"; tty >/dev/null && cat; exit 3");
    request.tty = Some(TtySize {
        rows: 30,
        cols: 100,
    });
    let (input, mut output) = client.exec(&request).await.unwrap().split();
    let mut seen = String::new();
    let mut stage = 0;
    let status = loop {
        match timeout(LIMIT, output.next())
            .await
            .expect(&seen)
            .unwrap()
            .unwrap()
        {
            ExecEvent::Stdout(data) => seen.push_str(std::str::from_utf8(&data).unwrap()),
            ExecEvent::Stderr(data) => panic!("{data:?}"),
            ExecEvent::Taken(_) => {}
            ExecEvent::Exit(status) => break status,
        }
        if stage == 0 && seen.contains("30 100\r\n") {
            stage = 1;
            input
                .resize(TtySize {
                    rows: 40,
                    cols: 120,
                })
                .await
                .unwrap();
            input.stdin("hello\n".into()).await.unwrap();
        }
        if stage == 1 && seen.contains("got hello\r\n") {
            stage = 2;
            input.eof().await.unwrap();
        }
    };
    assert!(seen.contains("40 120\r\n"), "{seen:?}");
    assert_eq!(status.code(), 3);

    // Not through a shell: dash holds an interrupt back that comes while it forks.
    let mut request = ExecRequest::new(["cat"]);
    request.tty = Some(TtySize { rows: 24, cols: 80 });
    let (input, mut output) = client.exec(&request).await.unwrap().split();
    input.stdin("up\n".into()).await.unwrap();
    let mut seen = Vec::new();
    // Once from the terminal's echo, once from the command.
    while seen != b"up\r\nup\r\n" {
        match timeout(LIMIT, output.next()).await.unwrap().unwrap() {
            Some(ExecEvent::Stdout(data)) => seen.extend_from_slice(&data),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
    input.stdin(Bytes::from_static(&[3])).await.unwrap();
    let (_, _, status) = timeout(LIMIT, output.collect()).await.unwrap().unwrap();
    assert_eq!(status.code(), 130);
}

#[tokio::test]
async fn one_stalled_command_stalls_no_other() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let (input, output) = client.exec(&sh("sleep 60")).await.unwrap().split();
        let blocked = input.clone();
        tokio::spawn(async move { blocked.stdin(vec![0; 2 << 20].into()).await });
        stalled.push((input, output));
        stalled.push(client.exec(&sh("yes")).await.unwrap().split());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (out, _, _) = run(&client, &sh("head -c 3000000 /dev/zero")).await;
    assert_eq!(out.len(), 3_000_000);
}

#[tokio::test]
async fn a_new_hello_ends_the_session_and_hangs_up_its_commands() {
    let Some(agent) = start() else { return };
    let mut dead = {
        let connected = shake(agent.channel(), agent.token(), LIMIT).await.unwrap();
        // A killed host: its socket stays connected at our end of the pair and nobody answers.
        let client = GuestClient::start(connected).await.unwrap();
        let (_input, mut output) = client
            .exec(&sh("echo ready; exec sleep 60"))
            .await
            .unwrap()
            .split();
        assert_eq!(
            output.next().await.unwrap(),
            Some(ExecEvent::Stdout("ready\n".into()))
        );
        agent.channel()
    };
    // Half a frame of the dead session, and half a hello.
    dead.write_all(&[0, 64, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3])
        .await
        .unwrap();
    dead.write_all(&agent.token().0).await.unwrap();
    let client = agent.client().await;
    let (out, _, _) = run(&client, &sh("echo again")).await;
    assert_eq!(out, b"again\n");
    until("the first command to get its hang-up", || {
        agent.children().is_empty()
    })
    .await;
}

#[tokio::test]
async fn nothing_grows() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    run(&client, &sh("true")).await;
    let before = agent.descriptors();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..100_u8 {
        let client = client.clone();
        // A double fork leaves an orphan for the agent to reap.
        running.spawn(async move {
            let script = format!("(sleep 0.01 &) ; exit {number}");
            let (_, _, status) = run(&client, &sh(&script)).await;
            assert_eq!(status.code(), number);
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    until("all children to be reaped", || agent.children().is_empty()).await;
    until("descriptors to be closed", || agent.descriptors() <= before).await;
}

#[tokio::test]
async fn a_lost_agent_is_a_lost_connection_and_never_success() {
    let Some(mut agent) = start() else { return };
    let client = agent.client().await;
    let mut output = client
        .exec(&sh("echo ready; sleep 1"))
        .await
        .unwrap()
        .output;
    assert_eq!(
        output.next().await.unwrap(),
        Some(ExecEvent::Stdout("ready\n".into()))
    );
    agent.process().kill().unwrap();
    agent.process().wait().unwrap();
    let end = timeout(LIMIT, output.next()).await.unwrap();
    assert!(matches!(end, Err(ClientError::ConnectionLost)), "{end:?}");
    timeout(LIMIT, client.closed()).await.unwrap();
    assert!(client.is_closed());
}

#[tokio::test]
async fn power_off_answers_first() {
    let Some(mut agent) = start() else { return };
    let client = agent.client().await;
    client.poweroff().await.unwrap();
    until("the agent to end", || {
        agent.process().try_wait().unwrap().is_some()
    })
    .await;
    assert!(agent.process().wait().unwrap().success());
}

#[tokio::test]
async fn other_paths_are_refused_with_a_sentence() {
    let Some(agent) = start() else { return };
    let mut stream = agent.channel();
    // Not HTTP/2 at all: the session ends, and the next hello is answered.
    stream.write_all(&[0xff; 300]).await.unwrap();
    let connected = shake(stream, agent.token(), LIMIT).await.unwrap();
    let mut stream = connected.stream;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut buffer = [0; 1024];
    let _ = timeout(Duration::from_millis(100), stream.read(&mut buffer)).await;
    drop(stream);
    let client = agent.client().await;
    assert_eq!(client.health().await.unwrap().state, GuestState::Ready);
}

/// A megabyte pasted into a terminal that a program reads line by line arrives whole, and so does the key behind it.
#[tokio::test]
async fn a_paste_into_a_terminal_arrives_whole() {
    let Some(agent) = start() else { return };
    let client = agent.client().await;
    let mut request = sh("stty -echo; echo up; cat >/root/paste; echo done");
    request.tty = Some(TtySize { rows: 24, cols: 80 });
    let (input, mut output) = client.exec(&request).await.unwrap().split();
    let paste: String = (0..10_000).map(|line| format!("{line:0>99}\n")).collect();
    let sent = paste.clone();
    let mut seen = String::new();
    while !seen.contains("up\r\n") {
        if let Some(ExecEvent::Stdout(data)) = timeout(LIMIT, output.next()).await.unwrap().unwrap()
        {
            seen.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
    let keys = tokio::spawn(async move {
        input.stdin(sent.into()).await.unwrap();
        input.eof().await.unwrap();
        input
    });
    let (out, _, status) = timeout(LIMIT, output.collect())
        .await
        .expect("the end")
        .unwrap();
    drop(keys.await);
    let pasted = std::fs::read_to_string(agent.home().join("paste")).unwrap();
    assert_eq!((&out[..], status.code()), (&b"done\r\n"[..], 0));
    assert!(pasted == paste, "{} bytes", pasted.len());
}
