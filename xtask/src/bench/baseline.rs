//! The bare machine: the QEMU command line of one of banger's own VMs with another `/init`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger_wire::guest::{Token, hex};

use super::Timed;
use super::home::{Home, timed};
use crate::run;

/// How long the minimal agent may take to its first answer.
const READY: Duration = Duration::from_secs(60);

/// A command line that boots the baseline.
#[derive(Debug)]
pub struct Baseline {
    program: String,
    args: Vec<String>,
    /// Its directory.
    dir: PathBuf,
}

/// A baseline that runs the minimal agent (`xtask/bench/agent.c`), and the program that speaks to it.
#[derive(Debug)]
pub struct Live {
    qemu: std::process::Child,
    client: PathBuf,
    socket: PathBuf,
}

impl Live {
    /// Asks the agent for something (see `xtask/bench/client.c`) and measures.
    ///
    /// # Errors
    /// When it does not do it.
    pub fn ask(&self, args: &[&str], input: Stdio) -> Result<Timed, String> {
        let mut command = run::command(&self.client);
        command.arg(&self.socket).args(args).stdin(input);
        timed(command, "the minimal agent's client")
    }

    /// Waits until the agent answers.
    fn ready(&self) -> Result<(), String> {
        let end = Instant::now() + READY;
        while Instant::now() < end {
            if self.socket.exists() && self.ask(&["x"], Stdio::null()).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("the minimal agent did not answer within {READY:?}"))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn end(mut self) -> Result<(), String> {
        let ended = self.qemu.kill().and_then(|()| self.qemu.wait());
        ended
            .map(drop)
            .map_err(|e| format!("the baseline's QEMU cannot be ended: {e}"))
    }
}

impl Baseline {
    /// Starts a VM, copies its QEMU command line and its directory, and puts our `/init` behind its initramfs.
    ///
    /// # Errors
    /// When the VM does not run, its QEMU is not found, or a file cannot be copied.
    pub fn take(root: &Path, home: &Home) -> Result<Self, String> {
        home.run(&["vm", "run", "-d", "--name", "bench"])?;
        let taken = copy(root, home, "init", Some("init"));
        home.run(&["vm", "delete", "--force", "bench"])?;
        taken
    }

    /// The command line and the directory of a VM that is made with these arguments, its own `/init` left in place.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn of(root: &Path, home: &Home, name: &str, args: &[&str]) -> Result<Self, String> {
        home.run(&[&["vm", "run", "-d", "--name", name], args].concat())?;
        let taken = copy(root, home, name, None);
        home.run(&["vm", "delete", "--force", name])?;
        taken
    }

    /// The same of a VM that runs and is kept, with the minimal agent as `/init`, booted.
    ///
    /// # Errors
    /// When its QEMU is not found, a file cannot be copied, or the agent does not answer.
    pub fn live(root: &Path, home: &Home) -> Result<Live, String> {
        let baseline = copy(root, home, "agent", Some("agent"))?;
        let client = baseline.dir.join("client");
        compile(root, "client", &client)?;
        let mut command = baseline.command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let qemu = command
            .spawn()
            .map_err(|e| format!("cannot run {}: {e}", baseline.program))?;
        let socket = baseline.socket()?;
        let live = Live {
            qemu,
            client,
            socket,
        };
        match live.ready() {
            Ok(()) => Ok(live),
            Err(error) => live.end().and(Err(error)),
        }
    }

    /// What boots it.
    pub fn command(&self) -> Command {
        let mut command = run::command(&self.program);
        command.args(&self.args);
        command
    }

    /// The argument after a flag.
    ///
    /// # Errors
    /// There is no such flag.
    pub fn after(&self, flag: &str) -> Result<&str, String> {
        after(&self.args, flag).ok_or_else(|| format!("QEMU runs without {flag}"))
    }

    /// Puts another argument after a flag.
    ///
    /// # Errors
    /// There is no such flag.
    pub fn replace_after(&mut self, flag: &str, value: &str) -> Result<(), String> {
        let at = self.args.iter().position(|a| a == flag);
        let argument = at.and_then(|at| self.args.get_mut(at + 1));
        *argument.ok_or_else(|| format!("QEMU runs without {flag}"))? = value.to_owned();
        Ok(())
    }

    /// What its agent knows its host by.
    ///
    /// # Errors
    /// The VM does not say.
    pub fn token(&self) -> Result<Token, String> {
        let path = self.dir.join("vm/vm.json");
        let text = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let vm: serde_json::Value =
            serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let token = vm["spec"]["channel_token"].as_str().and_then(hex::decode16);
        let missing = || format!("{} has no channel token", path.display());
        token.map(Token).ok_or_else(missing)
    }

    /// Where its agent is spoken to.
    ///
    /// # Errors
    /// QEMU runs without one.
    pub fn socket(&self) -> Result<PathBuf, String> {
        socket_of(&self.args)
            .map(PathBuf::from)
            .ok_or_else(|| "QEMU runs without a socket for the agent".to_owned())
    }

