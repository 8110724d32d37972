//! The API between `banger` and `bangerd`: HTTP/1.1 over a Unix socket, one `POST /v1/<method>` per method.
//!
//! The body of a request is one JSON object; unknown fields are refused. A method answers in one of three ways
//! ([`Shape`]): one JSON object; a stream of JSON objects, one per line ([`Event`]); or, asked with
//! `Upgrade: banger-frames`, a `101` after which both sides speak [`Frame`]s. A failure before the answer has
//! begun is a status of 400 or more with an [`ApiError`] as body; after that it is the last event or an error
//! frame. Everything but the upgrades can be driven with `curl --unix-socket`.
//!
//! ```text
//! curl --unix-socket /run/banger/bangerd.sock -d '{}' http://banger/v1/vm.list
//! ```

pub mod client;
pub mod doctor;
pub mod error;
pub mod event;
pub mod files;
pub mod forward;
pub mod frame;
pub mod image_life;
pub mod images;
pub mod inspect;
pub mod kernels;
pub mod life;
pub mod method;
pub mod notice;
pub mod operations;
pub mod paths;
pub mod program;
pub mod pull;
pub mod reference;
pub mod request;
#[cfg(feature = "schema")]
pub mod schema;
pub mod set;
pub mod ssh;
pub mod version;
pub mod view;

pub use client::{Client, ClientError, EventStream, FrameReceiver, FrameSender, NoticeStream};
pub use doctor::{DoctorRow, Standing};
pub use error::{ApiError, Code, Pullable, sources};
pub use event::{COMMAND_STAGE, Event, Part, SpecValue};
pub use files::VmCopy;
pub use forward::{PublishedView, VmForward};
pub use frame::{Decoder, Frame, FrameError};
pub use image_life::*;
pub use images::*;
pub use inspect::*;
pub use kernels::*;
pub use life::*;
pub use method::{METHODS, Method, Shape};
pub use notice::*;
pub use operations::*;
pub use paths::{Paths, PathsError};
pub use program::{IMAGE_USER, Program};
pub use pull::{Credentials, ImagePull};
pub use reference::{MIN_PREFIX, ReferenceError, resolve};
pub use request::*;
pub use set::VmSet;
pub use ssh::{SshView, VmSsh};
pub use version::{NotRunning, Version, Versions};
pub use view::*;

/// Version of this API; a client and a daemon with different ones do not talk (R-PROG-4).
pub const API_VERSION: u32 = 1;

/// Header of every request and answer that carries [`API_VERSION`].
pub const API_VERSION_HEADER: &str = "banger-api";

/// Header that carries the request of a method whose body is data ([`Shape::Upload`]).
pub const REQUEST_HEADER: &str = "banger-request";

/// The protocol named by `Upgrade`.
pub const UPGRADE: &str = "banger-frames";

/// Path of what Prometheus reads: the only `GET`.
pub const METRICS_PATH: &str = "/metrics";
/// Longest body of a request in bytes; an argument list of Linux fits.
pub const MAX_REQUEST: usize = 4 * 1024 * 1024;
