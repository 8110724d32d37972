//! The archives that are made into images: files of this machine.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::others::sh;
use crate::run;

/// Bytes of files in the archive.
const CONTENT: u64 = 300 << 20;
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
    /// Paths below `/usr`, for each layer.
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

    /// Files of `/usr`, with directories and links: of so many directories, in the order of their names, one with all that
    /// is in it, and so again from the next, until it is enough. For each layer a part.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn content(&self) -> Result<Content, String> {
        let script = "find /usr -xdev -mindepth 1 -path /usr/local -prune -o \\( -type f -readable -size -16M \
                      -printf '%s\\t%h/\\t%P\\n' -o \\( -type d -o -type l \\) -printf '0\\t%h/\\t%P\\n' \\) | LC_ALL=C sort -t \"$(printf '\\t')\" -k 2";
        let told = run::output(&self.dir, "sh", &["-ec", script])?;
        let mut directories: Vec<(&str, Vec<(u64, &str)>)> = Vec::new();
        for line in told.lines() {
            let mut words = line.splitn(3, '\t');
            let mut word = || words.next().ok_or_else(|| format!("find said {line:?}"));
            let (size, directory, path) = (word()?, word()?, word()?);
            let size = size
                .parse()
                .map_err(|e| format!("find said {line:?}: {e}"))?;
            match directories
                .last_mut()
                .filter(|(last, _)| *last == directory)
            {
                Some((_, files)) => files.push((size, path)),
                None => directories.push((directory, vec![(size, path)])),
            }
        }
        let all = directories.iter().flat_map(|(_, files)| files);
        let all: u64 = all.map(|(size, _)| size).sum();
        let step = usize::try_from(all / CONTENT).unwrap_or(1).max(1);
        let turns = (0..step).flat_map(|from| directories.iter().skip(from).step_by(step));
        let mut content = Content::default();
        content.lists.resize(LAYERS, Vec::new());
        for (size, path) in turns.flat_map(|(_, files)| files) {
            if content.bytes >= CONTENT {
                break;
            }
            let layer = usize::try_from(content.bytes * LAYERS as u64 / CONTENT).unwrap_or(0);
            content.take(layer.min(LAYERS - 1), *size, path);
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
        let script = "tar -C /usr --no-recursion --verbatim-files-from -T \"$1\" -cf \"$2\"";
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
