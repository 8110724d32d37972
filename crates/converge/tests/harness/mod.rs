//! The harness of the crash enumeration; see `docs/design/simulation.md`.
#![allow(clippy::unwrap_used)] // it is a test
#![allow(dead_code)] // two test programs share it
#![allow(missing_docs)] // nobody's interface

pub mod acks;
pub mod drive;
pub mod explore;
pub mod ledger;
pub mod oracle;
pub mod random;
pub mod run;
pub mod script;
pub mod scripts;
pub mod site;
