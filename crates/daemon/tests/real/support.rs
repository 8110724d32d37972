//! A daemon of its own: private directories, the real program, the real socket.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use banger_wire::api::{self, ApiError, Client, ClientError, DaemonView, Method, Paths};
use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// A state directory and a runtime directory of its own; the daemon in it ends with it.
pub struct Home {
    root: tempfile::TempDir,
    pub paths: Paths,
}

impl Home {
    pub fn new() -> Home {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths {
            state_dir: root.path().join("state"),
            runtime_dir: root.path().join("run"),
            config: root.path().join("config.toml"),
        };
        Home { root, paths }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The daemon's program with this home's environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bangerd"));
        command
            .env("BANGER_STATE_DIR", &self.paths.state_dir)
            .env("BANGER_RUNTIME_DIR", &self.paths.runtime_dir)
            .env("BANGER_CONFIG", &self.paths.config)
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon and returns when its starter does: it listens then, or has said why not.
    pub fn start(&self) -> Output {
        self.command().output().unwrap()
    }

    /// Starts the daemon, which must succeed.
    pub fn started(self) -> Home {
        let output = self.start();
        assert!(output.status.success(), "{output:?}");
        self
    }

    pub fn client(&self) -> Client {
        Client::new(self.paths.socket())
    }

    pub fn call<M: Method>(&self, request: &M) -> Result<M::Reply, ClientError> {
        runtime().block_on(self.client().call(request))
    }

    /// The failure of a call that must fail.
    pub fn refused<M: Method>(&self, request: &M) -> ApiError {
        api_error(self.call(request).err())
    }

    pub fn status(&self) -> DaemonView {
        self.call(&api::DaemonStatus {}).unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.paths.daemon_log()).unwrap_or_default()
    }

    /// Ends the daemon in order and waits until its process is gone.
    pub fn stop(&self) {
        let Ok(view) = self.call(&api::Shutdown {}) else {
            return;
        };
        let process = format!("/proc/{}/exe", view.pid);
        wait_until("the daemon is gone", || {
            std::fs::read_link(&process).is_err()
        });
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn api_error(error: Option<ClientError>) -> ApiError {
    match error {
        Some(ClientError::Api(error)) => error,
        other => panic!("not the daemon's refusal: {other:?}"),
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "waited 20 s and not yet: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
