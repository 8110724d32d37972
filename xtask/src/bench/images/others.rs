//! What the same bytes are given to besides: a copy with its digest, and the programs that made an image of an archive
//! before there was one that does it all.

use std::path::Path;
use std::process::Stdio;

use crate::run;

/// Makes what it makes of a source in a directory that is empty before; all of it is on the disk when it ends.
pub type Other = fn(&Path, &Path) -> Result<(), String>;

/// The least that can be done with so many bytes.
pub fn copied(archive: &Path, into: &Path) -> Result<(), String> {
    sh(
        "cp -- \"$1\" \"$2/copy\"; sha256sum <\"$2/copy\" >\"$2/sum\"; sync \"$2/copy\"",
        archive,
        into,
    )
}

/// The way for who is not root: unpacked as one's own, made a file system, and then every inode is given its owner.
pub fn unpacked(archive: &Path, into: &Path) -> Result<(), String> {
    let script = "mkdir \"$2/root\"; tar --no-same-owner -xpf \"$1\" -C \"$2/root\"; truncate -s 1G \"$2/disk\"; \
                  mke2fs -q -t ext4 -d \"$2/root\" \"$2/disk\"; \
                  find \"$2/root\" -mindepth 1 -printf 'sif \"/%P\" uid 0\\nsif \"/%P\" gid 0\\n' >\"$2/owners\"; \
                  debugfs -w -f \"$2/owners\" \"$2/disk\" >\"$2/told\" 2>&1; sync \"$2/disk\"";
    sh(script, archive, into)
}

/// An OCI layout; umoci reads gzip alone, so skopeo packs again what is packed otherwise.
pub fn converted(layout: &Path, into: &Path) -> Result<(), String> {
    let script = format!("skopeo {COPY} \"oci:$1:latest\" \"oci:$2/oci:latest\"; {UNPACK}");
    sh(&script, layout, into)
}

/// An image in a registry on this machine; the path is its name.
pub fn pulled(name: &Path, into: &Path) -> Result<(), String> {
    let copy = format!("{COPY} --src-tls-verify=false");
    let script = format!("skopeo {copy} \"docker://$1\" \"oci:$2/oci:latest\"; {UNPACK}");
    sh(&script, name, into)
}

const COPY: &str = "copy --insecure-policy -q --dest-compress --dest-compress-format gzip";
const UNPACK: &str = "umoci unpack --image \"$2/oci:latest\" \"$2/root\" 2>\"$2/told\"; truncate -s 1G \"$2/disk\"; \
                      mke2fs -q -t ext4 -d \"$2/root/rootfs\" \"$2/disk\"; sync \"$2/disk\"";

/// Runs a script of the shell with two paths.
///
/// # Errors
/// It fails.
pub fn sh(script: &str, one: &Path, two: &Path) -> Result<(), String> {
    let mut sh = run::command("sh");
    sh.args(["-ec", script, "sh"]).args([one, two]);
    run::to_end(sh, "a script")
}

/// Whether a program is here.
pub fn has(program: &str) -> bool {
    let mut version = run::command(program);
    version.arg("--version").stdout(Stdio::null());
    version.stderr(Stdio::null()).status().is_ok()
}
