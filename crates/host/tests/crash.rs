//! A real process dying at each of its effects.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use banger_host::{
    Effect, Files,
    crash::{CRASH_AT, CrashAt, CrashPoints, EFFECT_LOG, ENABLED},
    state_file,
};
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

const PLAY: &str = "BANGER_TEST_PLAY";

/// Not a test: replaces a state file and then writes to its ledger, dying where it is told to.
#[test]
fn helper() {
    let Some(dir) = std::env::var_os(PLAY).map(PathBuf::from) else {
        return;
    };
    let points = CrashPoints::from_env().unwrap();
    let host = CrashAt::new(common::host(&dir), points.clone());
    assert!(host.stat(&dir).unwrap().is_some(), "looking is not counted");
    state_file::replace(&host, &dir.join("state"), b"new").unwrap();
    points.around(Effect::Ledger, || {
        fs::write(dir.join("ledger"), b"row").unwrap()
    });
    let counted = ENABLED && std::env::var_os(EFFECT_LOG).is_some();
    assert_eq!(host.points().count(), if counted { 5 } else { 0 });
}

#[allow(
    clippy::disallowed_methods,
    reason = "the daemon of this test is not one of ours"
)]
fn run(dir: &Path, variables: &[(&str, &str)]) -> ExitStatus {
    fs::write(dir.join("state"), b"old").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper"])
        .env(PLAY, dir)
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

#[test]
fn it_dies_before_or_after_the_effect_it_is_told() {
    if !ENABLED {
        common::skip(
            "it_dies_before_or_after…: this build has no crash points (feature crash-points)",
        );
        return;
    }
    for at in 1..=6 {
        for after in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let text = format!("{at}{}", if after { ":after" } else { "" });
            let log = dir.path().join("log");
            let status = run(
                dir.path(),
                &[(CRASH_AT, &text), (EFFECT_LOG, log.to_str().unwrap())],
            );
            assert_eq!(status.signal(), (at <= 5).then_some(9), "{text}: {status}");
            let done = if after { at } else { at - 1 };
            let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
            let state = if done >= 3 { "new" } else { "old" };
            assert_eq!(read("state").as_deref(), Some(state), "{text}");
            assert_eq!(
                read(".state.part").is_some(),
                done == 1 || done == 2,
                "{text}"
            );
            assert_eq!(read("ledger").is_some(), done >= 5, "{text}");
            let all = ["WriteFile", "SyncFile", "Rename", "SyncDir", "Ledger"];
            let begun: String = (1..)
                .zip(&all[..at.min(5)])
                .map(|(n, e)| format!("{n} {e}\n"))
                .collect();
            assert_eq!(read("log").unwrap(), begun, "{text}");
        }
    }
}

#[test]
fn without_the_variables_nothing_happens_and_with_bad_ones_nothing_is_done() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &[]).success());
    if ENABLED {
        assert!(!run(dir.path(), &[(CRASH_AT, "soon")]).success());
        assert_eq!(fs::read(dir.path().join("state")).unwrap(), b"old");
        assert!(!run(dir.path(), &[(EFFECT_LOG, "/nowhere/at/all")]).success());
    }
}
