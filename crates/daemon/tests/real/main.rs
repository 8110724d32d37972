//! The real daemon in a private home, over its real socket. No VM is booted here: the scenarios in `tests/` do that.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod api;
mod birth;
mod support;
