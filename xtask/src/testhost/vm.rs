//! Booting the test host and hearing what runs in it, every wait with a deadline.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::build::TestHost;
use super::payload::Payload;
use crate::run;

/// How long a boot may take until its first word; 3 s on an idle machine.
const BOOT: Duration = Duration::from_secs(90);

/// Boots tried until one says that word. Nothing has run before it, so nothing can be lost.
const BOOTS: u32 = 3;

/// How often it is looked at the pulse, and how long it may be away: it beats every 5 s, and the machine is emulated on
/// one that may have much else to do.
const LOOK: Duration = Duration::from_secs(5);
const PULSE: Duration = Duration::from_secs(90);

/// Memory in MiB and processors of the host.
const MEMORY: &str = "3072";
const PROCESSORS: &str = "2";

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// The runner's exit status.
    pub status: i32,
    /// What was skipped inside, and why.
    pub skipped: Vec<String>,
}

/// Why a run has no status.
#[derive(Debug)]
pub enum Failed {
    /// The machine itself failed: its kernel panicked, or it stands still. The end of the console.
    Machine(String),
    /// Anything else, in words.
    Other(String),
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Failed::Other(why)
    }
}

/// Boots the host, streams what the payload's runner prints, and returns how it ended.
///
/// # Errors
/// When no boot says its first word in time, the VM ends without an exit status, or the whole is not over
/// after `timeout`; the error holds the end of the console.
pub fn run(
    root: &Path,
    host: &TestHost,
    payload: &Payload,
    timeout: Duration,
) -> Result<Run, Failed> {
    let qemu = qemu(root)?;
    let khz = tsc_khz();
    let deadline = Instant::now() + timeout;
    let console = payload.disk().with_file_name("console.log");
    let mut last = String::new();
    for boot in 1..=BOOTS {
        let nonce = format!("{}-{boot}", std::process::id());
        let mut command = machine(
            &qemu,
            host,
            payload,
            &format!("testhost.mode=run testhost.nonce={nonce} tsc_early_khz={khz}"),
        );
        command
            .args([
                "-chardev",
                &format!("file,id=console,path={}", console.display()),
                "-serial",
                "chardev:console",
            ])
            .args([
                "-device",
                "virtio-serial-device",
                "-chardev",
                "stdio,id=out,signal=off",
            ])
            .args(["-device", "virtserialport,chardev=out,name=xtask.out"])
            // Never at its end: QEMU takes a port whose input ended for one that nobody reads.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| format!("cannot run {}: {e}", qemu.display()))?;
        let words = Words {
            lines: lines(&mut child)?,
            nonce,
        };
        let mut pulse = Pulse::of(&console);
        let heard = words.hear(deadline, &mut || pulse.stopped(), || {
            // QEMU holds it open: gone even if we are killed.
            let _ = std::fs::remove_file(payload.disk());
        });
        end(&mut child)?;
        match heard {
            Heard::Ended(run) => return Ok(run),
            Heard::Nothing(why) => last = why,
            Heard::Lost(why) => {
                let words = format!("{why}; the console's last words:\n{}", tail(&console));
                let panicked = words.contains("Kernel panic - not syncing");
                return Err(if panicked || pulse.stopped() {
                    Failed::Machine(words)
                } else {
                    Failed::Other(words)
                });
            }
        }
        eprintln!(
            "test host: boot {boot} of {BOOTS}: {last}; the console's last words:\n{}",
            tail(&console)
        );
    }
    Err(Failed::Other(format!(
        "the test host did not boot in {BOOTS} tries: {last}"
    )))
}

/// Boots the host with a shell on this terminal; returns when it is left.
///
/// # Errors
/// When QEMU cannot be run, or ends in error.
pub fn shell(root: &Path, host: &TestHost, payload: &Payload) -> Result<(), String> {
    let qemu = qemu(root)?;
    // A serial line cannot ask for it.
    let size = run::terminal_size().unwrap_or_else(|| "24x80".to_owned());
    let words = format!(
        "testhost.mode=shell testhost.size={size} tsc_early_khz={}",
        tsc_khz()
    );
    let mut command = machine(&qemu, host, payload, &words);
    command
        .args([
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
        ])
        .stdin(Stdio::inherit());
    run::to_end(command, "QEMU")
}

