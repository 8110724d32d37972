//! A private home: state, runtime and configuration of its own, images and kernels shared by hard
//! link with one home that fetched them once.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use crate::{Machine, Run, Running, Signal, signal, wait_until};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

/// Directory of the built programs: `BANGER_BIN_DIR`, else `target/release` of the workspace.
pub fn binaries() -> PathBuf {
    if let Some(dir) = std::env::var_os("BANGER_BIN_DIR") {
        return dir.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), PathBuf::from)
        .join("release")
}

/// A state directory of its own, gone at the end with everything that was in it.
pub struct Home {
    root: tempfile::TempDir,
    extra_env: BTreeMap<String, String>,
    programs: PathBuf,
}

/// Fetching packages and making the image takes half a minute, and many times that where the network
/// or the machine is slow.
const SEEDING: Duration = Duration::from_secs(900);

/// Shared between all test processes of a user: holds the image and kernel every home links to.
///
/// # Panics
/// If it is not there and cannot be made.
pub fn seed() -> &'static Path {
    static SEED: OnceLock<PathBuf> = OnceLock::new();
    SEED.get_or_init(|| {
        let dir = binaries().join("testkit-seed");
        fs::create_dir_all(&dir).expect("the seed directory");
        let lock = fs::File::create(dir.join("lock")).expect("the seed's lock");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .expect("the seed's lock");
        // One of an older build may lack what today's kernel has.
        let whole = dir.join("kernels/debian-cloud/modules.ext4").exists();
        if !dir.join("ready").exists() || !whole {
            for old in ["ready", "images", "kernels", "templates"] {
                remove(&dir.join(old)).expect("removing an older seed");
            }
            let home = Home::bare();
            let first = home.start(&["vm", "run", "--rm", "--", "true"], b"");
            first.finish_within(SEEDING).exits(0);
            for shared in ["images", "kernels", "templates"] {
                link_tree(&home.state().join(shared), &dir.join(shared)).expect("sharing images");
            }
            home.finish();
            fs::write(dir.join("ready"), "").expect("the seed's mark");
        }
        dir
    })
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    removed.or_else(|e| match e.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(e),
    })
}

/// Makes `to` a copy of the tree `from`, by hard links where it can (the files are immutable).
pub(crate) fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            link_tree(&from, &to)?;
        } else if fs::hard_link(&from, &to).is_err() {
            // Another file system; what is all holes must stay so.
            let copied = Command::new("cp")
                .arg("--sparse=always")
                .args([&from, &to])
                .status()?;
            if !copied.success() {
                return Err(io::Error::other(format!("cp of {} failed", from.display())));
            }
        }
    }
    Ok(())
}

