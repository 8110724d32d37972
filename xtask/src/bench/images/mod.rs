//! Archives made into images, images pulled and listed: against copies of the same bytes and against other tools.

mod many;
mod others;
mod registry;
mod work;

use std::path::Path;
use std::time::Instant;

use super::figures::median;
use super::home::{self, Home};
use super::since;
use others::{Other, has};
use registry::Registry;
use work::{Content, Packing, Work};

/// Alternating runs of each.
const RUNS: usize = 5;

/// A flat archive of a Debian root, the same files as an image of layers, in a file and in a registry, and a list of many.
///
/// # Errors
/// When something that is to be measured does not work.
pub fn measure(home: &Home) -> Result<(), String> {
    let work = Work { dir: home.base() };
    home.quiet(&["image", "list"])?; // the daemon is there
    if !has("mmdebstrap") {
        println!("skipped: images (apt-get install mmdebstrap)");
        return Ok(());
    }
    work.root()?;
    let content = work.content()?;
    println!(
        "content: {} MiB of a Debian root in {} files, directories and links, {} MiB in blocks of 4 KiB",
        content.bytes >> 20,
        content.lists.iter().map(Vec::len).sum::<usize>(),
        content.blocks >> 20
    );
    let flat = work.archive("flat", &content.lists.concat())?;
    let to_do = Import::of(&flat, &content)?;
    let others: &[(&str, f64, Other)] = &[
        ("cp and sha256sum", 1.2, others::copied),
        ("tar, mke2fs -d and debugfs", 0.25, others::unpacked),
    ];
    import(home, &work, "flat tar", &to_do, others)?;
    layers(home, &work, &content)?;
    many::measure(home, &work)
}

/// The same files as layers, packed with gzip and with zstd.
fn layers(home: &Home, work: &Work, content: &Content) -> Result<(), String> {
    if !has("skopeo") || !has("umoci") {
        println!("skipped: an image of layers (apt-get install skopeo umoci)");
        return Ok(());
    }
    for packing in [Packing::Gzip, Packing::Zstd] {
        let layout = work.layout(&content.lists, packing)?;
        let what = format!("OCI layout, {packing:?} layers");
        let others: &[(&str, f64, Other)] =
            &[("skopeo, umoci and mke2fs -d", 1.0 / 3.0, others::converted)];
        let to_do = Import::of(&layout, content)?;
        import(home, work, &what, &to_do, others)?;
        if !has("docker-registry") {
            println!("skipped: a pull (apt-get install docker-registry)");
            continue;
        }
        let registry = Registry::start(&work.empty(&format!("registry-{packing:?}"))?)?;
        let name = registry.push(&layout)?;
        let what = format!("pull, {packing:?} layers");
        let others: &[(&str, f64, Other)] =
            &[("skopeo, umoci and mke2fs -d", 1.0 / 3.0, others::pulled)];
        import(
            home,
            work,
            &what,
            &Import::pull(&name, &layout, content)?,
            others,
        )?;
        home.quiet(&["image", "pull", &name])?;
        let before = registry.requests()?;
        let again = home.timed(&["image", "pull", &name])?.whole;
        let asked = registry.requests()?.split_off(before.len());
        let manifests = asked.iter().filter(|line| line.contains("/manifests/"));
        let blobs = asked.iter().filter(|line| line.contains("/blobs/"));
        println!(
            "second pull, {packing:?} layers: {again:.0} ms, {} requests for manifests, {} for blobs (target 1 and 0)",
            manifests.count(),
            blobs.count()
        );
        home.quiet(&["image", "delete", &name])?;
    }
    Ok(())
}

/// What is measured.
struct Import {
    /// The file, the directory or the name in a registry.
    source: String,
    pull: bool,
    /// Bytes of what is to be kept, and of the blocks it takes.
    content: [u64; 2],
}

impl Import {
    fn of(source: &Path, content: &Content) -> Result<Self, String> {
        Ok(Import {
            source: source
                .to_str()
                .ok_or("a path that is not UTF-8")?
                .to_owned(),
            pull: false,
            content: [content.bytes, content.blocks],
        })
    }

    /// The layers stay in the cache, and are content too.
    fn pull(name: &str, layout: &Path, content: &Content) -> Result<Self, String> {
        let failed = |e| format!("cannot list {}: {e}", layout.display());
        let mut content = [content.bytes, content.blocks];
        for blob in std::fs::read_dir(layout.join("blobs/sha256")).map_err(failed)? {
            let len = blob.and_then(|blob| blob.metadata()).map_err(failed)?.len();
            content = content.map(|bytes| bytes + len);
        }
        Ok(Import {
            source: name.to_owned(),
            pull: true,
            content,
        })
    }

    /// Milliseconds. A pull finds no blob here.
    fn timed(&self, home: &Home) -> Result<f64, String> {
        let blobs = home.state().join("blobs");
        if self.pull && blobs.exists() {
            remove(&blobs)?;
        }
        let args: &[&str] = match self.pull {
            true => &["image", "pull", &self.source, "--name", "bench"],
            false => &["image", "import", &self.source, "--name", "bench"],
        };
        Ok(home.timed(args)?.whole)
    }

    fn delete(&self, home: &Home) -> Result<(), String> {
        home.quiet(&["image", "delete", "bench"])?;
        if self.pull {
            home.quiet(&["image", "delete", &self.source])?;
        }
        Ok(())
    }
}

fn import(
    home: &Home,
    work: &Work,
    what: &str,
    import: &Import,
    others: &[(&str, f64, Other)],
) -> Result<(), String> {
    let daemon = home.daemon()?;
    home::forget_peak(daemon)?;
    let (mut ours, mut bytes) = (Vec::new(), Vec::new());
    let mut theirs = vec![Vec::new(); others.len()];
    for run in 0..RUNS {
        eprintln!("==> {what}, run {} of {RUNS}", run + 1);
        let before = home::written(daemon)?;
        ours.push(import.timed(home)?);
        bytes.push(home::written(daemon)? - before);
        import.delete(home)?;
        for ((_, _, other), times) in others.iter().zip(&mut theirs) {
            let into = work.empty("other")?;
            let began = Instant::now();
            other(Path::new(&import.source), &into)?;
            times.push(since(began));
            remove(&into)?;
        }
    }
    let ours = median(&ours);
    for ((name, target, _), times) in others.iter().zip(&theirs) {
        let theirs = median(times);
        println!(
            "{what} to an image / {name}: {:.2} (medians of {RUNS}: {ours:.0} / {theirs:.0} ms; target {target:.2})",
            ours / theirs
        );
    }
    bytes.sort_unstable();
    #[allow(clippy::cast_precision_loss, reason = "hundreds of megabytes")]
    let [bare, blocks] =
        (import.content).map(|content| bytes[bytes.len() / 2] as f64 / content as f64);
    println!(
        "{what}: the daemon's memory at most {} KiB (target 65536 and the inode table), bytes written / content in blocks {blocks:.2} (median; target 1.1), / bare bytes {bare:.2}",
        home::peak(daemon)?
    );
    Ok(())
}

fn remove(dir: &Path) -> Result<(), String> {
    std::fs::remove_dir_all(dir).map_err(|e| format!("cannot remove {}: {e}", dir.display()))
}
