//! Archives made into images, against copies of the same bytes and against other tools.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use super::figures::median;
use super::home::{Home, peak};
use super::since;
use crate::run;

/// Alternating runs of each.
const RUNS: usize = 5;
/// Bytes of files in the archive.
const CONTENT: u64 = 300 << 20;
/// Layers of the image.
const LAYERS: usize = 5;

/// A flat archive of files of this machine, and the same files as an image of layers.
///
/// # Errors
/// When something that is to be measured does not work.
pub fn measure(home: &Home) -> Result<(), String> {
    let work = Work { dir: home.base() };
    eprintln!("==> archives of {} MiB of /usr", CONTENT >> 20);
    let lists = work.lists()?;
    let flat = work.archive("flat", &lists.concat())?;
    import(
        home,
        &work,
        "flat tar",
        &flat,
        &[
            ("cp and sha256sum, synced", copied),
            ("tar and mke2fs -d, synced", unpacked),
        ],
    )?;
    if !has("skopeo") || !has("umoci") {
        println!("an image of layers: skopeo and umoci are not both here, nothing to compare with");
        return Ok(());
    }
    let layout = work.layout(&lists)?;
    import(
        home,
        &work,
        "OCI layout of gzip layers",
        &layout,
        &[("skopeo, umoci and mke2fs -d, synced", converted)],
    )
}

/// What the same archive is given to besides: it makes what it makes in a directory that is empty before.
type Other = fn(&Path, &Path) -> Result<(), String>;

fn import(
    home: &Home,
    work: &Work,
    what: &str,
    source: &Path,
    others: &[(&str, Other)],
) -> Result<(), String> {
    let path = source.to_str().ok_or("a path that is not UTF-8")?;
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); others.len()];
    for run in 0..RUNS {
        eprintln!("==> {what}, run {} of {RUNS}", run + 1);
        let import = ["image", "import", path, "--name", "bench"];
        ours.push(home.timed(&import)?.whole);
        home.quiet(&["image", "delete", "bench"])?;
        for ((_, other), times) in others.iter().zip(&mut theirs) {
            let into = work.empty("other")?;
            let began = Instant::now();
            other(source, &into)?;
            times.push(since(began));
            remove(&into)?;
        }
    }
    let ours = median(&ours);
    for ((name, _), times) in others.iter().zip(&theirs) {
        let theirs = median(times);
        println!(
            "{what} to an image: {:.2} of {name} (medians of {RUNS}: {ours:.0} / {theirs:.0} ms)",
            ours / theirs
        );
    }
    println!("the daemon's memory at most: {} KiB", peak(home.daemon()?)?);
    Ok(())
}

fn copied(archive: &Path, into: &Path) -> Result<(), String> {
    sh(
        "cp -- \"$1\" \"$2/copy\"; sync \"$2/copy\"; sha256sum <\"$2/copy\" >\"$2/sum\"",
        archive,
        into,
    )
}

fn unpacked(archive: &Path, into: &Path) -> Result<(), String> {
    let script = "mkdir \"$2/root\"; tar -xpf \"$1\" -C \"$2/root\"; truncate -s 1G \"$2/disk\"; \
                  mke2fs -q -t ext4 -d \"$2/root\" \"$2/disk\"; sync \"$2/disk\"";
    sh(script, archive, into)
}

fn converted(layout: &Path, into: &Path) -> Result<(), String> {
    let script = "skopeo copy --insecure-policy -q \"oci:$1:latest\" \"oci:$2/oci:latest\"; \
                  umoci unpack --image \"$2/oci:latest\" \"$2/root\" 2>/dev/null; truncate -s 1G \"$2/disk\"; \
                  mke2fs -q -t ext4 -d \"$2/root/rootfs\" \"$2/disk\"; sync \"$2/disk\"";
    sh(script, layout, into)
}

/// Runs a script of the shell with two paths.
fn sh(script: &str, one: &Path, two: &Path) -> Result<(), String> {
    let mut sh = run::command("sh");
    sh.args(["-ec", script, "sh"]).args([one, two]);
    run::to_end(sh, "a script")
}

fn has(program: &str) -> bool {
    let mut version = run::command(program);
    version.arg("--version").stdout(Stdio::null());
    version.stderr(Stdio::null()).status().is_ok()
}

fn remove(dir: &Path) -> Result<(), String> {
    std::fs::remove_dir_all(dir).map_err(|e| format!("cannot remove {}: {e}", dir.display()))
}

/// The archives.
struct Work {
    dir: PathBuf,
}

impl Work {
    fn empty(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        Ok(dir)
    }

    /// Files of `/usr` in the order of their names, for each layer a part.
    fn lists(&self) -> Result<Vec<Vec<String>>, String> {
        let script = "find /usr -xdev -type f -readable -printf '%s %P\\n' | LC_ALL=C sort -k 2";
        let told = run::output(&self.dir, "sh", &["-ec", script])?;
        let mut lists = vec![Vec::new(); LAYERS];
        let mut sum = 0;
        for line in told.lines() {
            let Some((size, path)) = line.split_once(' ') else {
                continue;
            };
            let size: u64 = size
                .parse()
                .map_err(|e| format!("find said {line:?}: {e}"))?;
            if sum + size > CONTENT {
                continue;
            }
            let layer = usize::try_from(sum * LAYERS as u64 / CONTENT).unwrap_or(0);
            lists[layer.min(LAYERS - 1)].push(path.to_owned());
            sum += size;
        }
        Ok(lists)
    }

    fn archive(&self, name: &str, files: &[String]) -> Result<PathBuf, String> {
        let list = self.dir.join(format!("{name}.list"));
        std::fs::write(&list, files.join("\n"))
            .map_err(|e| format!("cannot write {}: {e}", list.display()))?;
        let archive = self.dir.join(format!("{name}.tar"));
        let script = "tar -C /usr --no-recursion --verbatim-files-from -T \"$1\" -cf \"$2\"";
        sh(script, &list, &archive)?;
        Ok(archive)
    }

    /// The files as an image: a directory of the OCI image layout.
    fn layout(&self, lists: &[Vec<String>]) -> Result<PathBuf, String> {
        let dir = self.empty("layout")?;
        let blobs = self.empty("layout/blobs/sha256")?;
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (n, files) in lists.iter().enumerate() {
            let tar = self.archive(&format!("layer{n}"), files)?;
            diff_ids.push(format!("sha256:{}", self.sha256(&tar)?));
            let packed = self.dir.join("packed");
            sh("gzip -c \"$1\" >\"$2\"", &tar, &packed)?;
            layers.push(self.keep(&packed, &blobs, "layer.v1.tar+gzip")?);
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
