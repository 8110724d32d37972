//! OCI image layouts made by hand.

use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// How layers are packed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Zstd,
    /// gzip and not at all, by turns.
    Mixed,
}

/// A layout of one image, and the digests of what is in it.
pub struct Layout {
    pub dir: PathBuf,
    pub manifest: String,
    pub config: String,
    pub layers: Vec<String>,
}

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A directory as an archive.
pub fn tar_of(dir: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", dir).unwrap();
    builder.into_inner().unwrap()
}

fn packed(layer: &[u8], gzip: bool) -> Vec<u8> {
    if !gzip {
        return layer.to_vec();
    }
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(layer).unwrap();
    out.finish().unwrap()
}

impl Layout {
    pub fn new(dir: &Path, layers: &[Vec<u8>], packing: Packing) -> Layout {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        let mut layout = Layout {
            dir: dir.to_owned(),
            manifest: String::new(),
            config: String::new(),
            layers: Vec::new(),
        };
        layout.write("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        let mut descriptors = Vec::new();
        for (n, layer) in layers.iter().enumerate() {
            let gzip = packing == Packing::Mixed && n % 2 == 0;
            let bytes = match packing {
                Packing::Zstd => zstd::bulk::compress(layer, 1).unwrap(),
                _ => packed(layer, gzip),
            };
            let kind = match (packing, gzip) {
                (Packing::Zstd, _) => "tar+zstd",
                (_, true) => "tar+gzip",
                (_, false) => "tar",
            };
            let kind = format!("application/vnd.oci.image.layer.v1.{kind}");
            descriptors.push(layout.add(&bytes, &kind));
            layout.layers.push(digest(&bytes));
        }
        let ids: Vec<_> = layers
            .iter()
            .map(|l| format!("sha256:{}", digest(l)))
            .collect();
        let architecture = architecture();
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux",
            "config": {
                "Entrypoint": ["/entry", "point"], "Cmd": ["serve"], "Env": ["PATH=/bin", "A=b=c"],
                "WorkingDir": "/srv", "User": "1000:50", "StopSignal": "SIGINT",
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            },
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        layout.config = layout.describe(&config, &descriptors.into());
        layout
    }

    /// Writes configuration, manifest and index; gives the digest of the configuration.
    fn describe(&mut self, config: &serde_json::Value, layers: &serde_json::Value) -> String {
        let bytes = serde_json::to_vec(config).unwrap();
        let config = self.add(&bytes, "application/vnd.oci.image.config.v1+json");
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let mut descriptor = self.add(&manifest, MANIFEST);
        descriptor["annotations"] =
            serde_json::json!({"org.opencontainers.image.ref.name": "latest"});
        self.manifest = digest(&manifest);
        self.index(&[descriptor]);
        digest(&bytes)
    }

    fn index(&self, manifests: &[serde_json::Value]) {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        self.write("index.json", &index.to_string());
    }

    fn add(&self, bytes: &[u8], kind: &str) -> serde_json::Value {
        let hex = digest(bytes);
        fs::write(self.blob(&hex), bytes).unwrap();
        serde_json::json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    }

    pub fn blob(&self, hex: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(hex)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).unwrap();
    }

    /// Changes a byte in the middle of a blob.
    pub fn flip(&self, hex: &str) {
        let mut bytes = fs::read(self.blob(hex)).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(self.blob(hex), bytes).unwrap();
    }

    fn json(&self, hex: &str) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.blob(hex)).unwrap()).unwrap()
    }

    /// Another configuration, with all digests right.
    pub fn change_config(&self, change: &dyn Fn(&mut serde_json::Value)) {
        let mut config = self.json(&self.config);
        change(&mut config);
        let mut other = Layout {
            dir: self.dir.clone(),
            manifest: String::new(),
            config: String::new(),
            layers: Vec::new(),
        };
        let layers = self.json(&self.manifest)["layers"].clone();
        other.describe(&config, &layers);
    }

    fn descriptor(&self, name: &str) -> serde_json::Value {
        let len = fs::metadata(self.blob(&self.manifest)).unwrap().len();
        serde_json::json!({
            "mediaType": MANIFEST, "digest": format!("sha256:{}", self.manifest), "size": len,
            "annotations": {"org.opencontainers.image.ref.name": name},
        })
    }

    /// An index in an index, for several platforms of which only ours is there.
    pub fn with_platforms(&self) {
        let config = self.json(&self.config);
        let mut ours = self.descriptor("latest");
        ours["platform"] =
            serde_json::json!({"os": "linux", "architecture": config["architecture"]});
        let absent = serde_json::json!({
            "digest": format!("sha256:{}", "0".repeat(64)), "size": 7,
            "platform": {"os": "linux", "architecture": "s390x"},
        });
        let mut attestation = absent.clone();
        attestation["platform"] = serde_json::json!({"os": "unknown", "architecture": "unknown"});
        let inner =
            serde_json::json!({"schemaVersion": 2, "manifests": [absent, ours, attestation]});
        let inner = self.add(inner.to_string().as_bytes(), INDEX);
        self.index(&[inner]);
    }

    /// Indices that refer to indices, five deep.
    pub fn refer_to_itself(&self) {
        let mut descriptor = self.descriptor("x");
        for _ in 0..5 {
            let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor]});
            descriptor = self.add(index.to_string().as_bytes(), INDEX);
        }
        self.index(&[descriptor]);
    }

    /// Two images.
    pub fn twice(&self) {
        let mut other = self.descriptor("two");
        let bytes = [fs::read(self.blob(&self.manifest)).unwrap(), b" ".to_vec()].concat();
        let added = self.add(&bytes, MANIFEST);
        other["digest"] = added["digest"].clone();
        other["size"] = added["size"].clone();
        self.index(&[self.descriptor("one"), other]);
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// This machine's, as image archives call it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
