//! Known bugs that a test can plant, one at a time, to see the harness catch it.
//!
//! Each is consulted at the one place where the wrong decision would be made, here, in `converge`
//! or in the simulation. Outside of tests [`planted`] is a constant `false` and costs nothing.

/// A bug that the crash enumeration must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Planted {
    /// A process is recognised by its pid alone (simulated host: `prove`).
    PidWithoutStartTime,
    /// The row goes before the device-mapper device.
    RowDeletedBeforeDm,
    /// The lease is free as soon as the tombstone is written (ledger).
    LeaseFreedBeforeTeardown,
    /// Delete removes a disk before it writes the tombstone.
    TombstoneAfterFirstRemoval,
    /// The sweep takes the objects of every instance for its own.
    SweepOfAnotherInstance,
    /// A directory without a row is swept.
    MissingRowDeletesDisk,
    /// A failing stop goes back to running.
    StopRollsBack,
    /// One VM's failure ends the round over all VMs.
    StuckVmBlocksAnother,
    /// Directories are not fsynced after a rename.
    DirectoryNotSynced,
    /// The mirror in the row wins over a whole `handles.json`, of whatever boot.
    MirrorUsedThoughHandlesWhole,
    /// A disk whose making failed half-way is taken as made.
    HalfMadeDiskTakenAsMade,
    /// A VMM is spawned although one lives (and the simulated host ignores the log's lock).
    VmmSpawnedTwice,
    /// The zone lists VMs that are not alive.
    ZoneListsDeadVm,
    /// The error of the rollback replaces the one that caused it.
    RollbackHidesCause,
    /// A create is given the address of a VM that is still being deleted (and the ledger allows it).
    DyingVmAddressReused,
    /// The executor goes on with a queue that was planned for an older goal.
    StaleGenerationActs,
    /// A guest that said hello is taken for one that is ready.
    HelloTakenForReady,
    /// A guest that failed to get ready is booted again like one that said nothing.
    FailedGuestBootedAgain,
    /// The row of a failed create goes before its logs are kept.
    RowForgottenBeforeLogs,
    /// A disk that was asked to grow stays as it is.
    DiskNotGrown,
    /// A root disk that cannot share its image's blocks is made by copying all of them.
    CloneMadeByCopying,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 21] = [
        Planted::PidWithoutStartTime,
        Planted::RowDeletedBeforeDm,
        Planted::LeaseFreedBeforeTeardown,
        Planted::TombstoneAfterFirstRemoval,
        Planted::SweepOfAnotherInstance,
        Planted::MissingRowDeletesDisk,
        Planted::StopRollsBack,
        Planted::StuckVmBlocksAnother,
        Planted::DirectoryNotSynced,
        Planted::MirrorUsedThoughHandlesWhole,
        Planted::HalfMadeDiskTakenAsMade,
        Planted::VmmSpawnedTwice,
        Planted::ZoneListsDeadVm,
        Planted::RollbackHidesCause,
        Planted::DyingVmAddressReused,
        Planted::StaleGenerationActs,
        Planted::HelloTakenForReady,
        Planted::FailedGuestBootedAgain,
        Planted::RowForgottenBeforeLogs,
        Planted::DiskNotGrown,
        Planted::CloneMadeByCopying,
    ];
}

#[cfg(any(test, feature = "planted-bugs"))]
mod switch {
    use super::Planted;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Whether this bug is planted in this thread.
    pub fn planted(bug: Planted) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Runs `f` with one bug planted in this thread (or none), and takes it out again.
    pub fn with_planted<T>(bug: impl Into<Option<Planted>>, f: impl FnOnce() -> T) -> T {
        /// Takes the bug out when `f` panics, too.
        struct Restore(Option<Planted>);
        impl Drop for Restore {
            fn drop(&mut self) {
                PLANTED.set(self.0);
            }
        }
        let _restore = Restore(PLANTED.replace(bug.into()));
        f()
    }
}

#[cfg(any(test, feature = "planted-bugs"))]
pub use switch::{planted, with_planted};

/// Whether this bug is planted: never, outside of tests.
#[cfg(not(any(test, feature = "planted-bugs")))]
pub const fn planted(_: Planted) -> bool {
    false
}
