//! From an archive to an image: read once as it comes in, flattened, and read again to be put in place. Nothing of it is
//! ever a file of this machine, so no rights are needed.

use super::bundle::Seen;
use super::{Import, ROOM_MIB, Said, check_superblock, spool};
use crate::flatten::{Flatten, Flattened};
use crate::layer::{self, Blob, Content, Digests, End, Entry, Form, Sum, Tapped, Unpacked, Watch};
use crate::manifest::{HOME_FILE, ROOTFS_FILE};
use crate::oci;
use crate::place::place_hashed;
use crate::staging::Staging;
use crate::{Error, ImageStore, Progress, Result, digest, home};
use banger_ext4::{Layout, Options, Tree};
use banger_host::{Clock, Files, Tools};
use banger_model::ImageLayer;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What is kept of the source until it was read again.
pub(super) const SPOOL: &str = "source";
/// An archive of layers, unpacked so that each of them can be read by itself.
const UNPACKED: &str = "archive";

/// An image without a file system yet.
pub(super) struct Assembled {
    content: Flattened,
    layers: Vec<Blob>,
    /// What it is made of: the same is the same image. Its UUID is made of this; what the image is, its own digest says.
    made_of: String,
    pub(super) said: Said,
}

impl<H: Files + Tools + Clock + Send + Sync> ImageStore<H> {
    /// Makes the image's file system of an archive that a [`spool::Spool`] keeps while it is read here.
    pub(super) fn import_archive(
        &self,
        staging: &Staging,
        archive: Unpacked<'_>,
        import: &Import,
        progress: &dyn Progress,
    ) -> Result<Said> {
        let room = || self.check_room(ROOM_MIB);
        let watch = || Watch::new(&self.limits, &room, progress);
        let spooled = staging.dir().join(SPOOL);
        let is_plain = archive.is_plain();
        let mut sum = Sum::default();
        let archive = archive.through(|inner| Tapped::new(inner, &mut sum));
        let mut root = Flatten::new(&self.limits, Form::Flat);
        let mut seen = Seen::default();
        let mut take = |entry| {
            seen.take(&entry);
            root.take(entry)
        };
        layer::index(archive, Form::Flat, End::Marked, &watch(), &mut take)?;
        if root.taken() == 0 {
            return Err(Error::NotAnImage("the archive has no entries".to_owned()));
        }
        if let Some(bundle) = seen.bundle(oci::is_root(&root))? {
            progress.stage("unpacking the bundle");
            let rootfs = staging.image().join(ROOTFS_FILE);
            let said = bundle.unpack(&spooled, &rootfs, &watch().again())?;
            let len = rootfs.metadata().map_or(0, |meta| meta.len());
            check_superblock(&rootfs, len)?;
            return Ok(said);
        }
        let mut assembled = if oci::is_archive(&root) {
            progress.stage("reading the image's layers");
            let file = match is_plain {
                true => open(&spooled)?,
                false => {
                    let to = staging.dir().join(UNPACKED);
                    unpack(&spooled, &to, &watch().again())?;
                    open(&to)?
                }
            };
            let found = oci::read(&root, &file.file, import.only.as_deref())?;
            assemble(found, &watch().again())?
        } else {
            if let Some(only) = &import.only {
                return Err(Error::NotInArchive {
                    wanted: layer::shown(only.as_bytes()),
                    has: "one root file system".to_owned(),
                });
            }
            Assembled {
                content: root.finish(),
                layers: vec![open(&spooled)?],
                made_of: format!("a flat archive of {} bytes, {:08x}", sum.len, sum.crc32c),
                said: Said::default(),
            }
        };
        assembled.said.digest =
            self.write_image(staging, &assembled, &watch().again(), progress)?;
        Ok(assembled.said)
    }

    /// Writes the file system and what is kept beside it; tells the file system's digest where that was made meanwhile.
    pub(super) fn write_image(
        &self,
        staging: &Staging,
        assembled: &Assembled,
        watch: &Watch<'_>,
        progress: &dyn Progress,
    ) -> Result<Option<String>> {
        let Flattened { tree, winners } = &assembled.content;
        let layout = lay_out(tree, &assembled.made_of)?;
        let mib = layout.size() >> 20;
        self.check_room(mib + ROOM_MIB / 2)?;
        let count = tree.inodes.len();
        progress.stage(&format!("writing {count} files into {mib} MiB of ext4"));
        let image = staging.image();
        let rootfs = spool::create(&image.join(ROOTFS_FILE)).map_err(Error::unwritten)?;
        rootfs.set_len(layout.size()).map_err(Error::unwritten)?;
        let written = layout.write_metadata(tree, &rootfs);
        written.map_err(Error::unwritten)?;
        let digest = place_hashed(&assembled.layers, winners, (&layout, &rootfs), watch)?;
        keep_home(&image.join(HOME_FILE), tree, (&layout, &rootfs), watch)?;
        Ok(digest)
    }
}

/// Free space of an image, holes in its file. Who writes to a snapshot of it has no other, and the kernel keeps up to
/// 16 MiB of it back (`ext4_set_resv_clusters`): where there is no more, what was written is lost at the flush.
const SPARE: u64 = 32 << 20;

/// Removes what the image was made of while it is checked: who waits for the image does not wait for that.
pub(super) fn forget_sources(staging: &Staging) {
    for name in [SPOOL, UNPACKED] {
        // What is left goes with the staging directory.
        let _ = std::fs::remove_file(staging.dir().join(name));
    }
}