/// QEMU with the host's kernel and disks, without any line to the outside.
fn machine(qemu: &Path, host: &TestHost, payload: &Payload, words: &str) -> Command {
    // Dies with us even when we are killed: the signal is set before QEMU starts, and the pid stays the same.
    let mut command = run::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(qemu);
    command.args([
        "-M", "microvm", "-accel", "tcg", "-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY,
    ]);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    command
        .arg("-kernel")
        .arg(host.dir.join("vmlinuz"))
        .arg("-initrd")
        .arg(host.dir.join("initrd.cpio"));
    let append = format!(
        "console=ttyS0 loglevel=4 quiet reboot=t panic=-1 mitigations=off cryptomgr.notests no_timer_check \
         noreplace-smp audit=0 tsc=reliable {words}"
    );
    command.args(["-append", &append]);
    for (id, disk, mode) in [
        // Written to a copy that QEMU throws away at its end.
        (
            "root",
            host.dir.join("root.ext4"),
            "snapshot=on,cache=unsafe",
        ),
        // Made for this run; nobody reads it afterwards.
        ("payload", payload.disk(), "cache=unsafe"),
    ] {
        command.args([
            "-drive",
            &format!("if=none,id={id},format=raw,{mode},file={}", disk.display()),
        ]);
        command.args(["-device", &format!("virtio-blk-device,drive={id}")]);
    }
    command.args(["-device", "virtio-rng-device"]);
    command
}

/// QEMU's path, installed if need be.
fn qemu(root: &Path) -> Result<PathBuf, String> {
    let script = root.join("scripts/install-qemu");
    let path = run::output(root, &script.to_string_lossy(), &[])?;
    Ok(PathBuf::from(path.trim()))
}

/// What came of listening to a VM.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// It ran and said how that ended.
    Ended(Run),
    /// It never said its first word: may be booted again.
    Nothing(String),
    /// It began and then fell silent, or died.
    Lost(String),
}

/// The lines of one VM's port, and the nonce that its own words carry.
struct Words {
    lines: Receiver<String>,
    nonce: String,
}

impl Words {
    /// Calls `up` at the first word, then prints everything until the exit line, or until `deadline`.
    ///
    /// Asks between lines whether the machine has `stopped`.
    fn hear(
        &self,
        deadline: Instant,
        stopped: &mut dyn FnMut() -> bool,
        up: impl FnOnce(),
    ) -> Heard {
        let ready = format!("xtask-ready {} ", self.nonce);
        let exit = format!("xtask-exit {} ", self.nonce);
        match self.first(&ready, deadline.min(Instant::now() + BOOT)) {
            Ok(uptime) => eprintln!("==> test host up after {uptime} s of its time"),
            Err(why) => return Heard::Nothing(why),
        }
        up();
        let mut skipped = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left.min(LOOK)) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if stopped() => {
                    return Heard::Lost(format!("the test host has stood still for {PULSE:?}"));
                }
                Err(RecvTimeoutError::Timeout) if left > LOOK => continue,
                Err(RecvTimeoutError::Timeout) => {
                    return Heard::Lost("the run was not over in time".to_owned());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Heard::Lost("the test host ended without an exit status".to_owned());
                }
            };
            if let Some(status) = line.strip_prefix(&exit) {
                return match status.parse() {
                    Ok(status) => Heard::Ended(Run { status, skipped }),
                    Err(_) => Heard::Lost(format!("exit status {status:?} is no number")),
                };
            } else if let Some(reason) = line.strip_prefix("xtask-skipped ") {
                skipped.push(reason.to_owned());
            } else {
                println!("{line}");
            }
        }
    }

    fn first(&self, ready: &str, deadline: Instant) -> Result<String, String> {
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    if let Some(uptime) = line.strip_prefix(ready) {
                        return Ok(uptime.to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Err("no first word in time".to_owned()),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("QEMU ended before the first word".to_owned());
                }
            }
        }
    }
}

/// Reads the child's output line by line on a thread that ends with it.
fn lines(child: &mut Child) -> Result<Receiver<String>, String> {
    let out = child.stdout.take().ok_or("QEMU has no output")?;
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line);
            if send.send(text.trim_end_matches('\r').to_owned()).is_err() {
                break;
            }
        }
    });
    Ok(receive)
}

/// Gives QEMU 5 s to end by itself, then kills it (this child, by its pid) and reaps it.
fn end(child: &mut Child) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if child
            .try_wait()
            .map_err(|e| format!("cannot wait for QEMU: {e}"))?
            .is_some()
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child
        .kill()
        .and_then(|()| child.wait())
        .map(drop)
        .map_err(|e| format!("cannot end QEMU: {e}"))
}

