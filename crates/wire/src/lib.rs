//! API types, frames, handshake, and the clients for both.

pub mod api;
pub mod environment;
pub mod guest;
