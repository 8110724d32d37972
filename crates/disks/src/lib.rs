//! The files of a VM that is down, read from its disks as its guest sees them: without mounts, root or a boot.
//!
//! [`View`] puts the disks together: what overlayfs makes of an image and a disk of changes, and what the agent mounts
//! over it ([`banger_wire::guest::disks`]). [`pack`] makes a tar stream of a file or directory in it, entry for entry as
//! `banger_tree::pack` does in the guest.
//!
//! A guest wrote what is read here, so whatever the bytes are, it ends, takes bounded memory, and leads nowhere on this
//! machine: links are followed inside the view only, and there is no path of the host in it.

mod overlay;
mod pack;
mod view;

pub use pack::{What, pack};
pub use view::{Dir, Disk, Disks, Found, Names, RootDisks, Unopened, View};
