//! The archives that are made into images: a Debian root.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::others::sh;
use crate::run;

/// What makes a root of Debian's important packages one of about 300 MiB.
const MORE: &str = "git,python3";
/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Layers of the image.
const LAYERS: usize = 5;

/// How an image's layers are packed.
#[derive(Debug, Clone, Copy)]
pub enum Packing {
    Gzip,
    Zstd,
}

/// What the archives have in them.
#[derive(Default)]
pub struct Content {
    /// Paths below the root, for each layer.
    pub lists: Vec<Vec<String>>,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes of the blocks of 4 KiB that any file system keeps them in: those of files and one for each directory.
    pub blocks: u64,
    directories: HashSet<PathBuf>,
}

impl Content {
    fn take(&mut self, layer: usize, size: u64, path: &str) {
        for directory in Path::new(path).ancestors().skip(1) {
            if self.directories.insert(directory.to_owned()) {
                self.blocks += BLOCK;
            }
        }
        self.bytes += size;
        self.blocks += size.next_multiple_of(BLOCK);
        self.lists[layer].push(path.to_owned());
    }
}

/// The archives.
pub struct Work {
    /// Where they are made.
    pub dir: PathBuf,
}

impl Work {
    /// A directory that is there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn empty(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        Ok(dir)
    }

    /// A Debian root as a user can have it: unpacked, without devices.
    ///
    /// # Errors
    /// It cannot be fetched or unpacked.
    pub fn root(&self) -> Result<(), String> {
        eprintln!("==> a Debian root (one to two minutes)");
        let script = "suite=$(. /etc/os-release; [ \"$ID\" = debian ] && echo \"$VERSION_CODENAME\" || echo bookworm); \
                      mmdebstrap -q --variant=important --include=\"$1\" \"$suite\" \"$2/root.tar\"; mkdir \"$2/root\"; \
                      tar -C \"$2/root\" --exclude='./dev/*' -xf \"$2/root.tar\"; rm \"$2/root.tar\"";
        sh(script, Path::new(MORE), &self.dir)
    }

    /// All of it, directory by directory in the order of their names; for each layer a part.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn content(&self) -> Result<Content, String> {
        let script = "find root -xdev -mindepth 1 \\( -type f -printf '%s\\t%h/\\t%P\\n' -o \\( -type d -o -type l \\) \
                      -printf '0\\t%h/\\t%P\\n' \\) | LC_ALL=C sort -t \"$(printf '\\t')\" -k 2";
        let told = run::output(&self.dir, "sh", &["-ec", script])?;
        let mut entries = Vec::new();
        for line in told.lines() {
            let bad = || format!("find said {line:?}");
            let (size, rest) = line.split_once('\t').ok_or_else(bad)?;
            let (_, path) = rest.split_once('\t').ok_or_else(bad)?;
            entries.push((size.parse::<u64>().map_err(|_| bad())?, path));
        }
        let all: u64 = entries.iter().map(|(size, _)| size).sum();
        let mut content = Content::default();
        content.lists.resize(LAYERS, Vec::new());
        for (size, path) in entries {
            let layer = usize::try_from(content.bytes * LAYERS as u64 / all.max(1)).unwrap_or(0);
            content.take(layer.min(LAYERS - 1), size, path);
        }
        Ok(content)
    }

    /// A tar of these files.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn archive(&self, name: &str, files: &[String]) -> Result<PathBuf, String> {
        let list = self.dir.join(format!("{name}.list"));
        std::fs::write(&list, files.join("\n"))
            .map_err(|e| format!("cannot write {}: {e}", list.display()))?;
        let archive = self.dir.join(format!("{name}.tar"));
        let script =
            "tar -C \"${1%/*}/root\" --no-recursion --verbatim-files-from -T \"$1\" -cf \"$2\"";
        sh(script, &list, &archive)?;
        Ok(archive)
    }

    /// The files as an image: a directory of the OCI image layout.
    ///
    /// # Errors
    /// They cannot be packed or kept.
    pub fn layout(&self, lists: &[Vec<String>], packing: Packing) -> Result<PathBuf, String> {
        let (pack, kind) = match packing {
            Packing::Gzip => ("gzip -c \"$1\" >\"$2\"", "layer.v1.tar+gzip"),
            Packing::Zstd => ("zstd -q -c \"$1\" >\"$2\"", "layer.v1.tar+zstd"),
        };
        let name = format!("layout-{packing:?}").to_lowercase();
        let dir = self.empty(&name)?;
        let blobs = self.empty(&format!("{name}/blobs/sha256"))?;
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (n, files) in lists.iter().enumerate() {
            let tar = self.archive(&format!("layer{n}"), files)?;
            diff_ids.push(format!("sha256:{}", self.sha256(&tar)?));
            let packed = self.dir.join("packed");
            sh(pack, &tar, &packed)?;
            layers.push(self.keep(&packed, &blobs, kind)?);
        }
        let config = self.document(&serde_json::json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))?;
        let config = self.keep(&config, &blobs, "config.v1+json")?;
        let manifest = self.document(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        }))?;
        let mut manifest = self.keep(&manifest, &blobs, "manifest.v1+json")?;
        manifest["annotations"] =
            serde_json::json!({"org.opencontainers.image.ref.name": "latest"});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
        for (name, text) in [
            ("index.json", index.to_string()),
            ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned()),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, text)
                .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        }
        Ok(dir)
    }

    fn document(&self, value: &serde_json::Value) -> Result<PathBuf, String> {
        let path = self.dir.join("document");
        std::fs::write(&path, value.to_string())
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(path)
    }

    /// Moves a file among the blobs; what a manifest says of it.
    fn keep(&self, file: &Path, blobs: &Path, kind: &str) -> Result<serde_json::Value, String> {
        let failed = |e| format!("cannot keep {}: {e}", file.display());
        let size = std::fs::metadata(file).map_err(failed)?.len();
        let hex = self.sha256(file)?;
        std::fs::rename(file, blobs.join(&hex)).map_err(failed)?;
        let media_type = format!("application/vnd.oci.image.{kind}");
        Ok(
            serde_json::json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": size}),
        )
    }

    fn sha256(&self, file: &Path) -> Result<String, String> {
        let path = file.to_str().ok_or("a path that is not UTF-8")?;
        let told = run::output(&self.dir, "sha256sum", &["--", path])?;
        Ok(told.split(' ').next().unwrap_or_default().to_owned())
    }
}
