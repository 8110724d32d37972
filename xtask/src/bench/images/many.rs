//! A list of many images.

use std::path::Path;

use super::super::figures::{median, spread};
use super::super::home::Home;
use super::super::{PAIRS, run};
use super::others::sh;
use super::work::Work;

/// Images in the list.
const IMAGES: usize = 500;

/// `image list` with many images against `version`, in alternating pairs.
///
/// # Errors
/// When something that is to be measured does not work.
pub fn measure(home: &Home, work: &Work) -> Result<(), String> {
    eprintln!("==> {IMAGES} images");
    let dir = work.empty("many")?;
    let tar = dir.join("one.tar");
    sh(
        "echo one >\"$2/one\"; tar -C \"$2\" -cf \"$1\" one",
        &tar,
        &dir,
    )?;
    let path = tar.to_str().ok_or("a path that is not UTF-8")?;
    let id = home.quiet(&["image", "import", path, "--name", "many-0"])?;
    copies(&home.state().join("images"), id.trim())?;
    let count = home.quiet(&["image", "list"])?.lines().count() - 1;
    if count < IMAGES {
        return Err(format!("{count} images are listed, and there are {IMAGES}"));
    }
    let (mut list, mut version) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let mut both: [(&[&str], &mut Vec<f64>); 2] = [
            (&["image", "list"], &mut list),
            (&["version"], &mut version),
        ];
        if pair % 2 != 0 {
            both.reverse();
        }
        for (args, into) in both {
            into.push(home.timed(args)?.whole);
        }
    }
    println!(
        "image list with {count} images / version: {:.2} ({} / {}; target 6)",
        median(&list) / median(&version),
        spread(&list),
        spread(&version)
    );
    Ok(())
}

/// Copies an image under other ids and names, as many imports would leave them.
fn copies(images: &Path, id: &str) -> Result<(), String> {
    let one = images.join(id);
    let text = std::fs::read_to_string(one.join("manifest.json"));
    let text = text.map_err(|e| format!("cannot read a manifest: {e}"))?;
    for n in 1..IMAGES {
        let other = format!("{n:012x}");
        let mut manifest: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| format!("a manifest: {e}"))?;
        let digest = manifest["digest"]
            .as_str()
            .unwrap_or_default()
            .replace(id, &other);
        manifest["id"] = other.clone().into();
        manifest["digest"] = digest.into();
        manifest["name"] = format!("many-{n}").into();
        manifest["names"] = serde_json::json!({format!("many-{n}"): n});
        let to = images.join(&other);
        let mut cp = run::command("cp");
        cp.args(["-r", "--sparse=always", "--"]).args([&one, &to]);
        run::to_end(cp, "cp")?;
        std::fs::write(to.join("manifest.json"), manifest.to_string())
            .map_err(|e| format!("cannot write a manifest: {e}"))?;
    }
    Ok(())
}
