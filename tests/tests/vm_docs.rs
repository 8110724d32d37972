//! The commands of README.md and docs/*.md run as they are printed, and print what stands below them.
//!
//! Every block of language `console` is run, in the order of its file, in one private home for each file: a line that
//! begins with `$ ` in a shell of its own, whose status must be 0. Where lines stand below it, standard output must be
//! exactly these, but that lines of standard error may be shown between them; where none do, nothing is compared.
//! A comment on the line above a block says what a reader need not see:
//!
//! - `<!-- not run: REASON -->`: counted and printed;
//! - `<!-- varies: version -->`: words that begin with a digit and have a dot in them are all alike;
//! - `<!-- with: src -->`: a directory `src` with a file in it is there.

use banger_testkit::{Home, Running};
use std::{fs, path::Path};

/// A block and the comment above it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    line: usize,
    mark: Option<(String, String)>,
    commands: Vec<Shown>,
}

/// A command and what stands below it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    command: String,
    lines: Vec<String>,
}

const MARKS: [&str; 3] = ["not run", "varies", "with"];

#[test]
fn every_command_of_the_documentation_runs_as_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![root.join("README.md")];
    let docs = fs::read_dir(root.join("docs")).expect("docs").flatten();
    files.extend(
        docs.map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "md"))
            // Its commands ask one daemon after the other: tests/tests/api/doc.rs runs them.
            .filter(|p| !p.ends_with("api.md")),
    );
    files[1..].sort();
    let (mut run, mut left_out) = (0, 0);
    for file in files {
        let name = file
            .strip_prefix(&root)
            .expect("below it")
            .display()
            .to_string();
        let blocks = blocks(&fs::read_to_string(&file).expect("a text"));
        if blocks.is_empty() {
            continue;
        }
        let home = Home::new();
        let here = home.scratch().join("here");
        fs::create_dir(&here).expect("a directory");
        for block in blocks {
            let place = format!("{name}:{}", block.line);
            match &block.mark {
                Some((mark, why)) if mark == "not run" => {
                    println!("{place}: not run: {why}");
                    left_out += block.commands.len();
                }
                _ => run += check(&home, &here, &place, &block),
            }
        }
        home.finish();
    }
    println!("{run} commands run, {left_out} left out");
    assert!(run >= 20, "only {run} commands were run");
}

/// Runs the commands of a block; gives how many they were.
fn check(home: &Home, here: &Path, place: &str, block: &Block) -> usize {
    let mark = block
        .mark
        .as_ref()
        .map(|(mark, value)| (mark.as_str(), value.as_str()));
    if let Some(("with", dir)) = mark {
        fs::create_dir_all(here.join(dir)).expect("a directory");
        fs::write(here.join(dir).join("main.c"), "int main;\n").expect("a file");
    }
    for shown in &block.commands {
        println!("{place}: {}", shown.command);
        let mut shell = home.shell("bash", &shown.command);
        shell.current_dir(here);
        let ended = Running::start(shell, b"").finish().exits(0);
        if let Err(why) = compare(&shown.lines, &ended.out(), &ended.err(), mark) {
            panic!("{place}: {}\n{why}\n{}", shown.command, ended.out());
        }
    }
    block.commands.len()
}

/// Whether this was printed as it is shown.
fn compare(
    shown: &[String],
    stdout: &str,
    stderr: &str,
    mark: Option<(&str, &str)>,
) -> Result<(), String> {
    if shown.is_empty() {
        return Ok(());
    }
    let varies = mark == Some(("varies", "version"));
    let alike = |a: &str, b: &str| a == b || (varies && versionless(a) == versionless(b));
    let (mut out, mut err) = (stdout.lines().peekable(), stderr.lines());
    for line in shown {
        if out.next_if(|printed| alike(printed, line)).is_none()
            && !err.any(|printed| alike(printed, line))
        {
            return Err(format!("does not print: {line}"));
        }
    }
    match out.next() {
        None => Ok(()),
        Some(more) => Err(format!("prints more than is shown: {more}")),
    }
}

fn versionless(line: &str) -> String {
    let word = |word: &str| {
        let version = word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
        if version {
            "<version>".to_owned()
        } else {
            word.to_owned()
        }
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The blocks of a Markdown text.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut mark = None;
    while let Some((number, line)) = lines.next() {
        if line.trim() != "```console" {
            mark = marked(line);
            continue;
        }
        let mut block = Block {
            line: number + 1,
            mark: mark.take(),
            commands: Vec::new(),
        };
        for (_, line) in lines.by_ref().take_while(|(_, line)| line.trim() != "```") {
            match (line.strip_prefix("$ "), block.commands.last_mut()) {
                (Some(command), _) => block.commands.push(Shown {
                    command: command.to_owned(),
                    lines: Vec::new(),
                }),
                (None, Some(shown)) => shown.lines.push(line.to_owned()),
                (None, None) => panic!("line {}: a block begins with '$ '", number + 2),
            }
        }
        blocks.push(block);
    }
    blocks
}

/// The mark on a line, if it is one; what looks like one must be.
fn marked(line: &str) -> Option<(String, String)> {
    let comment = line.trim().strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    let (mark, value) = comment.split_once(": ")?;
    assert!(MARKS.contains(&mark), "no such mark: {line}");
    assert!(
        mark != "varies" || value == "version",
        "only versions may vary: {line}"
    );
    Some((mark.to_owned(), value.to_owned()))
}

#[test]
fn a_wrong_output_is_found() {
    let text = "text\n<!-- varies: version -->\n```console\n$ uname\nLinux 6.1.0-5\n$ true\n```\n```console\n$ x\n```\n";
    let found = blocks(text);
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].line, found[1].line, &found[1].mark),
        (3, 8, &None)
    );
    let shown = &found[0].commands[0].lines;
    let varies = Some(("varies", "version"));
    assert_eq!(compare(shown, "Linux 6.12.3+deb13", "", varies), Ok(()));
    assert!(
        compare(shown, "Linux 6.12.3+deb13", "", None).is_err(),
        "must be the same"
    );
    assert!(
        compare(shown, "Darwin 6.1.0-5", "", varies).is_err(),
        "another word"
    );
    assert!(compare(shown, "", "", varies).is_err(), "nothing");
    assert!(
        compare(shown, "Linux 6.1.0-5\nmore", "", varies).is_err(),
        "more"
    );
    assert_eq!(
        compare(&[], "anything", "", None),
        Ok(()),
        "nothing is shown"
    );
    let both = ["out".to_owned(), "err".to_owned()];
    assert_eq!(compare(&both, "out", "progress\nerr", None), Ok(()));
    assert!(compare(&both, "out", "progress", None).is_err());
}
