//! The real agent on a socketpair: files in and out, refusals, cuts, and what goes on meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use banger_tree::tar::{self, Entry, Kind, Time};
use banger_tree::{
    Chunk, Destination, Owner, Pack, Reach, StreamReader, StreamWriter, Unpack, pack, sum_of,
    unpack,
};
use banger_wire::guest::{
    ClientError, CopyFrame, CopyIn, CopyOut, CopyOutcome, CopyRequest, CopyStream, ExecRequest,
    GuestClient, PathBytes, Sum,
};
use common::Bare;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

fn bytes(path: &Path) -> PathBytes {
    PathBytes::from(path.as_os_str().as_bytes())
}

fn into(path: &Path) -> CopyRequest {
    CopyRequest::In(CopyIn {
        path: bytes(path),
        ..CopyIn::default()
    })
}

fn out_of(path: &Path) -> CopyRequest {
    CopyRequest::Out(CopyOut {
        path: bytes(path),
        ..CopyOut::default()
    })
}

/// Reads to the outcome; gives it with the warnings before it.
async fn outcome(stream: &mut CopyStream) -> Option<(CopyOutcome, Vec<String>)> {
    let mut warnings = Vec::new();
    loop {
        match timeout(LIMIT, stream.output.next())
            .await
            .unwrap()
            .unwrap()?
        {
            CopyFrame::Outcome(outcome) => return Some((outcome, warnings)),
            CopyFrame::Warning(text) => warnings.push(text),
            frame => panic!("{frame:?}"),
        }
    }
}

/// Sends a file or a tree as the command line does.
async fn put(client: &GuestClient, request: &CopyRequest, source: &Path) -> CopyOutcome {
    let mut stream = client.copy(request).await.unwrap();
    let (input, source) = (stream.input.clone(), source.to_owned());
    let sender = spawn_blocking(move || {
        let mut writer = StreamWriter::new(input.clone(), Box::new(|text| panic!("{text}")));
        let what = Pack {
            source: &source,
            follow: false,
            name: b"",
        };
        // A guest that fails takes no more.
        if pack(&what, &mut writer).is_ok() {
            let sum = writer.finish().unwrap();
            let _ = input.blocking_send(CopyFrame::End(sum).encode());
        }
    });
    let (outcome, _) = outcome(&mut stream).await.unwrap();
    drop(stream);
    timeout(LIMIT, sender).await.unwrap().unwrap();
    outcome
}

/// Takes a file or a tree as the command line does.
async fn get(
    client: &GuestClient,
    request: &CopyRequest,
    to: &Path,
) -> Result<Vec<String>, String> {
    let mut stream = client.copy(request).await.map_err(|e| e.to_string())?;
    let (chunks, queue) = mpsc::channel(4);
    let how = Unpack {
        destination: Destination {
            path: to.to_owned(),
            name: None,
            directory: false,
        },
        archive: false,
        owner: Owner::Us,
        reach: Reach::NoLinks,
    };
    let writer = spawn_blocking(move || {
        unpack(StreamReader::new(queue), &how, &mut |text| panic!("{text}"))
    });
    let mut warnings = Vec::new();
    loop {
        match timeout(LIMIT, stream.output.next()).await.unwrap().unwrap() {
            Some(CopyFrame::Data(data)) => drop(chunks.send(Chunk::Data(data)).await),
            Some(CopyFrame::Warning(text)) => warnings.push(text),
            Some(CopyFrame::Outcome(CopyOutcome::Done { sum, .. })) => {
                chunks.send(Chunk::End(sum)).await.unwrap();
                break;
            }
            Some(CopyFrame::Outcome(CopyOutcome::Failed { message })) => return Err(message),
            other => panic!("{other:?}"),
        }
    }
    writer.await.unwrap().map_err(|e| e.to_string())?;
    Ok(warnings)
}

