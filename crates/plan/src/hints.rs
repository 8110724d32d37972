//! Where to look first: recorded identities, when looking by label leaves a choice or finds nothing.

use crate::{HandlesSeen, Planted, planted::planted};
use banger_model::{BootId, RecoveryMirror, Vm};

/// The recorded identities of a VM's kernel objects: `handles.json`, or, only if that is missing or
/// corrupt, the mirror in the row; either only if it is of this boot (R-STATE-4). A hint is acted on
/// only if the object there carries the label.
pub fn hints(vm: &Vm, handles: &HandlesSeen, boot: &BootId) -> Option<RecoveryMirror> {
    if planted(Planted::MirrorUsedThoughHandlesWhole) && vm.mirror.is_some() {
        return vm.mirror.clone();
    }
    let recorded = match handles {
        HandlesSeen::Present(handles) => Some(handles.mirror()),
        HandlesSeen::Missing | HandlesSeen::Corrupt(_) => vm.mirror.clone(),
    };
    recorded.filter(|hint| hint.boot_id == *boot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{EVERYTHING, boot, vm},
        planted::with_planted,
    };
    use banger_model::VmHandles;

    fn recorded(boot: BootId, number: u32) -> VmHandles {
        VmHandles {
            base_loop: Some(number),
            ..VmHandles::none(boot)
        }
    }

    #[test]
    fn the_mirror_counts_only_without_whole_handles_and_in_its_own_boot() {
        let before = || BootId("before".to_owned());
        let corrupt = || HandlesSeen::Corrupt("half".to_owned());
        let present = |boot| HandlesSeen::Present(recorded(boot, 1));
        let cases = [
            (HandlesSeen::Missing, boot(), Some(2)),
            (corrupt(), boot(), Some(2)),
            (corrupt(), before(), None),
            (present(boot()), boot(), Some(1)),
            (present(before()), boot(), None),
        ];
        for (handles, mirrored_in, expected) in cases {
            let vm = Vm {
                mirror: Some(recorded(mirrored_in, 2).mirror()),
                ..vm(1, EVERYTHING)
            };
            let found = || hints(&vm, &handles, &boot()).and_then(|hint| hint.base_loop);
            assert_eq!(found(), expected, "{handles:?}");
            let with_bug = with_planted(Planted::MirrorUsedThoughHandlesWhole, found);
            assert_eq!(with_bug, Some(2));
        }
    }
}
