//! Which crate may depend on which: dependencies point only towards `model` (docs in ARCHITECTURE.md).

use super::{File, Finding};

/// A package of the workspace and those packages of the workspace it may use. Other crates' tests
/// (`dev-dependencies`) may look sideways.
const MAY_USE: &[(&str, &[&str])] = &[
    ("banger-model", &[]),
    ("banger-plan", &["banger-model"]),
    ("banger-config", &["banger-model"]),
    ("banger-host", &["banger-model"]),
    ("banger-store", &["banger-model"]),
    ("banger-wire", &["banger-model"]),
    ("banger-tree", &["banger-wire"]),
    ("banger-ext4", &[]),
    (
        "banger-disks",
        &["banger-ext4", "banger-tree", "banger-wire"],
    ),
    ("banger-converge", MIDDLE),
    ("banger-image", IMAGE),
    ("banger-registry", &["banger-model", "banger-host"]),
    ("banger-vmm", MIDDLE),
    ("banger-daemon", ALL),
    (
        "banger",
        &[
            "banger-model",
            "banger-config",
            "banger-wire",
            "banger-tree",
        ],
    ),
    ("banger-agent", &["banger-wire", "banger-tree"]),
    ("banger-testkit", &["banger-wire"]),
    ("banger-tests", TESTS),
    ("xtask", &["banger-wire"]),
];

const MIDDLE: &[&str] = &[
    "banger-model",
    "banger-plan",
    "banger-host",
    "banger-store",
    "banger-wire",
];

/// Images are file systems that are written here.
const IMAGE: &[&str] = &[
    "banger-model",
    "banger-plan",
    "banger-host",
    "banger-store",
    "banger-wire",
    "banger-ext4",
];

const ALL: &[&str] = &[
    "banger-model",
    "banger-config",
    "banger-plan",
    "banger-host",
    "banger-store",
    "banger-wire",
    "banger-converge",
    "banger-disks",
    "banger-image",
    "banger-registry",
    "banger-tree",
    "banger-vmm",
    "banger-daemon",
];

/// Tests of the real programs know them from outside, and from the wire.
const TESTS: &[&str] = &["banger-testkit", "banger-model", "banger-wire"];

/// Findings in the packages' manifests.
pub fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| is_manifest(&f.path)) {
        match file.text.parse::<toml::Table>() {
            Ok(table) => check_package(file, &table, &mut findings),
            Err(e) => findings.push(Finding::new(file, 0, format!("not TOML: {}", e.message()))),
        }
    }
    findings
}

fn is_manifest(path: &str) -> bool {
    path.ends_with("/Cargo.toml") && !path.starts_with("fuzz/")
}

fn check_package(file: &File, table: &toml::Table, findings: &mut Vec<Finding>) {
    let name = table
        .get("package")
        .and_then(|p| p.get("name"))
        .and_then(toml::Value::as_str)
        .unwrap_or("");
    let Some((_, allowed)) = MAY_USE.iter().find(|(package, _)| *package == name) else {
        let message = format!(
            "package {name:?} has no place among the crates: give it one in xtask/src/lint/edges.rs and in ARCHITECTURE.md"
        );
        findings.push(Finding::new(file, 0, message));
        return;
    };
    if table
        .get("lints")
        .and_then(|l| l.get("workspace"))
        .and_then(toml::Value::as_bool)
        != Some(true)
    {
        findings.push(Finding::new(
            file,
            0,
            "the workspace's lints do not apply here: add [lints] workspace = true",
        ));
    }
    for dependency in dependencies(table) {
        let ours = MAY_USE.iter().any(|(package, _)| *package == dependency);
        if ours && !allowed.contains(&dependency.as_str()) {
            let line = line_of(&file.text, &dependency);
            findings.push(Finding::new(file, line, format!("{name} may not depend on {dependency}: dependencies point only towards banger-model")));
        }
    }
}

/// Names of the packages a manifest depends on: normal and build, of every target, renamed ones by their
/// own name.
fn dependencies(table: &toml::Table) -> Vec<String> {
    let mut sections = vec![table];
    if let Some(targets) = table.get("target").and_then(toml::Value::as_table) {
        sections.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let mut names = Vec::new();
    for section in sections {
        for kind in ["dependencies", "build-dependencies"] {
            let Some(listed) = section.get(kind).and_then(toml::Value::as_table) else {
                continue;
            };
            for (key, value) in listed {
                let package = value.get("package").and_then(toml::Value::as_str);
                names.push(package.unwrap_or(key).to_owned());
            }
        }
    }
    names
}

fn line_of(text: &str, word: &str) -> usize {
    text.lines()
        .position(|l| l.contains(word))
        .map_or(0, |i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::file;

    fn manifest(name: &str, rest: &str) -> Vec<Finding> {
        let text = format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}");
        check(&[file("crates/x/Cargo.toml", &text)])
    }

    #[test]
    fn an_allowed_edge_passes() {
        assert_eq!(
            manifest(
                "banger-plan",
                "[dependencies]\nbanger-model = { workspace = true }\nserde = \"1\"\n"
            ),
            []
        );
    }

    #[test]
    fn an_edge_against_the_grain_is_found_with_its_line() {
        let found = manifest(
            "banger-model",
            "[dependencies]\nbanger-host = { workspace = true }\n",
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].line, 6);
        assert!(
            found[0]
                .message
                .contains("banger-model may not depend on banger-host")
        );
    }

    #[test]
    fn renamed_build_and_target_dependencies_do_not_slip_through() {
        for rest in [
            "[dependencies]\nh = { package = \"banger-host\", path = \"../host\" }\n",
            "[build-dependencies]\nbanger-host = { workspace = true }\n",
            "[target.'cfg(unix)'.dependencies]\nbanger-host = { workspace = true }\n",
            "[dependencies.banger-host]\nworkspace = true\n",
        ] {
            assert_eq!(manifest("banger-agent", rest).len(), 1, "{rest}");
        }
    }

    #[test]
    fn tests_may_look_sideways() {
        assert_eq!(
            manifest(
                "banger-wire",
                "[dev-dependencies]\nbanger-host = { workspace = true }\n"
            ),
            []
        );
    }

    #[test]
    fn an_unknown_package_and_missing_lints_are_found() {
        assert_eq!(manifest("banger-util", "").len(), 1);
        let found = check(&[file(
            "crates/x/Cargo.toml",
            "[package]\nname = \"banger-model\"\n",
        )]);
        assert!(found[0].message.contains("lints"), "{found:?}");
    }
}
