//! Why a VMM ended by itself: what its guest said last on the console, and what the VMM said of it (R-STATE-11).

use super::{VmService, logs};
use banger_model::{Reason, ReasonKind, Vm, VmName};
use banger_wire::guest::last_word::{LastWord, of_console};

/// Lines of the console that are looked at: a panic prints its sentence first, then some thirty lines.
const LINES: usize = 200;

impl VmService {
    /// Why the VMM of this VM ended, as far as anyone said. Blocks for the reading of a log's end.
    pub(super) fn said_at_the_end(&self, vm: &Vm, vmm: Option<ReasonKind>) -> Option<Reason> {
        let log = self.core.site.console_log(vm.id);
        let console = match logs::tail(&log, LINES) {
            Ok((text, _)) => of_console(&text),
            Err(error) => {
                tracing::warn!(vm = %vm.id, %error, "the console's log cannot be read");
                None
            }
        };
        reason(&vm.name, console, vmm)
    }
}

/// The guest knows best; the VMM cannot tell a panic from a reboot, nor a reboot from a reset.
fn reason(name: &VmName, guest: Option<LastWord>, vmm: Option<ReasonKind>) -> Option<Reason> {
    let again = format!("start it again: banger vm start {name}");
    let (kind, text) = match (guest, vmm) {
        (Some(LastWord::Panic(why)), _) => (
            ReasonKind::GuestPanic,
            format!("the guest's kernel panicked: {why}; see banger vm logs {name}"),
        ),
        (Some(LastWord::Reboot), _) => (
            ReasonKind::GuestReboot,
            format!("the guest rebooted, which stops a VM; {again}"),
        ),
        (None, Some(ReasonKind::GuestReboot)) => (
            ReasonKind::GuestReboot,
            format!("the guest was reset without a word of its kernel, which stops a VM; {again}"),
        ),
        (Some(LastWord::PowerOff), _) | (None, Some(ReasonKind::GuestPowerOff)) => (
            ReasonKind::GuestPowerOff,
            "the guest powered itself off".to_owned(),
        ),
        (None, _) => return None,
    };
    Some(Reason { kind, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_word_counts_before_the_vmms() {
        let name: VmName = "dev".parse().unwrap();
        let kind = |guest, vmm| reason(&name, guest, vmm).map(|reason| reason.kind);
        let reset = Some(ReasonKind::GuestReboot);
        let panic = LastWord::Panic("no init".to_owned());
        for (guest, vmm, expected) in [
            (None, None, None),
            (None, reset, reset),
            (Some(LastWord::Reboot), reset, reset),
            // A VMM that ends on resets only.
            (
                Some(LastWord::PowerOff),
                reset,
                Some(ReasonKind::GuestPowerOff),
            ),
            (
                None,
                Some(ReasonKind::GuestPowerOff),
                Some(ReasonKind::GuestPowerOff),
            ),
            (Some(panic.clone()), reset, Some(ReasonKind::GuestPanic)),
            // Nobody listened to the VMM.
            (Some(panic.clone()), None, Some(ReasonKind::GuestPanic)),
        ] {
            assert_eq!(kind(guest.clone(), vmm), expected, "{guest:?} {vmm:?}");
        }
        let text = |guest| reason(&name, Some(guest), None).unwrap().text;
        assert!(text(LastWord::Reboot).ends_with("banger vm start dev"));
        assert!(text(panic).contains("panicked: no init; see banger vm logs dev"));
    }
}
