//! `docs/api.md` is run: what stands behind `$` in its console blocks must print what stands below it.
//!
//! `UPDATE_TRANSCRIPTS=1` writes what was printed into the document; read the difference before committing it.

use super::{file, root};
use banger_testkit::{Home, binaries};
use std::fmt::Write as _;

/// The document.
const PATH: &str = "docs/api.md";

/// A line of the document as it is printed, and as it is compared.
struct Command {
    text: String,
    printed: String,
}

/// The document in pieces: words, and the commands of one kind of block.
enum Piece {
    Words(String),
    Commands(Vec<Command>),
}

fn pieces(text: &str, fence: &str) -> Vec<Piece> {
    let (mut pieces, mut words) = (Vec::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(words, "{line}");
        if line != fence {
            continue;
        }
        let mut commands: Vec<Command> = Vec::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(text), _) => commands.push(Command {
                    text: text.to_owned(),
                    printed: String::new(),
                }),
                (None, Some(command)) => {
                    let _ = writeln!(command.printed, "{line}");
                }
                (None, None) => panic!("{line}: printed before a command"),
            }
        }
        pieces.push(Piece::Words(std::mem::take(&mut words)));
        pieces.push(Piece::Commands(commands));
        words.push_str("```\n");
    }
    pieces.push(Piece::Words(words));
    pieces
}

/// Commands of all blocks.
pub fn commands() -> String {
    let all = file(PATH);
    let lines = all.lines().filter(|line| line.starts_with("$ "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Runs the commands of the blocks that begin with `fence`, in one shell in this home, and compares.
pub fn run(home: &Home, fence: &str) {
    let text = file(PATH);
    let mut pieces = pieces(&text, fence);
    let mut commands: Vec<&mut Command> = pieces
        .iter_mut()
        .filter_map(|piece| match piece {
            Piece::Commands(commands) => Some(commands),
            Piece::Words(_) => None,
        })
        .flatten()
        .collect();
    let printed = shell(home, &commands);
    assert_eq!(printed.len(), commands.len(), "{printed:#?}");
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    for (command, printed) in commands.iter_mut().zip(printed) {
        let same = timeless(&command.printed) == timeless(&printed);
        assert!(
            same || update,
            "{}\nprints\n{printed}and not\n{}",
            command.text,
            command.printed
        );
        if !same {
            command.printed = printed;
        }
    }
    if update {
        let text: String = pieces.iter().map(told).collect();
        std::fs::write(root().join(PATH), text).expect("the document");
    }
}

fn told(piece: &Piece) -> String {
    match piece {
        Piece::Words(words) => words.clone(),
        Piece::Commands(commands) => commands
            .iter()
            .map(|c| format!("$ {}\n{}", c.text, c.printed))
            .collect(),
    }
}

/// What each command prints, both streams together.
#[allow(
    clippy::disallowed_methods,
    reason = "a shell, as the reader of the document has one"
)]
fn shell(home: &Home, commands: &[&mut Command]) -> Vec<String> {
    const MARK: &str = "=== of the next command";
    let script: String = commands
        .iter()
        .map(|c| format!("echo '{MARK}'\n{}\n", c.text))
        .collect();
    let path = std::env::var("PATH").unwrap_or_default();
    let shell = std::process::Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .current_dir(home.scratch())
        .env("SOCK", home.runtime().join("bangerd.sock"))
        .env("PATH", format!("{}:{path}", binaries().display()))
        .output()
        .expect("a shell");
    let text = String::from_utf8_lossy(&shell.stdout).into_owned();
    let text = text
        .replace(
            &home.state().display().to_string(),
            "/home/you/.local/state/banger",
        )
        .replace(
            &home.runtime().display().to_string(),
            "/run/user/1000/banger",
        );
    let mark = format!("{MARK}\n");
    text.split(&mark).skip(1).map(ended).collect()
}

/// Ends with a line's end, if there is anything.
fn ended(text: &str) -> String {
    match text.is_empty() || text.ends_with('\n') {
        true => text.to_owned(),
        false => format!("{text}\n"),
    }
}

/// Without what differs from run to run: ids, digests and numbers; an HTTP status stands on a line of its own.
fn timeless(text: &str) -> String {
    let status = |line: &&str| line.len() == 3 && line.bytes().all(|b| b.is_ascii_digit());
    let line = |line: &str| match status(&line) {
        true => format!("{line}\n"),
        false => timeless_line(line),
    };
    text.lines().map(line).collect()
}

fn timeless_line(line: &str) -> String {
    // Addresses and ids of boots.
    let strange = |word: &str| {
        word.len() >= 12
            && word
                .bytes()
                .all(|b| b.is_ascii_hexdigit() || b":-".contains(&b))
    };
    let words: Vec<&str> = line
        .split('"')
        .map(|word| if strange(word) { "<x>" } else { word })
        .collect();
    let line = words.join("\"");
    let (mut out, mut word) = (String::new(), String::new());
    for c in line.chars().chain(['\n']) {
        let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        if c.is_ascii_alphanumeric() || c == '.' && digits {
            word.push(c);
            continue;
        }
        let number = digits || word.parse::<f64>().is_ok();
        if number && out.ends_with('-') {
            out.pop();
        }
        let hex = word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
        // An id may be all digits.
        out.push_str(if hex || number { "<x>" } else { &word });
        word.clear();
        out.push(c);
    }
    out
}