impl Home {
    /// A home that holds the default image and kernel.
    ///
    /// # Panics
    /// If it cannot be made.
    #[allow(
        clippy::new_without_default,
        reason = "makes directories and may boot a VM once"
    )]
    pub fn new() -> Self {
        let home = Home::bare();
        home.share_images();
        home
    }

    /// Puts the default image and kernel into the state directory.
    ///
    /// # Panics
    /// If they cannot be put there.
    pub fn share_images(&self) {
        fs::create_dir_all(self.state()).expect("state directory");
        for shared in ["images", "kernels", "templates"] {
            link_tree(&seed().join(shared), &self.state().join(shared)).expect("linking images");
        }
    }

    /// Takes the programs from another directory.
    pub fn set_programs(&mut self, dir: &Path) {
        dir.clone_into(&mut self.programs);
    }

    /// A home with nothing in it, as on a fresh install.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn bare() -> Self {
        // Beside the binaries, so that images can be hard links, and short, for socket paths.
        let parent = binaries().join("h");
        fs::create_dir_all(&parent).expect("the directory of homes");
        let root = tempfile::Builder::new()
            .prefix("t")
            .rand_bytes(4)
            .tempdir_in(parent)
            .expect("a home");
        Home {
            root,
            extra_env: BTreeMap::new(),
            programs: binaries(),
        }
    }

    /// The same home with programs that honour `BANGER_CRASH_AT` and `BANGER_EFFECT_LOG`.
    #[must_use]
    pub fn with_crash_points(mut self) -> Self {
        self.programs = binaries().join("crash");
        self
    }

    /// Sets or clears a variable in the environment of every later run.
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.extra_env.insert(name.to_owned(), value.to_owned()),
            None => self.extra_env.remove(name),
        };
    }

    /// State directory.
    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// Runtime directory: sockets. Short, outside the tree: a socket path has 107 bytes at most.
    pub fn runtime(&self) -> PathBuf {
        let name = self
            .root
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        std::env::temp_dir().join(format!("bt-{name}"))
    }

    /// Configuration file.
    pub fn config(&self) -> PathBuf {
        self.root.path().join("config.toml")
    }

    /// A directory for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.root.path()
    }

    /// Hex digits that label this home's objects, once it has any.
    pub fn instance(&self) -> Option<String> {
        fs::read_to_string(self.state().join("instance"))
            .ok()
            .map(|s| s.trim().to_owned())
    }

    /// The command line in this home, with nothing else of the environment but PATH and HOME.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("banger"));
        command.args(args).env_clear();
        for name in ["PATH", "HOME", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("BANGER_STATE_DIR", self.state())
            .env("BANGER_RUNTIME_DIR", self.runtime())
            .env("BANGER_CONFIG", self.config());
        command.envs(&self.extra_env);
        command
    }

    /// A `PATH` that has our programs first.
    pub fn path(&self) -> String {
        let rest = std::env::var("PATH").unwrap_or_default();
        format!("{}:{rest}", self.programs.display())
    }

    /// A shell that runs these words in this home, where `banger` is in the `PATH`.
    pub fn shell(&self, shell: &str, words: &str) -> Command {
        let mut command = Command::new(shell);
        command.args(["-c", words]).env_clear();
        for (name, value) in self.command(&[]).get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("PATH", self.path());
        command
    }

    /// Starts `banger` without waiting for its end.
    pub fn start(&self, args: &[&str], input: &[u8]) -> Running {
        Running::start(self.command(args), input)
    }

    /// Runs `banger` to its end with no input.
    #[track_caller]
    pub fn banger(&self, args: &[&str]) -> Run {
        self.start(args, b"").finish()
    }

    /// Runs `banger` to its end with this input.
    #[track_caller]
    pub fn banger_with(&self, args: &[&str], input: &[u8]) -> Run {
        self.start(args, input).finish()
    }

    /// Runs a shell's words in a VM.
    #[track_caller]
    pub fn guest_sh(&self, vm: &str, words: &str) -> Run {
        self.banger(&["vm", "exec", vm, "--", "sh", "-c", words])
    }

    /// Asserts that there is no VM.
    ///
    /// # Panics
    /// Naming those there are.
    #[track_caller]
    pub fn assert_no_vms(&self) {
        let listed = self.banger(&["vm", "list", "--json"]).exits(0).json();
        assert_eq!(listed, serde_json::json!([]));
    }

    /// The daemon's pid, if one runs.
    pub fn daemon_pid(&self) -> Option<u32> {
        let status = self.banger(&["daemon", "status", "--json"]);
        status
            .json()
            .get("pid")?
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
    }

    /// `kill -9` of the daemon; returns when it is gone.
    ///
    /// # Panics
    /// If none runs or it does not end.
    #[track_caller]
    pub fn kill_daemon(&self) {
        let pid = self.daemon_pid().expect("a daemon to kill");
        signal(pid, Signal::KILL);
        wait_until(
            "the killed daemon to be gone",
            Duration::from_secs(10),
            || {
                if Path::new(&format!("/proc/{pid}/exe")).read_link().is_err() {
                    Ok(())
                } else {
                    Err("alive".into())
                }
            },
        );
    }

    /// Pids of its VMMs, by their labels.
    pub fn vmms(&self) -> Vec<u32> {
        let machine = |instance: String| Machine::look(Some(&instance)).pids().collect();
        self.instance().map(machine).unwrap_or_default()
    }

    /// The VM as `vm show --json` prints it.
    #[track_caller]
    pub fn show(&self, vm: &str) -> serde_json::Value {
        let run = self.banger(&["vm", "show", vm, "--json"]).exits(0);
        run.json().get(0).cloned().unwrap_or_default()
    }

    /// Deletes what is left, ends the daemon, and asserts that nothing of this home is on the
    /// machine or in its `vms` directory.
    ///
    /// # Panics
    /// Naming what was left.
    #[track_caller]
    pub fn finish(self) {
        let ids = self.banger(&["vm", "list", "-q"]).exits(0).out();
        let mut delete = vec!["vm", "delete", "--force"];
        delete.extend(ids.lines());
        if delete.len() > 3 {
            self.banger(&delete).exits(0);
        }
        self.banger(&["daemon", "stop"]).exits(0);
        self.assert_clean();
    }

    /// Asserts that no process, device or VM directory of this home is left.
    ///
    /// # Panics
    /// Naming what was left.
    #[track_caller]
    pub fn assert_clean(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// What of this home is on the machine or in its `vms` directory.
    pub fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state().join("vms"))
            .into_iter()
            .flatten()
            .flatten();
        let mut left: Vec<String> = entries
            .map(|e| format!("vms/{}", e.file_name().to_string_lossy()))
            .collect();
        if let Some(instance) = self.instance() {
            left.extend(
                Machine::look(Some(&instance))
                    .ours(&instance, self.root.path())
                    .cloned(),
            );
        }
        left
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.say_logs();
        }
        // Only what a failed test may have left of its own: the daemon, which would start things
        // again, then VMMs by label.
        for pid in self.daemons() {
            signal(pid, Signal::KILL);
        }
        if let Some(instance) = self.instance() {
            for pid in Machine::look(Some(&instance)).pids() {
                signal(pid, Signal::KILL);
            }
        }
        let _ = fs::remove_dir_all(self.runtime());
    }
}

impl Home {
    /// Prints the ends of the daemon's and the VMMs' logs, which are gone with the home.
    fn say_logs(&self) {
        let vms = fs::read_dir(self.state().join("vms"));
        let vms = vms.into_iter().flatten().flatten();
        let logs = vms.map(|vm| vm.path().join("vmm.log"));
        for log in std::iter::once(self.state().join("daemon.log")).chain(logs) {
            let Ok(text) = fs::read(&log) else { continue };
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(80)..].join("\n");
            eprintln!("--- the end of {}:\n{end}", log.display());
        }
    }

    /// Processes of the daemon's program that were started for this home.
    pub fn daemons(&self) -> Vec<u32> {
        let variable = format!("BANGER_STATE_DIR={}", self.state().display());
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|e| e.file_name().to_string_lossy().parse::<u32>().ok());
        pids.filter(|pid| {
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            exe.ends_with("bangerd") && environ.split(|b| *b == 0).any(|v| v == variable.as_bytes())
        })
        .collect()
    }
}
