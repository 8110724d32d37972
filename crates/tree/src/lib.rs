//! File trees as tar streams: packing them, and unpacking them where they cannot leave their destination.
//!
//! Both ends of a copy use it: the command line on the host, and the agent in the guest or, of one that is down, the daemon. [`tar`] is the format and
//! does no I/O of its own; [`pack`] walks a tree, an [`Emitter`] writes
//! entries of trees that others walk; [`unpack`] makes one, and trusts neither a name nor a link of what
//! it is given; [`Destination`] decides where a copy comes to lie. All calls block: callers give them a thread.

mod destination;
mod emit;
mod error;
mod pack;
mod stream;
pub mod tar;
mod unpack;

pub use destination::Destination;
pub use emit::{Attributes, Emitter, Packed};
pub use error::{Error, Shown};
pub use pack::{Output, Pack, pack};
pub use stream::{Chunk, StreamReader, StreamWriter, sum_of};
pub use unpack::{Owner, Reach, Unpack, Unpacked, entry_parts, unpack};
