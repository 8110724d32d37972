//! A real registry on this machine (Debian's docker-registry), images to put into it, and a wire to it that can be watched,
//! slowed down and cut.

#![allow(
    dead_code,
    reason = "each test binary that shares this module uses a part of it"
)]

pub mod guarded;
pub mod hostile;

use banger_testkit::{Home, Run, Running, wait_until};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// The user of a registry that lets not everybody in; the hash (bcrypt) is that of the password.
pub const USER: &str = "mary";
pub const PASSWORD: &str = "swordfish";
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuupWDwJQeCHYIBQy8WvkVB6ImhZ476YYy";

/// Runs a shell's words to their end.
#[track_caller]
pub fn sh(home: &Home, words: &str) -> Run {
    Running::start(home.shell("sh", words), b"")
        .finish()
        .exits(0)
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes that no packing makes shorter.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// An OCI image layout.
pub struct Layout {
    pub dir: PathBuf,
    pub layers: Vec<String>,
}

/// Makes a layout of three layers, packed with gzip, with zstd and not at all. Where there are other machines' images
/// in it, ours is the last of an index.
pub fn layout(home: &Home, name: &str, seed: u64, others: bool) -> Layout {
    let tree = home.scratch().join(format!("{name}-tree"));
    for layer in ["1", "2", "3"] {
        fs::create_dir_all(tree.join(layer).join("etc")).expect("a tree");
    }
    let write = |path: &str, bytes: &[u8]| fs::write(tree.join(path), bytes).expect("a file");
    write("1/etc/hidden", b"gone");
    write("1/etc/large", &noise(seed, 3_000_000));
    write("2/etc/.wh.hidden", b"");
    write("2/etc/second", &noise(seed + 1, 500_000));
    write("3/etc/os-release", format!("ID=test{seed}\n").as_bytes());
    of_trees(home, name, others)
}

/// Makes a layout of a root file system that boots: busybox.
pub fn boxed(home: &Home) -> Layout {
    let tree = home.scratch().join("box-tree");
    for dir in ["1/bin", "1/etc", "1/root", "2/etc", "3/etc"] {
        fs::create_dir_all(tree.join(dir)).expect("a tree");
    }
    fs::copy("/bin/busybox", tree.join("1/bin/busybox")).expect("busybox-static is installed");
    for link in ["sh", "cat"] {
        symlink("busybox", tree.join("1/bin").join(link)).expect("a symlink");
    }
    let write = |path: &str, text: &str| fs::write(tree.join(path), text).expect("a file");
    write("2/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    write("3/etc/os-release", "ID=box\n");
    of_trees(home, "box", false)
}

fn of_trees(home: &Home, name: &str, others: bool) -> Layout {
    let dir = home.scratch().join(name);
    let tree = home.scratch().join(format!("{name}-tree"));
    let tree = tree.display();
    let tars = (1..=3).map(|n| {
        let words = format!(
            "tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C {tree}/{n} -c ."
        );
        sh(home, &words).stdout
    });
    let tars: Vec<Vec<u8>> = tars.collect();
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a layout");
    let put = |bytes: &[u8], media: &str| {
        let digest = sha256(bytes);
        fs::write(dir.join("blobs/sha256").join(&digest), bytes).expect("a blob");
        let media = format!("application/vnd.oci.image.{media}+json").replace("tar+json", "tar");
        let media = media
            .replace("gzip+json", "gzip")
            .replace("zstd+json", "zstd");
        json!({"mediaType": media, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let gzip = Running::start(home.shell("sh", "exec gzip -n"), &tars[0])
        .finish()
        .stdout;
    let zstd = zstd::bulk::compress(&tars[1], 1).expect("zstd");
    let layers = [
        put(&gzip, "layer.v1.tar+gzip"),
        put(&zstd, "layer.v1.tar+zstd"),
        put(&tars[2], "layer.v1.tar"),
    ];
    let ids: Vec<_> = tars
        .iter()
        .map(|tar| format!("sha256:{}", sha256(tar)))
        .collect();
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let image = |arch: &str| {
        let config = json!({
            "architecture": arch, "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let config = put(config.to_string().as_bytes(), "config.v1");
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
        let mut put = put(manifest.to_string().as_bytes(), "manifest.v1");
        put["platform"] = json!({"os": "linux", "architecture": arch});
        put
    };
    let mut top = image(ours);
    if others {
        let kind = "application/vnd.oci.image.index.v1+json";
        let index =
            json!({"schemaVersion": 2, "mediaType": kind, "manifests": [image("s390x"), top]});
        top = put(index.to_string().as_bytes(), "index.v1");
    }
    let index = json!({"schemaVersion": 2, "manifests": [top]});
    fs::write(dir.join("index.json"), index.to_string()).expect("an index");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a layout");
    let digest = |layer: &Value| {
        let digest = layer["digest"].as_str().expect("a digest");
        digest.trim_start_matches("sha256:").to_owned()
    };
    Layout {
        dir,
        layers: layers.iter().map(digest).collect(),
    }
}

/// A registry that ends with this.
pub struct Registry {
    child: Child,
    dir: PathBuf,
    locked: bool,
    pub port: u16,
}

impl Registry {
    /// Starts one; a locked one wants [`USER`] and [`PASSWORD`].
    pub fn start(home: &Home, locked: bool) -> Self {
        let dir = home.scratch().join(format!("registry-{locked}"));
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("htpasswd"), format!("{USER}:{HASH}\n")).expect("a user");
        let auth = format!(
            "auth: {{htpasswd: {{realm: here, path: {}/htpasswd}}}}\n",
            dir.display()
        );
        let auth = if locked { auth.as_str() } else { "" };
        let mut registry = Self::configured(home, &dir, "", auth);
        registry.locked = locked;
        registry
    }

    /// Starts one with more in the section `http` and more sections. It wants a login to push.
    pub fn configured(home: &Home, dir: &Path, http: &str, more: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("a port").port();
        drop(free);
        let d = dir.display();
        let comma = if http.is_empty() { "" } else { ", " };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {d}/data}}}}\n\
             http: {{addr: '127.0.0.1:{port}', secret: s{comma}{http}}}\n{more}"
        );
        fs::write(dir.join("config.yml"), config).expect("a configuration");
        let words = format!("exec docker-registry serve {d}/config.yml >{d}/log 2>&1");
        let child = home.shell("sh", &words).spawn().expect("docker-registry");
        wait_until("the registry to listen", Duration::from_secs(30), || {
            TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())
        });
        Registry {
            child,
            dir: dir.to_owned(),
            locked: true,
            port,
        }
    }

    /// Puts a layout into it, as it is.
    pub fn push(&self, home: &Home, layout: &Layout, name: &str) {
        let user = match self.locked {
            true => format!("--dest-creds {USER}:{PASSWORD}"),
            false => String::new(),
        };
        let words = format!(
            "skopeo --insecure-policy copy -q --all --preserve-digests --dest-tls-verify=false {user} \
             oci:{} docker://127.0.0.1:{}/{name}",
            layout.dir.display(),
            self.port
        );
        sh(home, &words);
    }

    /// Where it keeps a blob.
    pub fn blob(&self, hex: &str) -> PathBuf {
        let blobs = "data/docker/registry/v2/blobs/sha256";
        self.dir.join(blobs).join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A wire to a registry.
pub struct Wire {
    pub port: u16,
    /// Bytes until the next cut; 0: never.
    cut: Arc<AtomicU64>,
    /// Milliseconds that 64 KiB take.
    slow: Arc<AtomicU64>,
    asked: Arc<Mutex<Vec<String>>>,
    moved: Arc<AtomicU64>,
}

impl Wire {
    /// A wire to this port.
    pub fn to(registry: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let wire = Wire {
            port: listener.local_addr().expect("a port").port(),
            cut: Arc::default(),
            slow: Arc::default(),
            asked: Arc::default(),
            moved: Arc::default(),
        };
        let (cut, slow, asked) = (wire.cut.clone(), wire.slow.clone(), wire.asked.clone());
        let all = wire.moved.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", registry)) else {
                    continue;
                };
                let pair = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
                let (Some((up, to)), asked) = (pair(), asked.clone()) else {
                    continue;
                };
                thread::spawn(move || ask(up, to, &asked));
                let (cut, slow, all) = (cut.clone(), slow.clone(), all.clone());
                thread::spawn(move || answer(server, client, (&cut, &slow, &all)));
            }
        });
        wire
    }

    /// Cuts the connection that brings the n-th byte from now on.
    pub fn cut_after(&self, bytes: u64) {
        self.cut.store(bytes, Ordering::SeqCst);
    }

    /// Whether it has been cut since.
    pub fn was_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst) == 0
    }

    /// Lets 64 KiB take so many milliseconds.
    pub fn slow(&self, ms: u64) {
        self.slow.store(ms, Ordering::SeqCst);
    }

    /// Bytes that came from the registry since the last look.
    pub fn moved(&self) -> u64 {
        self.moved.swap(0, Ordering::SeqCst)
    }

    /// Requests since the last look, each its line and its range.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("the list"))
    }

    /// How often each blob was asked for since the last look.
    pub fn blobs(&self) -> BTreeMap<String, usize> {
        let mut blobs = BTreeMap::new();
        for line in self.asked() {
            let blob = line
                .strip_prefix("GET ")
                .and_then(|line| line.split_once("/blobs/sha256:"));
            if let Some((_, rest)) = blob {
                *blobs.entry(rest[..64].to_owned()).or_default() += 1;
            }
        }
        blobs
    }
}

