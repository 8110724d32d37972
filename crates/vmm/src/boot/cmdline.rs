//! The kernel command line. Every word is there for a measured reason: docs/design/boot.md.

/// What the words depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// QEMU's emulation; the host's time stamp counter frequency in kHz (see [`super::tsc`]).
    Tcg {
        /// kHz.
        tsc_khz: u64,
    },
    /// Hardware virtualisation.
    Kvm,
}

/// Words for every guest: silent (a console byte is expensive; a panic is printed all the same, on the serial port that
/// must be named because Debian's kernel prefers a screen), and any panic or reboot ends the VM at once, because the
/// monitor runs without reboot. `loglevel=1`, because at 0 the kernel keeps silent about its panic too
/// (`console_verbose` in kernel/printk).
const ALWAYS: &[&str] = &[
    "console=ttyS0",
    "quiet",
    "loglevel=1",
    "reboot=t",
    "panic=-1",
    "cryptomgr.notests",
];

/// Words for emulated guests only, where code patching and timer checks cost a third of the boot.
///
/// `mitigations=off`: the emulation executes nothing speculatively on the guest's behalf, so they would protect
/// nothing. `audit=0 lsm= apparmor=0`: no security module in the guest (Landlock and AppArmor are absent there).
/// `init_on_alloc=0`: pages are not cleared a second time on their way within the guest's kernel. `tsc=reliable`: on
/// a busy host the kernel's watchdog may find the counter wrong by its ticks and fall back to those: a clock in steps
/// of 4 ms. `clearcpuid=141`: the guest's kernel, not its programs, does without `cmpxchg16b` (`X86_FEATURE_CX16`), behind which
/// QEMU's emulation may hand an interrupt wrong flags: Linux 6.12 panics of it in its allocator.
const EMULATED: &[&str] = &[
    "mitigations=off",
    "no_timer_check",
    "noreplace-smp",
    "audit=0",
    "lsm=",
    "apparmor=0",
    "init_on_alloc=0",
    "tsc=reliable",
    "clearcpuid=141",
];

/// Initcalls of Debian's 6.1 kernel that an emulated microVM does without: certificates for signed modules, a key
/// derivation self test, same-page merging, and the set-up of tracing (`/sys/kernel/tracing` is empty there).
/// Names that a kernel does not have are ignored by it.
const NEEDLESS_INITCALLS: &str = "initcall_blacklist=load_system_certificate_list,crypto_kdf108_init,ksm_init,\
init_kprobe_trace,init_trace_printk_function_export,trace_events_synth_init_early,init_blk_tracer,init_graph_tracefs,\
init_graph_trace,tracer_init_tracefs,bpf_event_init";

/// The command line for a guest with so many processors.
pub fn kernel_cmdline(accel: Accel, cpus: u32) -> String {
    let mut words: Vec<String> = ALWAYS.iter().map(|w| (*w).to_owned()).collect();
    if let Accel::Tcg { tsc_khz } = accel {
        words.extend(EMULATED.iter().map(|w| (*w).to_owned()));
        words.push(NEEDLESS_INITCALLS.to_owned());
        if cpus > 1 {
            // A second processor makes an emulated boot a third slower; the agent brings it up after its first word.
            words.push("maxcpus=1".to_owned());
        }
        // Last and never left out: without it a boot on a busy machine hangs.
        words.push(format!("tsc_early_khz={tsc_khz}"));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emulated_line_is_pinned() {
        assert_eq!(
            kernel_cmdline(Accel::Tcg { tsc_khz: 2_445_406 }, 1),
            "console=ttyS0 quiet loglevel=1 reboot=t panic=-1 cryptomgr.notests mitigations=off no_timer_check \
             noreplace-smp audit=0 lsm= apparmor=0 init_on_alloc=0 tsc=reliable clearcpuid=141 \
             initcall_blacklist=load_system_certificate_list,crypto_kdf108_init,ksm_init,init_kprobe_trace,\
             init_trace_printk_function_export,trace_events_synth_init_early,init_blk_tracer,init_graph_tracefs,\
             init_graph_trace,tracer_init_tracefs,bpf_event_init tsc_early_khz=2445406"
        );
    }

    /// The table says why each word is there, and which modules there are without which no guest starts.
    #[test]
    fn the_document_has_every_word_and_every_module() {
        let doc = include_str!("../../../../docs/design/boot.md");
        let table: Vec<_> = doc.lines().filter(|line| line.starts_with("| `")).collect();
        let words = ALWAYS.iter().chain(EMULATED);
        for word in words.chain(&["initcall_blacklist=", "tsc_early_khz=", "maxcpus=1"]) {
            let has = |line: &&str| line.split('`').nth(1).is_some_and(|row| row.contains(word));
            assert!(table.iter().any(has), "{word}");
        }
        let list = doc.split("3. **Modules.**").nth(1).unwrap_or_default();
        let list = list.split("4. **").next().unwrap_or_default();
        use crate::boot::modules::{FIRST, HELPFUL, SECOND};
        for module in [FIRST, SECOND, HELPFUL].concat() {
            assert!(list.contains(module), "{module}");
        }
    }

    #[test]
    fn further_processors_wait_for_the_agent_under_emulation() {
        let line = |cpus| kernel_cmdline(Accel::Tcg { tsc_khz: 2 }, cpus);
        assert_eq!(
            line(2),
            line(1).replace(" tsc_early_khz=", " maxcpus=1 tsc_early_khz=")
        );
    }

    #[test]
    fn hardware_keeps_its_mitigations_and_its_clock() {
        let line = kernel_cmdline(Accel::Kvm, 4);
        assert_eq!(
            line,
            "console=ttyS0 quiet loglevel=1 reboot=t panic=-1 cryptomgr.notests"
        );
        assert!(!line.contains("tsc") && !line.contains("mitigations"));
    }

    #[test]
    fn words_that_kill_timers_or_boots_never_come_in() {
        for accel in [Accel::Kvm, Accel::Tcg { tsc_khz: 1 }] {
            let line = kernel_cmdline(accel, 2);
            for killer in ["nolapic_timer", "nolapic", "acpi=off"] {
                assert!(!line.split(' ').any(|w| w == killer), "{killer}");
            }
        }
    }
}
