//! The state database (SQLite): what every VM should be, how far it is, and what it leases.
//!
//! What the kernel gave us for a running VM is not here (R-STATE-1): no process id is ever stored.
//! A row that is missing is never a reason to remove anything (R-STATE-10); so a database that is
//! missing, damaged or newer is a typed error for the daemon to start read-only with, and is never
//! replaced by an empty one: [`Store::open`] only opens, [`Store::create`] is a decision of its own.
//!
//! Calls block (a commit waits for the disk): an async caller puts them on a blocking thread.

mod error;
mod open;
mod row;
mod store;

pub use error::{Error, Result, Unique};
pub use open::SCHEMA_VERSION;
pub use store::{Leases, Recovered, Store};
