//! The bare machine: the QEMU command line of one of banger's own VMs with another `/init`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::Timed;
use super::home::{Home, timed};
use crate::run;

/// A command line that boots the baseline.
#[derive(Debug)]
pub struct Baseline {
    program: String,
    args: Vec<String>,
}

impl Baseline {
    /// Starts a VM, copies its QEMU command line and its directory, and puts our `/init` behind its initramfs.
    ///
    /// # Errors
    /// When the VM does not run, its QEMU is not found, or a file cannot be copied.
    pub fn take(root: &Path, home: &Home) -> Result<Self, String> {
        home.run(&["vm", "run", "-d", "--name", "bench"])?;
        let taken = copy(root, home);
        home.run(&["vm", "delete", "--force", "bench"])?;
        taken
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

fn copy(root: &Path, home: &Home) -> Result<Baseline, String> {
    let argv = qemu_of(&home.state())?;
    let (program, args) = argv.split_first().ok_or("an empty command line")?;
    let initrd = PathBuf::from(after(args, "-initrd").ok_or("QEMU runs without -initrd")?);
    let vm = initrd.parent().ok_or("an initramfs without a directory")?;
    let sockets = args
        .iter()
        .find_map(|a| a.strip_prefix("socket,id=agent,path=")?.split(',').next())
        .and_then(|p| Path::new(p).parent())
        .ok_or("QEMU runs without a socket for the agent")?;
    let base = home.base();
    let mut cp = run::command("cp");
    cp.args(["-r", "--sparse=always", "--"])
        .arg(vm)
        .arg(base.join("vm"));
    run::to_end(cp, "cp")?;
    let other = base
        .join("vm")
        .join(initrd.file_name().ok_or("an initramfs without a name")?);
    append(root, &base, &other)?;
    let moved = |arg: &String| {
        if arg.starts_with("file,id=console,") {
            return "stdio,id=console,signal=off".to_owned();
        }
        // The sockets may lie in the VM's directory or in one of their own.
        arg.replace(&*vm.to_string_lossy(), &base.join("vm").to_string_lossy())
            .replace(&*sockets.to_string_lossy(), &base.to_string_lossy())
    };
    Ok(Baseline {
        program: program.clone(),
        args: args.iter().map(moved).collect(),
    })
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
fn append(root: &Path, base: &Path, initrd: &Path) -> Result<(), String> {
    let program = base.join("init");
    let mut gcc = run::command("gcc");
    gcc.args(["-static", "-Os", "-s", "-o"])
        .arg(&program)
        .arg(root.join("xtask/bench/init.c"));
    run::to_end(gcc, "gcc")?;
    let bytes =
        std::fs::read(&program).map_err(|e| format!("cannot read {}: {e}", program.display()))?;
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().append(true).open(initrd)?;
        // An archive begins on a multiple of four; the kernel skips the zeros before it.
        let odd = usize::try_from(file.metadata()?.len() % 4).unwrap_or(0);
        file.write_all(&[0; 4][..(4 - odd) % 4])?;
        file.write_all(&archive(&bytes))
    };
    write().map_err(|e| format!("cannot append to {}: {e}", initrd.display()))
}

/// A newc archive (Documentation/driver-api/early-userspace/buffer-format.rst) with one file, `init`.
fn archive(init: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, mode, data) in [("init", 0o100_755, init), ("TRAILER!!!", 0, &[][..])] {
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
        let bytes = archive(b"abc");
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