/// The machine's pulse: its console grows.
#[derive(Debug)]
struct Pulse<'a> {
    console: &'a Path,
    size: u64,
    since: Instant,
}

impl<'a> Pulse<'a> {
    fn of(console: &'a Path) -> Self {
        Pulse {
            console,
            size: 0,
            since: Instant::now(),
        }
    }

    /// Whether it has been away for too long.
    fn stopped(&mut self) -> bool {
        let size = std::fs::metadata(self.console).map_or(0, |m| m.len());
        if size != self.size {
            (self.size, self.since) = (size, Instant::now());
        }
        self.since.elapsed() > PULSE
    }
}

/// The last 30 lines of a console log but for the pulse.
fn tail(path: &Path) -> String {
    let text = std::fs::read(path)
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| *line != "testhost-alive")
        .collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// The frequency of this processor's time stamp counter in kHz. An emulated machine has the same counter, and
/// told its frequency does not have to find it against an emulated timer, which fails by chance.
fn tsc_khz() -> u64 {
    let (began, first) = (Instant::now(), stamp());
    while began.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    let (elapsed, last) = (began.elapsed(), stamp());
    u64::try_from(u128::from(last - first) * 1_000_000 / elapsed.as_nanos()).unwrap_or(0)
}

#[cfg(target_arch = "x86_64")]
fn stamp() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux leaves it to user space.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(said: &[&str], open: bool) -> Heard {
        let (send, lines) = mpsc::channel();
        for line in said {
            send.send((*line).to_owned()).expect("a listener");
        }
        let kept = open.then_some(send);
        let words = Words {
            lines,
            nonce: "n1".to_owned(),
        };
        let soon = Instant::now() + Duration::from_millis(50);
        let heard = words.hear(soon, &mut || false, || ());
        drop(kept);
        heard
    }

    #[test]
    fn a_run_ends_with_its_status_and_its_skips() {
        let heard = hear(
            &[
                "noise",
                "xtask-ready n1 3.1",
                "a line",
                "xtask-skipped t: why",
                "xtask-exit n1 3",
            ],
            true,
        );
        assert_eq!(
            heard,
            Heard::Ended(Run {
                status: 3,
                skipped: vec!["t: why".to_owned()]
            })
        );
    }

    #[test]
    fn a_machine_without_a_pulse_is_given_up_and_one_that_beats_is_not() {
        let (open, lines) = mpsc::channel::<String>();
        open.send("xtask-ready n1 3.1".to_owned())
            .expect("a listener");
        let words = Words {
            lines,
            nonce: "n1".to_owned(),
        };
        let late = Instant::now() + Duration::from_millis(50);
        let Heard::Lost(why) = words.hear(late, &mut || true, || ()) else {
            panic!("it was heard");
        };
        assert!(why.contains("stood still"), "{why}");

        let console = std::env::temp_dir().join(format!("xtask-pulse-{}", std::process::id()));
        std::fs::write(&console, "a").expect("the console");
        let mut pulse = Pulse::of(&console);
        let Some(long_ago) = Instant::now().checked_sub(PULSE + LOOK) else {
            return;
        };
        pulse.since = long_ago;
        assert!(!pulse.stopped(), "it has grown");
        pulse.since = long_ago;
        assert!(pulse.stopped(), "it has not");
        std::fs::remove_file(&console).expect("the console");
    }

    #[test]
    fn a_test_that_prints_the_exit_words_does_not_end_the_run() {
        let heard = hear(
            &[
                "xtask-ready n1 3.1",
                "xtask-exit 0",
                "xtask-exit n2 0",
                "xtask-exit n1 1",
            ],
            true,
        );
        assert_eq!(
            heard,
            Heard::Ended(Run {
                status: 1,
                skipped: vec![]
            })
        );
    }

    #[test]
    fn silence_before_the_first_word_may_be_tried_again_and_after_it_may_not() {
        assert!(matches!(hear(&["noise"], true), Heard::Nothing(_)));
        assert!(matches!(hear(&[], false), Heard::Nothing(_)));
        assert!(matches!(
            hear(&["xtask-ready n1 3.1"], true),
            Heard::Lost(_)
        ));
        assert!(matches!(
            hear(&["xtask-ready n1 3.1", "x"], false),
            Heard::Lost(_)
        ));
    }
}