fn ask(mut from: TcpStream, mut to: TcpStream, asked: &Mutex<Vec<String>>) {
    let (mut buffer, mut head) = ([0; 1 << 14], String::new());
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
        head.push_str(&String::from_utf8_lossy(&buffer[..n]));
        while let Some((one, rest)) = head.split_once("\r\n\r\n") {
            let range = one
                .lines()
                .find(|line| line.to_ascii_lowercase().starts_with("range:"));
            let line = one.lines().next().unwrap_or_default();
            let line = format!("{line} {}", range.unwrap_or_default());
            asked.lock().expect("the list").push(line);
            head = rest.to_owned();
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn answer(
    mut from: TcpStream,
    mut to: TcpStream,
    (cut, slow, moved): (&AtomicU64, &AtomicU64, &AtomicU64),
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        moved.fetch_add(n as u64, Ordering::SeqCst);
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(slow.load(Ordering::SeqCst)));
        let left = cut.load(Ordering::SeqCst);
        if left > 0 {
            cut.store(left.saturating_sub(n as u64), Ordering::SeqCst);
            if left <= n as u64 {
                break;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Names in the blob cache of a home, sorted.
pub fn cached(home: &Home) -> Vec<String> {
    let dir: PathBuf = home.state().join(Path::new("blobs/sha256"));
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
