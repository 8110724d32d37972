//! `cargo xtask bench kernels`: from starting QEMU to the agent's first word, with banger's own kernel as banger boots it, and
//! with Debian's as one would boot it without much thought: the bzImage of its package, a packed initramfs, all modules at
//! once, and a console that tells everything.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::baseline::{Baseline, archive};
use super::figures::{median, spread};
use super::home::Home;
use super::{PAIRS, since};
use crate::run;
use banger_wire::guest::{Hello, Nonce, Token};

/// How long an agent may take to its first word on a busy machine.
const WORD: Duration = Duration::from_secs(60);
/// The ratio that is asked for.
const TARGET: f64 = 0.35;

/// Boots both in turn and prints the ratio.
///
/// # Errors
/// When a kernel cannot be made, or a guest says nothing.
pub fn measure(root: &Path, home: &Home) -> Result<(), String> {
    home.run(&["vm", "run", "--rm", "--", "true"])?;
    eprintln!("==> banger's own kernel; built once, which takes minutes");
    home.run(&["kernel", "build"])?;
    home.keep_built()?;
    let own = Baseline::of(root, home, "own", &["--kernel", "banger", "--vcpu", "1"])?;
    let mut naive = Baseline::of(
        root,
        home,
        "naive",
        &["--kernel", "debian-cloud", "--vcpu", "1"],
    )?;
    make_naive(home, &mut naive)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        eprintln!("==> pair {} of {PAIRS}", pair + 1);
        for first in [pair % 2 == 0, pair % 2 != 0] {
            match first {
                true => ours.push(first_word(&own)?),
                false => theirs.push(first_word(&naive)?),
            }
        }
    }
    println!(
        "agent's first word, own kernel against Debian's booted naively: {:.2} (medians of {PAIRS} pairs: {} / {}; target {TARGET})",
        median(&ours) / median(&theirs),
        spread(&ours),
        spread(&theirs)
    );
    Ok(())
}

/// Boots once; milliseconds to the first byte on the agent's channel.
fn first_word(vm: &Baseline) -> Result<f64, String> {
    let socket = vm.socket()?;
    // What the last boot left would be taken for this one's.
    let _ = std::fs::remove_file(&socket);
    let mut command = vm.command();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = Instant::now();
    let mut qemu = command
        .spawn()
        .map_err(|e| format!("cannot run QEMU: {e}"))?;
    let word = vm.token().and_then(|token| listen(&socket, &token, began));
    let ended = qemu.kill().and_then(|()| qemu.wait());
    ended.map_err(|e| format!("QEMU cannot be ended: {e}"))?;
    word
}

/// Says hello, as the daemon does; QEMU keeps it until the agent has opened its port.
fn listen(socket: &Path, token: &Token, began: Instant) -> Result<f64, String> {
    let silent = |e: std::io::Error| format!("the agent said nothing within {WORD:?}: {e}");
    let mut channel = loop {
        match UnixStream::connect(socket) {
            Ok(channel) => break channel,
            Err(error) if began.elapsed() > WORD => return Err(silent(error)),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    channel.set_read_timeout(Some(WORD)).map_err(silent)?;
    let hello = Hello::new(Nonce([7; 16])).encode(token);
    channel.write_all(&hello).map_err(silent)?;
    channel.read_exact(&mut [0]).map_err(silent)?;
    Ok(since(began))
}

/// Another kernel file, initramfs and command line for the same machine.
fn make_naive(home: &Home, vm: &mut Baseline) -> Result<(), String> {
    let image = bzimage(home)?;
    vm.replace_after("-kernel", &image.display().to_string())?;

    let initrd = PathBuf::from(vm.after("-initrd")?);
    let mut bytes = std::fs::read(&initrd).map_err(|e| format!("{}: {e}", initrd.display()))?;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let list: String = home
        .modules("debian-cloud")?
        .iter()
        .map(|file| format!("first /modules/{file}\n"))
        .collect();
    bytes.extend(archive("banger/modules", list.as_bytes()));
    let plain = initrd.with_extension("all");
    std::fs::write(&plain, bytes).map_err(|e| format!("{}: {e}", plain.display()))?;
    let packed = initrd.with_extension("zst");
    let mut zstd = run::command("zstd");
    zstd.args(["-q", "-f", "-o"]).arg(&packed).arg(&plain);
    run::to_end(zstd, "zstd")?;
    vm.replace_after("-initrd", &packed.display().to_string())?;

    // What it takes to come up at all, and nothing that makes it faster.
    let line = vm.after("-append")?;
    let kept: Vec<&str> = line
        .split(' ')
        .filter(|word| {
            ["console=", "reboot=", "panic=", "tsc_early_khz="]
                .iter()
                .any(|w| word.starts_with(w))
        })
        .collect();
    vm.replace_after("-append", &kept.join(" "))
}

/// The bzImage of the package that Debian's kernel came from.
fn bzimage(home: &Home) -> Result<PathBuf, String> {
    let dir = home.base().join("package");
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let package = home.package("debian-cloud")?;
    let mut sh = run::command("sh");
    let unpack = "apt-get -o APT::Sandbox::User=root download -q \"$1\" >&2 && dpkg-deb -x ./*.deb . && cp boot/vmlinuz-* bzImage";
    sh.args(["-c", unpack, "sh", &package]).current_dir(&dir);
    run::to_end(sh, "apt-get download")?;
    Ok(dir.join("bzImage"))
}