fn message(outcome: CopyOutcome) -> String {
    match outcome {
        CopyOutcome::Failed { message } => message,
        done => panic!("{done:?}"),
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "waited {LIMIT:?} for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_tree_goes_in_and_comes_out_the_same() {
    let agent = Bare::start();
    let client = agent.client().await;
    let dir = tempfile::tempdir().unwrap();
    let [from, there, back] = ["from", "there", "back"].map(|n| dir.path().join(n));
    fs::create_dir_all(from.join("empty")).unwrap();
    let data: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(from.join("data"), &data).unwrap();
    fs::hard_link(from.join("data"), from.join("again")).unwrap();
    symlink("/nowhere", from.join("link")).unwrap();
    fs::File::create(from.join("hole"))
        .unwrap()
        .set_len(10 << 30)
        .unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"o\n\xff");
    fs::write(from.join(odd), b"x").unwrap();
    fs::set_permissions(from.join(odd), fs::Permissions::from_mode(0o4751)).unwrap();
    let done = put(&client, &into(&there), &from).await;
    let CopyOutcome::Done { sum, entries } = done else {
        panic!("{done:?}")
    };
    assert_eq!(entries, 7);
    assert!((3_000_000..4_000_000).contains(&sum.bytes), "{sum:?}");
    assert_eq!(get(&client, &out_of(&there), &back).await, Ok(vec![]));
    for root in [&there, &back] {
        assert!(fs::read(root.join("data")).unwrap() == data);
        assert_eq!(fs::metadata(root.join("again")).unwrap().nlink(), 2);
        assert_eq!(
            fs::read_link(root.join("link")).unwrap(),
            Path::new("/nowhere")
        );
        let hole = fs::metadata(root.join("hole")).unwrap();
        assert_eq!((hole.len(), hole.blocks()), (10 << 30, 0));
        assert!(root.join("empty").is_dir());
        let (was, is) = (
            fs::metadata(from.join(odd)).unwrap(),
            fs::metadata(root.join(odd)).unwrap(),
        );
        // Setuid goes only with the owner.
        assert_eq!(is.mode() & 0o7777, 0o751);
        assert_eq!(
            (is.mtime(), is.mtime_nsec()),
            (was.mtime(), was.mtime_nsec())
        );
    }
}

/// What cannot be done is told with its name, also while the host is still sending, and leaves the session as it was.
#[tokio::test]
async fn failures_name_the_entry() {
    let agent = Bare::start();
    let client = agent.client().await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("big"), vec![7; 30_000_000]).unwrap();
    fs::create_dir(at("dir")).unwrap();
    let refused = message(put(&client, &into(&at("none/x")), &at("big")).await);
    assert!(
        refused.contains("none") && refused.contains("No such file"),
        "{refused}"
    );
    let refused = message(put(&client, &into(Path::new("/dev/full/x")), &at("big")).await);
    assert!(refused.contains("/dev/full"), "{refused}");
    let refused = message(put(&client, &into(&at("big")), &at("dir")).await);
    assert!(refused.contains("onto a file"), "{refused}");
    let refused = get(&client, &out_of(&at("nothing")), &at("y"))
        .await
        .unwrap_err();
    assert!(refused.contains("nothing': No such file"), "{refused}");
    let bad = CopyRequest::Out(CopyOut {
        path: PathBytes(b"a\0".to_vec()),
        ..CopyOut::default()
    });
    let refused = client.copy(&bad).await.unwrap_err();
    assert!(
        matches!(refused, ClientError::Refused { status: 400, .. }),
        "{refused}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    client.health().await.unwrap();
}

