//! What a run takes into the test host: a disk with the test binaries, the programs under test, the runner.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::Options;
use crate::run;

/// What tests may be told by the environment.
const SETTINGS: [&str; 2] = ["BANGER_CRASH_STRIDE", "BANGER_SEED"];

/// The programs under test, where `scripts/build --crash-points` puts them.
const PROGRAMS: [&str; 3] = ["banger", "bangerd", "banger-agent"];

/// Directories of builds: what a user gets, and the same with crash points.
const BUILDS: [&str; 2] = ["", "crash"];

/// What VMs inside are made of: there is no network to fetch it by.
const SEED: [&str; 3] = ["images", "kernels", "ready"];

/// A disk image in a private directory.
#[derive(Debug)]
pub struct Payload {
    dir: PathBuf,
}

impl Payload {
    /// The ext4 image.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("payload.ext4")
    }

    /// Removes the directory; best effort, twice is no harm.
    pub fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Builds the tests named `host_*` and puts all of a run on a disk.
///
/// # Errors
/// When the tests do not compile, a file cannot be copied, or the disk cannot be made.
pub fn make(root: &Path, options: &Options<'_>) -> Result<Payload, String> {
    let tests = test_binaries(root)?;
    let dir = std::env::temp_dir().join(format!("banger-testhost.{}", std::process::id()));
    let payload = Payload { dir };
    let made = fill(root, options, &tests, &payload);
    if made.is_err() {
        payload.remove();
    }
    made.map(|()| payload)
}

fn fill(
    root: &Path,
    options: &Options<'_>,
    tests: &[PathBuf],
    payload: &Payload,
) -> Result<(), String> {
    let tree = payload.dir.join("tree");
    for part in ["tests", "bin", "with"] {
        make_dir(&tree.join(part))?;
    }
    copy(&root.join("xtask/testhost/run"), &tree.join("run"))?;
    copy(&root.join("scripts/leaks"), &tree.join("leaks"))?;
    let filter = options.filter.replace('\'', "");
    let mut env = format!(
        "FILTER='{filter}'\nSECONDS_EACH={}\nIGNORED={}\n",
        options.seconds_each(),
        if options.ignored {
            "--include-ignored"
        } else {
            ""
        }
    );
    for name in SETTINGS {
        if let Ok(value) = std::env::var(name) {
            env += &format!("export {name}='{}'\n", value.replace('\'', ""));
        }
    }
    std::fs::write(tree.join("env"), env)
        .map_err(|e| format!("cannot write the payload's env: {e}"))?;
    for test in tests {
        // cargo's name is NAME-HASH; the hash says nothing to a reader.
        let name = test.file_name().and_then(|n| n.to_str()).unwrap_or("test");
        copy(
            test,
            &tree
                .join("tests")
                .join(name.rsplit_once('-').map_or(name, |(n, _)| n)),
        )?;
    }
    programs(root, &tree.join("bin"))?;
    for path in &options.with {
        copy_tree(path, &tree.join("with"))?;
    }
    disk(&tree, &payload.disk())?;
    std::fs::remove_dir_all(&tree).map_err(|e| format!("cannot remove {}: {e}", tree.display()))
}

/// The programs under test, and an image and a kernel for the VMs they make inside; nothing where they were not
/// built.
fn programs(root: &Path, to: &Path) -> Result<(), String> {
    let built = match std::env::var_os("BANGER_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => target_dir(root).join("release"),
    };
    for build in BUILDS {
        for program in PROGRAMS {
            let path = built.join(build).join(program);
            if path.exists() {
                make_dir(&to.join(build))?;
                copy(&path, &to.join(build).join(program))?;
            }
        }
    }
    if !PROGRAMS.iter().all(|program| to.join(program).exists()) {
        return Ok(());
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let args = [
        "run",
        "--quiet",
        "--package",
        "banger-testkit",
        "--bin",
        "testkit-seed",
    ];
    let seed = PathBuf::from(run::output(root, &cargo, &args)?.trim());
    let to = to.join("testkit-seed");
    make_dir(&to)?;
    SEED.iter()
        .try_for_each(|part| copy_tree(&seed.join(part), &to))
}

fn make_dir(dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))
}

/// A file, or a directory with all that is in it, into a directory under its own name.
fn copy_tree(from: &Path, into: &Path) -> Result<(), String> {
    let name = from
        .file_name()
        .ok_or_else(|| format!("{}: no name", from.display()))?;
    let mut cp = run::command("cp");
    cp.args(["-r", "--sparse=always", "--"])
        .arg(from)
        .arg(into.join(name));
    run::to_end(cp, "cp")
}

/// MiB for what the tests write beside the programs; sparse.
const ROOM: u64 = 2048;

/// An ext4 image of a directory, with room.
fn disk(tree: &Path, image: &Path) -> Result<(), String> {
    let used = run::output(tree, "du", &["-sm", "--apparent-size", "."])?;
    let megabytes: u64 = used
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or("du said no number")?;
    let size = format!("{}M", megabytes + megabytes / 8 + ROOM);
    run::ext4(tree, image, &size, "payload")
}

/// Compiles the integration tests named `host_*` of the whole workspace and returns their binaries.
fn test_binaries(root: &Path) -> Result<Vec<PathBuf>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let args = [
        "test",
        "--workspace",
        "--test",
        "host_*",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ];
    let messages = run::output(root, &cargo, &args)?;
    let mut binaries = executables(&messages);
    binaries.sort();
    if binaries.is_empty() {
        return Err("there is no integration test named host_*".to_owned());
    }
    Ok(binaries)
}

/// The executables that cargo's messages name.
fn executables(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|m| {
            m["target"]["name"]
                .as_str()
                .is_some_and(|n| n.starts_with("host_"))
        })
        .filter_map(|m| m["executable"].as_str().map(PathBuf::from))
        .collect()
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    std::fs::copy(from, to)
        .map(drop)
        .map_err(|e| format!("cannot copy {} to {}: {e}", from.display(), to.display()))
}

/// Hands what was skipped inside to `./test`, which counts it: one line each in the file named by
/// `BANGER_SKIPPED`.
///
/// # Errors
/// When that file cannot be written.
pub fn report_skipped(skipped: &[String]) -> Result<(), String> {
    let Some(path) = std::env::var_os("BANGER_SKIPPED") else {
        return Ok(());
    };
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)?;
        skipped.iter().try_for_each(|line| writeln!(file, "{line}"))
    };
    write().map_err(|e| format!("cannot append to {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_those_of_host_tests_only() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"host_dm\"},\"executable\":\"/t/host_dm-1\"}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"banger\"},\"executable\":\"/t/banger\"}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"host_x\"},\"executable\":null}\n",
            "not json\n{\"reason\":\"build-finished\",\"success\":true}\n"
        );
        assert_eq!(executables(messages), [PathBuf::from("/t/host_dm-1")]);
    }
}
