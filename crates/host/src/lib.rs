//! The only crate that touches the machine: objects that outlive a process (kernel objects,
//! processes, files under the state directory) are made, changed and removed here and nowhere else.
//!
//! [`Host`] is a set of small effect traits. One effect is one kernel-atomic step, or is resumable
//! from every prefix, and then the simulation has those prefixes. [`linux`] is the machine, [`sim`] a
//! strict model of it that refuses what the kernel refuses and dies for good when told to.

pub mod crash;
pub mod effects;
pub mod error;
pub mod linux;
pub mod part;
pub mod seen;
pub mod sim;
pub mod state_file;
pub mod tree;

pub use effects::{
    Blocks, Clock, DiskRecipe, DmTable, Files, Firewall, Host, Jails, Links, ProcessIdentity,
    Processes, SpawnSpec, ToolCall, ToolOutput, Tools,
};
pub use error::{Effect, Error, ErrorKind};
pub use part::PartFile;
pub use seen::{DmSeen, DmState, FileKind, FileSeen, LinkSeen, LoopSeen, Proof, Signal};