    /// Boots it once and measures: first line on the console, end of QEMU.
    ///
    /// # Errors
    /// When QEMU cannot be run or fails.
    pub fn run(&self) -> Result<Timed, String> {
        let mut command = run::command("timeout");
        command
            .arg("60")
            .arg(&self.program)
            .args(&self.args)
            .stderr(Stdio::null());
        timed(command, "the baseline")
    }
}

fn copy(root: &Path, home: &Home, name: &str, init: Option<&str>) -> Result<Baseline, String> {
    let argv = qemu_of(&home.state())?;
    let (program, args) = argv.split_first().ok_or("an empty command line")?;
    let initrd = PathBuf::from(after(args, "-initrd").ok_or("QEMU runs without -initrd")?);
    let vm = initrd.parent().ok_or("an initramfs without a directory")?;
    let sockets = socket_of(args)
        .and_then(|p| Path::new(p).parent())
        .ok_or("QEMU runs without a socket for the agent")?;
    let dir = home.base().join(name);
    let files = dir.join("vm");
    std::fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    let mut cp = run::command("cp");
    cp.args(["-r", "--sparse=always", "--"]).arg(vm).arg(&files);
    run::to_end(cp, "cp")?;
    let other = files.join(initrd.file_name().ok_or("an initramfs without a name")?);
    if let Some(init) = init {
        append(root, init, &dir, &other)?;
    }
    let moved = |arg: &String| {
        if arg.starts_with("file,id=console,") {
            return "stdio,id=console,signal=off".to_owned();
        }
        // The sockets may lie in the VM's directory or in one of their own.
        arg.replace(&*vm.to_string_lossy(), &files.to_string_lossy())
            .replace(&*sockets.to_string_lossy(), &dir.to_string_lossy())
    };
    Ok(Baseline {
        program: program.clone(),
        args: args.iter().map(moved).collect(),
        dir,
    })
}

fn socket_of(args: &[String]) -> Option<&str> {
    let chardev = |arg: &str| arg.starts_with("socket,id=agent,path=");
    let agent = args.iter().find(|arg| chardev(arg))?;
    agent
        .strip_prefix("socket,id=agent,path=")?
        .split(',')
        .next()
}

/// The command line of the QEMU whose files are under `state`.
fn qemu_of(state: &Path) -> Result<Vec<String>, String> {
    let state = state.to_string_lossy();
    let processes = std::fs::read_dir("/proc").map_err(|e| format!("cannot read /proc: {e}"))?;
    processes
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|bytes| {
            String::from_utf8_lossy(&bytes)
                .split_terminator('\0')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .find(|argv| {
            argv.first().is_some_and(|p| p.contains("qemu-system"))
                && argv.iter().any(|a| a.contains(&*state))
        })
        .ok_or_else(|| format!("no QEMU runs on files under {state}"))
}

fn after<'a>(args: &'a [String], flag: &str) -> Option<&'a str> {
    let at = args.iter().position(|a| a == flag)?;
    args.get(at + 1).map(String::as_str)
}

/// Compiles our `/init` and appends it to an initramfs: the kernel takes the last of two files of one name.
fn append(root: &Path, init: &str, dir: &Path, initrd: &Path) -> Result<(), String> {
    let program = dir.join("init");
    compile(root, init, &program)?;
    let bytes =
        std::fs::read(&program).map_err(|e| format!("cannot read {}: {e}", program.display()))?;
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().append(true).open(initrd)?;
        // An archive begins on a multiple of four; the kernel skips the zeros before it.
        let odd = usize::try_from(file.metadata()?.len() % 4).unwrap_or(0);
        file.write_all(&[0; 4][..(4 - odd) % 4])?;
        file.write_all(&archive("init", &bytes))
    };
    write().map_err(|e| format!("cannot append to {}: {e}", initrd.display()))
}

fn compile(root: &Path, name: &str, program: &Path) -> Result<(), String> {
    let mut gcc = run::command("gcc");
    gcc.args(["-static", "-Os", "-s", "-o"])
        .arg(program)
        .arg(root.join("xtask/bench").join(name).with_extension("c"));
    run::to_end(gcc, "gcc")
}

/// A newc archive (Documentation/driver-api/early-userspace/buffer-format.rst) with one file.
pub fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, mode, data) in [(name, 0o100_755, content), ("TRAILER!!!", 0, &[][..])] {
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [
            0,
            mode,
            0,
            0,
            1,
            0,
            data.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        out.extend(b"070701");
        for field in fields {
            out.extend(format!("{field:08x}").bytes());
        }
        out.extend(name.bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_aligned_and_ends_with_the_trailer() {
        let bytes = archive("init", b"abc");
        assert_eq!(bytes.len() % 4, 0);
        // Header 110, "init\0" to 116, "abc" to 120.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[116..119], b"abc");
        assert_eq!(&bytes[120..126], b"070701");
        assert!(bytes.windows(10).any(|w| w == b"TRAILER!!!"));
    }

    #[test]
    fn the_value_after_a_flag_is_found() {
        let args = ["-a".to_owned(), "-initrd".to_owned(), "/x".to_owned()];
        assert_eq!(after(&args, "-initrd"), Some("/x"));
        assert_eq!(after(&args, "/x"), None);
    }
}
