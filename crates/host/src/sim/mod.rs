//! A strict model of the machine, for the enumeration of crashes.
//!
//! [`World`] is what is there: files (with what a reboot would lose), kernel objects, processes, the
//! database. [`SimHost`] is one daemon's view of it and implements every effect trait: it refuses
//! what the kernel refuses, counts and names every effect, fails the one it is told to, and once dead
//! answers `Crashed` for ever. Several of them, of one instance or two, share a world.
//!
//! See `docs/design/simulation.md` for what is modelled and what is not.

mod content;
mod devices;
mod faults;
mod files;
mod fs;
mod host;
mod network;
mod process;
mod processes;
mod world;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;

pub use content::{Content, Disk};
pub use faults::{Fault, Injection, Moment, plausible_errors};
pub use fs::{Fs, Ino, Left, Refusal, Survival};
pub use host::SimHost;
pub use process::{Guest, Process, State, Word};
pub use world::{Dm, Kernel, Link, Loop, Nature, Row, Rows, World};
