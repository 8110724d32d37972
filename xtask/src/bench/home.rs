//! A private home for the programs that are measured.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{Timed, since};
use crate::run;

/// State, runtime and configuration of its own; everything is removed at the end.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    banger: PathBuf,
}

impl Home {
    /// Beside the programs in `target/release`, where the paths of sockets stay short.
    ///
    /// # Errors
    /// When the programs are not built or the directory cannot be made.
    pub fn new(root: &Path) -> Result<Self, String> {
        let release = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), PathBuf::from)
            .join("release");
        let banger = release.join("banger");
        if !banger.exists() {
            return Err(format!(
                "{} is not there; run: scripts/build",
                banger.display()
            ));
        }
        let dir = release
            .join("h")
            .join(format!("bench.{}", std::process::id()));
        std::fs::create_dir_all(dir.join("base"))
            .map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        // Image and kernel that the tests have made, so that they are not made once more.
        let seed = release.join("testkit-seed");
        if seed.join("ready").exists() {
            let mut cp = run::command("cp");
            cp.args(["-r", "--sparse=always", "--"])
                .arg(&seed)
                .arg(dir.join("state"));
            run::to_end(cp, "cp")?;
        }
        Ok(Self { dir, banger })
    }

    /// Where the state is.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A directory for the baseline.
    pub fn base(&self) -> PathBuf {
        self.dir.join("base")
    }

    /// Keeps what was built, so that the next home need not build it once more.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn keep_built(&self) -> Result<(), String> {
        let seed = self.banger.with_file_name("testkit-seed/templates");
        let mut cp = run::command("sh");
        let copy = "[ ! -d \"$2\" ] || cp \"$1\"/vmlinux-v* \"$2\"";
        cp.args(["-c", copy, "sh"])
            .arg(self.state().join("templates"))
            .arg(seed);
        run::to_end(cp, "cp")
    }

    fn manifest(&self, kernel: &str) -> Result<serde_json::Value, String> {
        let path = self
            .state()
            .join("kernels")
            .join(kernel)
            .join("manifest.json");
        let text = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// The modules that a kernel is booted with, in their order.
    ///
    /// # Errors
    /// When its manifest cannot be read.
    pub fn modules(&self, kernel: &str) -> Result<Vec<String>, String> {
        let manifest = self.manifest(kernel)?;
        let lists = ["first", "second"].map(|list| manifest[list].as_array().cloned());
        let files = lists.into_iter().flatten().flatten();
        Ok(files
            .filter_map(|file| Some(file.as_str()?.to_owned()))
            .collect())
    }

    /// Package and version of a kernel, as apt takes them.
    ///
    /// # Errors
    /// When its manifest cannot be read.
    pub fn package(&self, kernel: &str) -> Result<String, String> {
        let manifest = self.manifest(kernel)?;
        let text = |field: &str| manifest[field].as_str().unwrap_or_default().to_owned();
        Ok(format!("{}={}", text("package"), text("version")))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = run::command(&self.banger);
        command
            .args(args)
            .env("BANGER_STATE_DIR", self.state())
            .env("BANGER_RUNTIME_DIR", self.dir.join("run"))
            .env("BANGER_CONFIG", self.dir.join("config.toml"));
        command
    }

    /// Runs banger and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be run or fails.
    pub fn run(&self, args: &[&str]) -> Result<String, String> {
        self.ended_well(args, Stdio::inherit())
    }

    /// As [`Self::run`], with its errors printed only if it fails.
    ///
    /// # Errors
    /// When it cannot be run or fails.
    pub fn quiet(&self, args: &[&str]) -> Result<String, String> {
        self.ended_well(args, Stdio::piped())
    }

    fn ended_well(&self, args: &[&str], errors: Stdio) -> Result<String, String> {
        let out = self
            .command(args)
            .stderr(errors)
            .output()
            .map_err(|e| format!("cannot run {}: {e}", self.banger.display()))?;
        if !out.status.success() {
            return Err(format!(
                "banger {} ended with {}\n{}",
                args.join(" "),
                out.status,
                String::from_utf8_lossy(&out.stderr)
            ));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// The daemon's log.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> Result<String, String> {
        let path = self.state().join("daemon.log");
        std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    }

    /// Runs banger and measures.
    ///
    /// # Errors
    /// When it cannot be run or fails.
    pub fn timed(&self, args: &[&str]) -> Result<Timed, String> {
        let mut command = self.command(args);
        command.stderr(Stdio::null());
        timed(command, &format!("banger {}", args.join(" ")))
    }

    /// As [`Self::timed`], with more in its environment.
    ///
    /// # Errors
    /// When it cannot be run or fails.
    pub fn timed_with(
        &self,
        args: &[&str],
        environment: &[(&str, OsString)],
    ) -> Result<Timed, String> {
        let mut command = self.command(args);
        command
            .stderr(Stdio::null())
            .envs(environment.iter().map(|(k, v)| (k, v)));
        timed(command, &format!("banger {}", args.join(" ")))
    }

    /// The daemon's process id.
    ///
    /// # Errors
    /// When it does not say.
    pub fn daemon(&self) -> Result<u32, String> {
        let text = self.run(&["daemon", "status", "--json"])?;
        let status: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| format!("daemon status --json: {e}"))?;
        let status = status.get(0).unwrap_or(&status);
        let pid = status["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        pid.ok_or_else(|| format!("daemon status --json names no pid: {text}"))
    }

    /// Ends the daemon and removes the home.
    ///
    /// # Errors
    /// When either fails.
    pub fn close(&self) -> Result<(), String> {
        self.run(&["daemon", "stop"])?;
        std::fs::remove_dir_all(&self.dir)
            .map_err(|e| format!("cannot remove {}: {e}", self.dir.display()))
    }
}

/// Runs a program to its end and measures its first byte and its whole time.
///
/// # Errors
/// When it cannot be run or fails.
pub fn timed(mut command: Command, name: &str) -> Result<Timed, String> {
    let began = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run {name}: {e}"))?;
    let mut out = child.stdout.take().ok_or("no output")?;
    let mut byte = [0];
    let first = out
        .read(&mut byte)
        .map_err(|e| format!("cannot read from {name}: {e}"))?;
    let to_first = since(began);
    std::io::copy(&mut out, &mut std::io::sink())
        .map_err(|e| format!("cannot read from {name}: {e}"))?;
    let status = child
        .wait()
        .map_err(|e| format!("cannot wait for {name}: {e}"))?;
    let whole = since(began);
    if !status.success() {
        return Err(format!("{name} ended with {status}"));
    }
    Ok(Timed {
        first: if first == 0 { whole } else { to_first },
        whole,
    })
}

/// Processor time of a process and of its children that were waited for, in ms (proc(5): utime, stime, cutime,
/// cstime in ticks of 10 ms).
///
/// # Errors
/// When it is gone.
pub fn cpu_ms(pid: u32) -> Result<u64, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_err(|e| format!("process {pid}: {e}"))?;
    // The name may hold blanks and brackets: fields are counted behind the last bracket, from the third on.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    Ok(ticks * 10)
}