/// Decides where everything lies. A base is mounted `ro,noload` as it is; a clone of it grows, so it has inodes for more.
fn lay_out(tree: &Tree, made_of: &str) -> Result<Layout> {
    let uuid = digest::uuid_bytes(&format!("banger image 1 of {made_of}"));
    let mut options = Options::new(uuid);
    options.label[..11].copy_from_slice(b"banger-base");
    options.spare_bytes = SPARE;
    Layout::new(tree, &options).map_err(Error::from)
}

/// Keeps `/root` beside the image, for new work disks (R-GUEST-7); it is read from where it was just written.
fn keep_home(
    path: &Path,
    tree: &Tree,
    (layout, rootfs): (&Layout, &File),
    watch: &Watch<'_>,
) -> Result<()> {
    let read = |inode, mut offset: u64, mut bytes: &mut [u8]| -> io::Result<()> {
        while !bytes.is_empty() {
            let (at, here) = layout
                .position(inode, offset)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            let n = usize::try_from(here).map_or(bytes.len(), |n| n.min(bytes.len()));
            let (now, rest) = bytes.split_at_mut(n);
            rootfs.read_exact_at(now, at)?;
            (bytes, offset) = (rest, offset + n as u64);
        }
        Ok(())
    };
    let fetch = |inode, offset, bytes: &mut [u8]| {
        watch.go_on(None)?;
        read(inode, offset, bytes).map_err(Error::unwritten)
    };
    home::keep(path, tree, &fetch)
}

/// Puts the layers of an archive's image on top of each other, oldest first.
pub(super) fn assemble(archive: oci::Archive, watch: &Watch<'_>) -> Result<Assembled> {
    let oci::Archive {
        layers,
        config,
        mut origin,
    } = archive;
    let read = watch.each(&layers, &|layer| read_layer(layer, watch))?;
    let mut image = Flatten::new(watch.limits(), Form::Layer);
    for (n, (layer, entries)) in read.into_iter().enumerate() {
        if n > 0 {
            image.next_layer();
        }
        origin.layers.push(layer);
        for entry in entries {
            image.take(entry)?;
        }
        watch.go_on(None)?;
    }
    // One tree that is to be run in two ways is two images.
    let run_as = serde_json::to_string(&config).map_err(|e| Error::BadArchive(e.to_string()))?;
    let mut made_of = format!("layers run as {run_as} of");
    for layer in &layers {
        made_of.push(' ');
        made_of.push_str(&layer.diff_id);
    }
    Ok(Assembled {
        content: image.finish(),
        made_of,
        layers: layers.into_iter().map(|layer| layer.blob).collect(),
        said: Said {
            config: Some(config),
            origin: Some(origin),
            ..Said::default()
        },
    })
}

/// What is in a layer, its digests proven.
fn read_layer(layer: &oci::Layer, watch: &Watch<'_>) -> Result<(ImageLayer, Vec<Entry>)> {
    let (mut packed, mut unpacked) = (Digests::default(), Digests::default());
    let mut entries = Vec::new();
    let mut reader = Tapped::new(layer.blob.reader(), &mut packed);
    let Content::Tar(stream) = layer::open(&mut reader)? else {
        let why = "a layer is no tar".to_owned();
        return Err(Error::BadArchive(why));
    };
    let is_plain = stream.is_plain();
    let stream = match is_plain {
        true => stream,
        false => stream.through(|inner| Tapped::new(inner, &mut unpacked)),
    };
    let mut take = |entry| {
        entries.push(entry);
        Ok(())
    };
    layer::index(stream, Form::Layer, End::Open, watch, &mut take)?;
    let unpacked = if is_plain { &packed } else { &unpacked };
    let found = ImageLayer {
        sha256: packed.sha256(),
        diff_id: unpacked.sha256(),
        size: packed.len,
        unpacked: unpacked.len,
    };
    let told = layer.sha256.as_ref();
    let proven = told.is_none_or(|told| *told == found.sha256);
    if !proven || layer.diff_id != found.diff_id {
        return Err(Error::BadArchive(format!(
            "the bytes of layer {} are not those of its digest",
            layer.sha256.as_ref().unwrap_or(&layer.diff_id)
        )));
    }
    Ok((found, entries))
}

/// Unpacks what is packed as a whole.
fn unpack(from: &Path, to: &Path, watch: &Watch<'_>) -> Result<()> {
    let blob = open(from)?;
    let mut reader = blob.reader();
    let Content::Tar(mut stream) = layer::open(&mut reader)? else {
        return Err(Error::Truncated);
    };
    let file = spool::create(to).map_err(Error::unwritten)?;
    let (mut buffer, mut mark, mut at) = (vec![0; 1 << 20], layer::Mark::default(), 0);
    loop {
        let n = io::Read::read(&mut stream, &mut buffer).map_err(Error::damaged)?;
        if n == 0 {
            return Ok(());
        }
        let written = file.write_all_at(&buffer[..n], at);
        written.map_err(Error::unwritten)?;
        at += n as u64;
        watch.look_up(&stream, &mut mark)?;
    }
}

pub(super) fn open(path: &Path) -> Result<Blob> {
    let unreadable = |source| Error::Read {
        path: PathBuf::from(path),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let len = file.metadata().map_err(unreadable)?.len();
    Ok(Blob {
        file: Arc::new(file),
        start: 0,
        len,
    })
}
