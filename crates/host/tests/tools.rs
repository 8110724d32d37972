//! Programs run to their end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use banger_host::{ErrorKind, ToolCall, Tools, linux::ToolFailed};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

fn shell(script: &str, timeout: Duration) -> ToolCall {
    ToolCall {
        program: PathBuf::from("sh"),
        args: vec!["-c".into(), script.into()],
        env: BTreeMap::new(),
        cwd: PathBuf::from("/"),
        stdin: Vec::new(),
        timeout,
    }
}

const LONG: Duration = Duration::from_secs(30);

fn why(error: &banger_host::Error) -> &ToolFailed {
    error.source.downcast_ref().unwrap()
}

#[test]
fn input_output_and_progress_pass_through() {
    let host = common::host("/".as_ref());
    let mut call = shell("echo one >&2; printf 'two\\rthree' >&2; cat", LONG);
    // Far more than two pipes hold: both ends must be served at once.
    call.stdin = (0..1_000_000_u32).map(|i| (i >> 3) as u8).collect();
    let mut lines = Vec::new();
    let output = host
        .run_tool(&call, &mut |line| lines.push(line.to_owned()), &|| false)
        .unwrap();
    assert!(output.stdout == call.stdin);
    assert_eq!(lines, ["one", "two", "three"]);
    assert_eq!(output.stderr, "one\ntwo\rthree");
}

#[test]
fn nothing_is_inherited_but_what_is_said() {
    let host = common::host("/".as_ref());
    let mut call = shell("env | sort; pwd; umask; ls /proc/self/fd | wc -l", LONG);
    call.env.insert("EXTRA".into(), "1".into());
    let output = host.run_tool(&call, &mut |_| {}, &|| false).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .filter(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"))
        .collect();
    assert_eq!(names, ["EXTRA", "HOME", "LC_ALL", "PATH"]);
    // ls itself holds the directory: 0, 1, 2 and that.
    assert!(text.ends_with("/\n0022\n4\n"), "{text}");
}

#[test]
fn a_failure_says_how_it_ended_and_what_it_complained() {
    let host = common::host("/".as_ref());
    let error = host
        .run_tool(
            &shell("echo no such thing >&2; exit 3", LONG),
            &mut |_| {},
            &|| false,
        )
        .unwrap_err();
    assert_eq!(error.to_string(), "run sh");
    let text = error.source.to_string();
    assert_eq!(text, "it ended with exit status: 3: no such thing");
    let mut call = shell("", LONG);
    call.program = PathBuf::from("banger-no-such-program");
    let error = host.run_tool(&call, &mut |_| {}, &|| false).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(matches!(why(&error), ToolFailed::Absent(_)));
}

#[test]
fn programs_of_administrators_are_found() {
    let host = common::host("/".as_ref());
    let mut call = shell("", LONG);
    call.program = PathBuf::from("mke2fs");
    call.args = vec!["-V".into()];
    if !["/usr/sbin/mke2fs", "/sbin/mke2fs"]
        .iter()
        .any(|p| PathBuf::from(p).exists())
    {
        common::skip("programs_of_administrators_are_found: no mke2fs");
        return;
    }
    host.run_tool(&call, &mut |_| {}, &|| false).unwrap();
}

/// The pid the script printed, gone.
fn gone(pid: &str) {
    let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    common::eventually("the whole process group ends", || {
        std::fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "))
    });
}

#[test]
fn a_deadline_ends_the_whole_group_even_if_it_ignores_term() {
    let host = common::host("/".as_ref());
    let script = "trap '' TERM; sleep 60 & echo $! >&2; echo waiting >&2; wait; sleep 60";
    let started = Instant::now();
    let mut lines = Vec::new();
    let error = host
        .run_tool(
            &shell(script, Duration::from_millis(300)),
            &mut |line| lines.push(line.to_owned()),
            &|| false,
        )
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert!(
        error.source.to_string().contains("waiting"),
        "{}",
        error.source
    );
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
    gone(&lines[0]);
}

#[test]
fn cancelling_ends_it_at_once() {
    let host = common::host("/".as_ref());
    let started = Instant::now();
    let error = host
        .run_tool(&shell("sleep 60", LONG), &mut |_| {}, &|| {
            started.elapsed() > Duration::from_millis(100)
        })
        .unwrap_err();
    assert!(matches!(why(&error), ToolFailed::Cancelled));
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn what_a_tool_leaves_in_the_background_ends_with_it() {
    let host = common::host("/".as_ref());
    let started = Instant::now();
    let output = host
        .run_tool(&shell("sleep 60 & echo $!", LONG), &mut |_| {}, &|| false)
        .unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    gone(&String::from_utf8(output.stdout).unwrap());
}

#[test]
fn endless_output_is_refused_and_endless_complaint_is_cut() {
    let host = common::host("/".as_ref());
    let error = host
        .run_tool(&shell("yes", LONG), &mut |_| {}, &|| false)
        .unwrap_err();
    assert!(matches!(why(&error), ToolFailed::TooMuch));
    let script = "yes complaint | head -c 1000000 >&2; echo last >&2";
    let output = host
        .run_tool(&shell(script, LONG), &mut |_| {}, &|| false)
        .unwrap();
    assert_eq!(output.stderr.len(), 64 << 10);
    assert!(output.stderr.ends_with("last\n"));
}
