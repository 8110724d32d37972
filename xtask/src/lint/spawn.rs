//! Programs are spawned in exactly three files of the product; tests and this tool have their own leave.

use super::{File, Finding};

/// The product's spawn files; nothing else in `crates/` starts a program.
const SPAWN_FILES: [&str; 3] = [
    "crates/host/src/linux/spawn.rs",
    "crates/cli/src/spawn.rs",
    "crates/agent/src/spawn.rs",
];

/// The tool's own.
const TOOL_FILES: [&str; 1] = ["xtask/src/run.rs"];

/// The daemon leaves its caller by a fork of itself, which starts no program.
const FORK_FILE: &str = "crates/daemon/src/birth.rs";

/// What starting a program looks like. `clippy.toml` bans the first two by type; this finds them where the
/// ban is lifted, and the ways clippy does not know.
const SPAWNS: [&str; 7] = [
    "Command::new(",
    "process::Command",
    "disallowed_methods",
    "posix_spawn",
    "libc::execv",
    "libc::clone",
    "runtime::fork",
];

const FORK: &str = "libc::fork(";

/// Findings in the Rust files.
pub fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files
        .iter()
        .filter(|f| f.path.ends_with(".rs") && !may_spawn(&f.path))
    {
        for (number, line) in product_lines(&file.text) {
            let code = line.split("//").next().unwrap_or("");
            let forks = code.contains(FORK) && file.path != FORK_FILE;
            if forks || SPAWNS.iter().any(|s| code.contains(s)) && !code.contains("clap::Command") {
                let message = format!("programs are spawned only in {}", SPAWN_FILES.join(", "));
                findings.push(Finding::new(file, number, message));
            }
        }
    }
    findings
}

fn may_spawn(path: &str) -> bool {
    SPAWN_FILES.contains(&path)
        || TOOL_FILES.contains(&path)
        || path == "xtask/src/lint/spawn.rs"
        || path.starts_with("tests/")
        || path.starts_with("crates/testkit/")
        || path.contains("/tests/")
        || path.contains("/benches/")
        || path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
}

/// Lines with their numbers, up to an inline test module.
fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let end = lines
        .windows(2)
        .position(|w| {
            w[0].trim() == "#[cfg(test)]" && w[1].starts_with("mod ") && w[1].ends_with('{')
        })
        .unwrap_or(lines.len());
    lines
        .into_iter()
        .take(end)
        .enumerate()
        .map(|(i, l)| (i + 1, l))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::file;

    const SPAWN: &str = "fn f() {\n    std::process::Command::new(\"true\");\n}\n";

    #[test]
    fn a_spawn_outside_the_three_files_is_found() {
        let found = check(&[file("crates/vmm/src/qemu.rs", SPAWN)]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
    }

    #[test]
    fn lifting_the_ban_and_forking_by_hand_are_found() {
        for text in [
            "#![allow(clippy::disallowed_methods)]\n",
            "use tokio::process::Command;\n",
            "let pid = unsafe { libc::fork() };\n",
            "use std::process::Command as C;\n",
        ] {
            assert_eq!(
                check(&[file("crates/daemon/src/main.rs", text)]).len(),
                1,
                "{text}"
            );
        }
    }

    #[test]
    fn the_three_files_tests_and_comments_are_free() {
        let in_tests = format!("#[cfg(test)]\nmod tests {{\n{SPAWN}}}\n");
        assert_eq!(
            check(&[
                file("crates/host/src/linux/spawn.rs", SPAWN),
                file("crates/cli/tests/run.rs", SPAWN),
                file("crates/cli/src/main.rs", &in_tests),
                file("crates/cli/src/main.rs", "// never Command::new(\n"),
            ]),
            []
        );
    }
}
