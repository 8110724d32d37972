//! What a guest says on its console at both ends of its life, so that why it ended can be told even if nobody
//! listened: the console's log is a file that the VMM writes.
//!
//! The kernel's own words (`kernel/reboot.c`, `kernel/panic.c`) are printed at the level of emergencies, which our
//! kernel command line lets through. They are the only difference between a panic and a reboot: QEMU with
//! `-no-reboot` calls both a reset. The agent's words stand before the kernel's, because a VMM that ends on resets
//! only is told to reset where a power-off was meant.

/// Begins a line of the agent's on the console.
pub const AGENT: &str = "banger-agent: ";
/// The agent's first words, once commands run. The log is of all boots of a VM; what stands before is an older one's.
pub const UP: &str = "the guest is up";
/// The agent's words before it powers off.
pub const POWERING_OFF: &str = "powering off";
/// The agent's words before it reboots.
pub const REBOOTING: &str = "rebooting";

/// How a guest ended, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastWord {
    /// It powered itself off.
    PowerOff,
    /// It asked for a reboot.
    Reboot,
    /// Its kernel panicked, with the kernel's sentence.
    Panic(String),
}

/// Reads the last word of the last boot from the end of a console log; `None` if that boot did not say any.
pub fn of_console(log: &str) -> Option<LastWord> {
    let (mut agent, mut kernel, mut panic) = (None, None, None);
    let lines = log.lines().rev().map(without_time).take_while(|line| {
        line.strip_prefix(AGENT)
            .is_none_or(|words| words.trim_end() != UP)
    });
    // From the last line to the first: of several, the latest counts.
    for line in lines {
        let line = line.trim_end();
        if let Some(word) = line.strip_prefix(AGENT).and_then(of_agent) {
            agent.get_or_insert(word);
        } else if let Some(word) = line.strip_prefix("reboot: ").and_then(of_kernel) {
            kernel.get_or_insert(word);
        } else if let Some(text) = line.strip_prefix("Kernel panic - not syncing: ") {
            panic.get_or_insert(LastWord::Panic(text.to_owned()));
        }
    }
    panic.or(agent).or(kernel)
}

fn of_agent(words: &str) -> Option<LastWord> {
    match words {
        POWERING_OFF => Some(LastWord::PowerOff),
        REBOOTING => Some(LastWord::Reboot),
        _ => None,
    }
}

fn of_kernel(words: &str) -> Option<LastWord> {
    match words {
        "Power down" => Some(LastWord::PowerOff),
        _ if words.starts_with("Restarting system") => Some(LastWord::Reboot),
        _ => None,
    }
}

/// A kernel's line without its time, `[   12.345678] `.
fn without_time(line: &str) -> &str {
    let text = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .filter(|(time, _)| time.trim().bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    text.map_or(line, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "banger-agent: the guest is up\r\n";

    fn after(text: &str) -> Option<LastWord> {
        of_console(&format!("{FIRST}{text}"))
    }

    #[test]
    fn power_off_reboot_and_panic_are_told_apart() {
        assert_eq!(after(""), None);
        let panic = "[    4.1] sysrq: x\n[    4.2] Kernel panic - not syncing: sysrq triggered crash\r\n[    4.2] CPU: 0 PID: 1\n";
        for (text, word) in [
            ("[   12.345678] reboot: Power down\r\n", LastWord::PowerOff),
            (
                "[    3.000001] reboot: Restarting system\n",
                LastWord::Reboot,
            ),
            (
                "reboot: Restarting system with command 'x'\n",
                LastWord::Reboot,
            ),
            (panic, LastWord::Panic("sysrq triggered crash".to_owned())),
            ("banger-agent: rebooting\r\n", LastWord::Reboot),
        ] {
            assert_eq!(after(text), Some(word), "{text}");
        }
        assert_eq!(
            after("[x] reboot: Power down\nreboot: Power down now\n"),
            None
        );
    }

    /// Firecracker ends on a reset only; a panic on the way down is a panic.
    #[test]
    fn the_agents_word_is_what_was_meant() {
        let meant = "banger-agent: powering off\n[    9.9] reboot: Restarting system\n";
        assert_eq!(after(meant), Some(LastWord::PowerOff));
        let died = "banger-agent: powering off\n[    9.9] Kernel panic - not syncing: x\n";
        assert_eq!(after(died), Some(LastWord::Panic("x".to_owned())));
    }

    /// The log is of all boots: a guest that was killed did not say what it said the time before.
    #[test]
    fn an_older_boot_is_not_believed() {
        let twice = format!("{FIRST}[    5.0] reboot: Power down\n{FIRST}hello\n");
        assert_eq!(of_console(&twice), None);
    }
}