fn crafted(entries: &[(&str, Kind)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind) in entries {
        bytes.extend_from_slice(&tar::header(&Entry {
            path: path.as_bytes().to_owned(),
            kind: kind.clone(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
        }));
        if matches!(kind, Kind::File { .. }) {
            bytes.resize(bytes.len() + 512, b'!');
        }
    }
    bytes.extend_from_slice(&tar::END);
    bytes
}

async fn archive(client: &GuestClient, to: &Path, bytes: &[u8]) -> (CopyOutcome, Vec<String>) {
    let request = CopyRequest::In(CopyIn {
        path: self::bytes(to),
        archive: true,
        ..CopyIn::default()
    });
    let mut stream = client.copy(&request).await.unwrap();
    let sum = sum_of(bytes);
    for part in bytes.chunks(700) {
        let frame = CopyFrame::Data(part.to_vec().into());
        let _ = stream.input.send(frame.encode()).await;
    }
    let _ = stream.input.send(CopyFrame::End(sum).encode()).await;
    outcome(&mut stream).await.unwrap()
}

#[tokio::test]
async fn archives_stay_in_their_directory() {
    let agent = Bare::start();
    let client = agent.client().await;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    let file = Kind::File {
        size: 3,
        data: None,
    };
    let link = |target: &str| Kind::Symlink {
        target: target.as_bytes().to_owned(),
    };
    for entries in [
        &[("../out", file.clone())][..],
        &[("/tmp/banger-agent-out", file.clone())],
        &[("l", link("..")), ("l/out", file.clone())],
        &[("l", link("/tmp")), ("l/banger-agent-out", file.clone())],
        &[(
            "h",
            Kind::HardLink {
                target: b"../../etc/passwd".to_vec(),
            },
        )],
    ] {
        let (outcome, _) = archive(&client, &to, &crafted(entries)).await;
        let refused = message(outcome);
        assert!(
            refused.contains("refused") && refused.contains(entries.last().unwrap().0),
            "{refused}"
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(!Path::new("/tmp/banger-agent-out").exists());
    let entries = [("sub/f", file), ("pipe", Kind::Other { name: "fifo" })];
    let (outcome, warnings) = archive(&client, &to, &crafted(&entries)).await;
    assert!(
        matches!(outcome, CopyOutcome::Done { entries: 1, .. }),
        "{outcome:?}"
    );
    assert_eq!(warnings, ["'pipe' is a fifo and left out"]);
    assert_eq!(fs::read(to.join("sub/f")).unwrap(), b"!!!");
}

/// A body that just ends, a wrong checksum, a host that goes: nothing appears under its name, nothing is left.
#[tokio::test]
async fn a_copy_that_is_cut_leaves_nothing() {
    let agent = Bare::start();
    let client = agent.client().await;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("f");
    let (files, threads) = (agent.count("fd"), agent.count("task"));
    let whole = crafted(&[(
        ".",
        Kind::File {
            size: 3,
            data: None,
        },
    )]);
    fs::write(&to, b"old").unwrap();
    for cut in ["body", "host"] {
        let stream = client.copy(&into(&to)).await.unwrap();
        let CopyStream {
            input, mut output, ..
        } = stream;
        let part = CopyFrame::Data(whole[..514].to_vec().into());
        input.send(part.encode()).await.unwrap();
        until("the file to be begun", || {
            fs::read_dir(dir.path()).unwrap().count() == 2
        })
        .await;
        match cut {
            "body" => {
                drop(input);
                let end = timeout(LIMIT, output.next()).await.unwrap();
                assert!(matches!(end, Ok(None)), "{end:?}");
            }
            _ => drop((input, output)),
        }
        until("the temporary to go", || {
            fs::read_dir(dir.path()).unwrap().count() == 1
        })
        .await;
        assert_eq!(fs::read(&to).unwrap(), b"old");
    }
    let mut stream = client.copy(&into(&dir.path().join("g"))).await.unwrap();
    let data = CopyFrame::Data(whole.clone().into());
    stream.input.send(data.encode()).await.unwrap();
    let wrong = Sum {
        bytes: whole.len() as u64,
        check: 1,
    };
    stream
        .input
        .send(CopyFrame::End(wrong).encode())
        .await
        .unwrap();
    let (outcome, _) = outcome(&mut stream).await.unwrap();
    assert!(message(outcome).contains("damaged"));
    drop(stream);
    until("descriptors to close", || agent.count("fd") == files).await;
    // One thread stays for the next copy.
    assert!(
        agent.count("task") <= threads + 2,
        "{threads} threads became {}",
        agent.count("task")
    );
}

/// Copies that nobody reads, or that get nothing, stall nothing else; one too many is refused.
#[tokio::test]
async fn stalled_copies_stall_nothing_else() {
    let agent = Bare::start();
    let client = agent.client().await;
    let dir = tempfile::tempdir().unwrap();
    let big = dir.path().join("big");
    fs::write(&big, vec![3; 5_000_000]).unwrap();
    let mut stalled = Vec::new();
    for number in 0..16 {
        stalled.push(client.copy(&out_of(&big)).await.unwrap());
        let there = dir.path().join(number.to_string());
        stalled.push(client.copy(&into(&there)).await.unwrap());
    }
    // A refusal takes no place, and gives none back.
    for _ in 0..3 {
        let refused = client.copy(&out_of(&big)).await.unwrap_err();
        assert!(
            refused.to_string().contains("copies run already"),
            "{refused}"
        );
    }
    timeout(LIMIT, client.health()).await.unwrap().unwrap();
    let exec = client
        .exec(&ExecRequest::new(["head", "-c", "3000000", "/dev/zero"]))
        .await
        .unwrap();
    let (out, ..) = timeout(LIMIT, exec.output.collect())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(out.len(), 3_000_000);
    drop(stalled);
    let back = dir.path().join("back");
    let end = Instant::now() + LIMIT;
    while let Err(refused) = get(&client, &out_of(&big), &back).await {
        assert!(
            Instant::now() < end && refused.contains("copies run already"),
            "{refused}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fs::metadata(&back).unwrap().len(), 5_000_000);
}
