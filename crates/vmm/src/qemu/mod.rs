//! QEMU's microvm machine: its arguments, and talking to it.

pub mod plan;
pub mod qmp;

pub use plan::{Disk, DiskSource, PlanError, QemuPlan, Sockets, UserNetwork, spawn_spec};
pub use qmp::{Qmp, QmpError, QmpEvent, RunState};