/// Resident memory of a process in KiB.
///
/// # Errors
/// When it is gone.
pub fn resident(pid: u32) -> Result<u64, String> {
    memory(pid, "VmRSS:")
}

/// Resident memory of a process in KiB, where it was largest.
///
/// # Errors
/// When it is gone.
pub fn peak(pid: u32) -> Result<u64, String> {
    memory(pid, "VmHWM:")
}

/// Lets [`peak`] begin anew (proc_pid_clear_refs(5)).
///
/// # Errors
/// It is gone, or another user's.
pub fn forget_peak(pid: u32) -> Result<(), String> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")
        .map_err(|e| format!("process {pid}: {e}"))
}

/// Bytes that a process and its children that were waited for gave to disks, less those that were taken back before they
/// got there (proc_pid_io(5)).
///
/// # Errors
/// When it is gone.
pub fn written(pid: u32) -> Result<i64, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))
        .map_err(|e| format!("process {pid}: {e}"))?;
    let field = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<i64>().ok());
        value.ok_or_else(|| format!("process {pid} has no {name}"))
    };
    Ok(field("write_bytes:")? - field("cancelled_write_bytes:")?)
}

/// A line of proc_pid_status(5), in KiB.
fn memory(pid: u32, name: &str) -> Result<u64, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|e| format!("process {pid}: {e}"))?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name))
        .ok_or_else(|| format!("process {pid} has no {name}"))?;
    line.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| format!("{name} {line}"))
}
