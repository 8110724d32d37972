//! Debian's docker-registry on the loopback.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::run;

/// Longest it may take to listen.
const SOON: Duration = Duration::from_secs(30);

/// A registry that ends with this.
pub struct Registry {
    child: Child,
    log: PathBuf,
    port: u16,
}

impl Registry {
    /// Starts one that keeps its data in this directory.
    ///
    /// # Errors
    /// It cannot be run, or does not listen.
    pub fn start(dir: &Path) -> Result<Self, String> {
        let free = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("no port is free: {e}"))?;
        let port = free.local_addr().map_err(|e| e.to_string())?.port();
        drop(free);
        let (config, log) = (dir.join("config.yml"), dir.join("log"));
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\n\
             http: {{addr: '127.0.0.1:{port}', secret: s}}\n",
            dir.display()
        );
        let failed = |e| format!("cannot write below {}: {e}", dir.display());
        std::fs::write(&config, text).map_err(failed)?;
        let file = std::fs::File::create(&log).map_err(failed)?;
        let mut serve = run::command("docker-registry");
        serve.arg("serve").arg(&config).stderr(Stdio::null());
        let child = serve.stdout(file).spawn();
        let child = child.map_err(|e| format!("cannot run docker-registry: {e}"))?;
        let registry = Registry { child, log, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > SOON {
                return Err(format!("docker-registry does not listen on {port}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// Puts a layout into it as it is; its name there.
    ///
    /// # Errors
    /// skopeo fails.
    pub fn push(&self, layout: &Path) -> Result<String, String> {
        let name = format!("127.0.0.1:{}/bench:1", self.port);
        let mut copy = run::command("skopeo");
        copy.args([
            "copy",
            "--insecure-policy",
            "-q",
            "--preserve-digests",
            "--dest-tls-verify=false",
        ])
        .arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker://{name}"));
        run::to_end(copy, "skopeo")?;
        Ok(name)
    }

    /// The requests it was sent, one a line.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn requests(&self) -> Result<Vec<String>, String> {
        let log = std::fs::read_to_string(&self.log);
        let log = log.map_err(|e| format!("cannot read {}: {e}", self.log.display()))?;
        // Its access log, in the form of Apache's.
        let requests = log
            .lines()
            .filter(|line| line.contains("\"GET /") || line.contains("\"HEAD /"));
        Ok(requests.map(str::to_owned).collect())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
