//! Rules about single files: length, words, unfinished marks, paths of somebody's machine, crate docs.

use super::{File, Finding};

/// Longest file, in lines. More is two concepts in one file.
const LONGEST: usize = 800;
/// What is made from code and longer.
const MADE: [&str; 2] = ["docs/openapi.json", "docs/cli.md"];

/// Words that tell of a past this project does not have (R-PROG-3). Spelled in halves, for this file is
/// linted as well.
const FORBIDDEN: [&str; 4] = [
    concat!("leg", "acy"),
    concat!("previ", "ously"),
    concat!("no lon", "ger"),
    concat!("migration", " note"),
];

/// Marks of work that was not done.
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("todo", "!("),
    concat!("unimple", "mented!("),
    concat!("#[ign", "ore]"), // with a reason, `= "…"`, it is a statement
];

/// Beginnings of paths that exist on one machine only.
const MACHINE: [&str; 7] = [
    concat!("/wo", "rk/main"),
    concat!("/wo", "rk/shared"),
    concat!("/wo", "rk/."),
    concat!("/root/", ".cargo"),
    concat!("/root/", ".rustup"),
    concat!("/root/", ".pyenv"),
    concat!("/root/", ".local"),
];

/// Findings in one file.
pub fn check(file: &File) -> Vec<Finding> {
    if is_foreign(&file.path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let lines = file.text.lines().count();
    // What is made from code (`cargo xtask generate`) is as long as it is.
    if lines > LONGEST && !MADE.contains(&file.path.as_str()) {
        let message = format!("{lines} lines, {LONGEST} are allowed: two concepts in one file?");
        findings.push(Finding::new(file, 0, message));
    }
    if is_crate_root(&file.path) && !file.text.starts_with("//!") {
        findings.push(Finding::new(
            file,
            1,
            "a crate begins with //! what it holds",
        ));
    }
    for (index, line) in file.text.lines().enumerate() {
        findings.extend(line_messages(line).map(|m| Finding::new(file, index + 1, m)));
    }
    findings
}

/// Not ours to word: the licence, lock files, and data that tests read.
fn is_foreign(path: &str) -> bool {
    path == "LICENSE"
        || path.ends_with(".lock")
        || path.contains("/data/")
        || path.contains("/snapshots/")
}

fn is_crate_root(path: &str) -> bool {
    path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs")
}

fn line_messages(line: &str) -> impl Iterator<Item = String> {
    let lower = line.to_lowercase();
    let word = FORBIDDEN.iter().find(|w| has_word(&lower, w)).map(|w| {
        format!("{w:?}: nothing has shipped yet, so there is no past to speak of (R-PROG-3)")
    });
    let mark = UNFINISHED
        .iter()
        .find(|m| has_word(line, m))
        .map(|m| format!("{m}: finish it, or open an issue"));
    let path = MACHINE
        .iter()
        .find(|p| line.contains(**p))
        .map(|p| format!("{p}…: a path of one machine"));
    [word, mark, path].into_iter().flatten()
}

/// True when `word` stands in `text` with no letter or digit touching an end that is itself one.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let touches = |edge: Option<char>, next: Option<char>| {
            edge.is_some_and(char::is_alphanumeric) && next.is_some_and(char::is_alphanumeric)
        };
        !touches(word.chars().next(), before) && !touches(word.chars().next_back(), after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::file;

    fn found(text: &str) -> usize {
        check(&file("docs/a.md", text)).len()
    }

    #[test]
    fn every_forbidden_word_is_found_whatever_its_case() {
        for word in FORBIDDEN {
            assert_eq!(found(&format!("a {word} b\n")), 1, "{word}");
            assert_eq!(found(&format!("{}.\n", word.to_uppercase())), 1, "{word}");
        }
        assert_eq!(found("the allegory of a long gerund\n"), 0);
    }

    #[test]
    fn every_unfinished_mark_is_found_as_a_word() {
        for mark in UNFINISHED {
            assert_eq!(found(&format!("// {mark}: x\n")), 1, "{mark}");
        }
        assert_eq!(found("mktemp -d banger.XXXXXX\n"), 0);
    }

    #[test]
    fn paths_of_a_machine_are_found_and_those_of_a_guest_are_not() {
        for path in MACHINE {
            assert_eq!(found(&format!("cd {path}abc\n")), 1, "{path}");
        }
        assert_eq!(found("cd /root/repo; mount -o workdir=/work/root\n"), 0);
    }

    #[test]
    fn a_file_of_801_lines_is_too_long_and_one_of_800_is_not() {
        assert_eq!(found(&"a\n".repeat(801)), 1);
        assert_eq!(found(&"a\n".repeat(800)), 0);
        let made = |path| check(&file(path, &"a\n".repeat(801))).len();
        assert_eq!((made("docs/openapi.json"), made("docs/api.md")), (0, 1));
    }

    #[test]
    fn a_crate_without_a_word_about_itself_is_found() {
        assert_eq!(check(&file("crates/x/src/lib.rs", "pub mod a;\n")).len(), 1);
        assert_eq!(
            check(&file("crates/x/src/lib.rs", "//! X.\npub mod a;\n")).len(),
            0
        );
        assert_eq!(check(&file("crates/x/src/a.rs", "pub mod b;\n")).len(), 0);
    }

    #[test]
    fn the_licence_and_lock_files_are_left_alone() {
        let text = format!("{}\n", FORBIDDEN[0]);
        assert_eq!(check(&file("LICENSE", &text)), []);
        assert_eq!(check(&file("Cargo.lock", &text)), []);
        assert_eq!(check(&file("README.md", &text)).len(), 1);
    }
}
