//! The command line's words, pinned: each `$ banger …` line of the transcripts is run in a home of
//! its own and must print what stands below it, exit status included. What differs from run to run
//! (operation ids, pids, directories) is replaced by a name in angle brackets.
//!
//! `UPDATE_TRANSCRIPTS=1` writes the files anew; read the difference before committing it.

use banger_testkit::{Home, Run};
use std::{fmt::Write as _, fs, path::Path};

fn transcripts() -> impl Iterator<Item = std::path::PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let mut files: Vec<_> = fs::read_dir(dir)
        .expect("transcripts")
        .flatten()
        .map(|e| e.path())
        .collect();
    files.sort();
    files.into_iter()
}

#[test]
fn the_command_line_says_what_the_transcripts_say() {
    let mut compared = 0;
    for file in transcripts() {
        let wanted = fs::read_to_string(&file).expect("a transcript");
        let said = replay(&wanted);
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            fs::write(&file, &said).expect("a transcript");
        } else {
            assert!(
                said == wanted,
                "{} differs; it says now:\n{said}",
                file.display()
            );
        }
        compared += said.matches("\n[exit ").count();
    }
    assert!(compared > 20, "only {compared} commands were compared");
}

/// Runs the commands of a transcript in a fresh home and writes it down anew.
fn replay(transcript: &str) -> String {
    let home = Home::bare();
    let mut text = String::new();
    for line in transcript.lines() {
        if line.starts_with("# ") {
            let _ = writeln!(text, "{line}");
        } else if let Some(command) = line.strip_prefix("$ banger") {
            let args: Vec<&str> = command.split_whitespace().collect();
            let run = home.banger(&args);
            let _ = writeln!(
                text,
                "$ banger{command}\n{}[exit {}]\n",
                told(&home, &run),
                run.status
            );
        }
    }
    home.finish();
    text
}

/// Both outputs, stderr marked by `! `, with what changes from run to run replaced.
fn told(home: &Home, run: &Run) -> String {
    let mut text = String::from_utf8_lossy(&run.stdout).into_owned();
    for line in run.err().lines() {
        let _ = writeln!(text, "! {line}");
    }
    for (path, name) in [
        (home.state(), "<state>"),
        (home.runtime(), "<runtime>"),
        (home.config(), "<config>"),
    ] {
        text = text.replace(&path.display().to_string(), name);
    }
    text.lines()
        .map(|line| format!("{}\n", timeless(line)))
        .collect()
}

fn timeless(line: &str) -> String {
    for (prefix, rest) in [
        ("! operation: ", "<id>"),
        ("running  pid ", "<pid>, version <version>, up <n> s"),
    ] {
        if line.starts_with(prefix) {
            return format!("{prefix}{rest}");
        }
    }
    line.replace(env!("CARGO_PKG_VERSION"), "<version>")
        .trim_end()
        .to_owned()
}
