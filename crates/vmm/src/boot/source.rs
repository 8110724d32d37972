//! Where a kernel comes from: a Debian package, a tar of a directory, or a kernel's file alone (R-IMG-7).
//!
//! What it is, is told by its content. Everything in it was written by somebody else: names, sizes and ends are checked,
//! and what a file unfolds to is bounded.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tar::{EntryType, PaxExtensions};
use thiserror::Error;

use super::deb::{self, DebError, Walk};
use super::elf;
use super::survey::{image_rank, in_tree};
use super::unpack::{Cancellable, Cancelled, Packing, reader};

/// The largest kernel image, packed or not, and the largest package; Debian's largest have 60 and 110 MB.
pub const LARGEST_IMAGE: u64 = 512 << 20;
/// The most that an archive unfolds to; all modules of Debian's largest kernel have 400 MB.
pub const LARGEST_TREE: u64 = 4 << 30;
/// The longest name, and the longest header that carries one.
const LONGEST_NAME: u64 = 4096;
const LONGEST_HEADER: u64 = 64 << 10;
/// The longest path, and the deepest, of a file: with the directory of ours before it, it can still be named and removed.
const LONGEST_PATH: usize = 1024;
const DEEPEST_PATH: usize = 32;
/// Links with a kernel's name that are remembered, to tell the first of them.
const TOLD_LINKS: usize = 8;
/// Where the boot protocol has its mark.
const HDRS_AT: usize = 0x202;

/// Something that a kernel can be taken out of.
#[derive(Debug)]
pub enum KernelSource {
    /// The Debian packages that a kernel is in, in memory.
    Packages(Vec<Vec<u8>>),
    /// A tar archive, plain or packed.
    Archive(PathBuf),
    /// A kernel image alone, in memory.
    Image(Vec<u8>),
}

/// Why a source cannot be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// No content that is known.
    #[error(
        "this is no kernel: neither a vmlinux, a bzImage, a Debian package nor a tar of a directory with one"
    )]
    Unknown,
    /// A file that no kernel has.
    #[error("{what} is larger than {} MiB", .limit >> 20)]
    TooLarge {
        /// Which.
        what: String,
        /// What is allowed.
        limit: u64,
    },
    /// It cannot be read here.
    #[error("it cannot be read")]
    Read {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The package is damaged.
    #[error(transparent)]
    Package(#[from] DebError),
    /// The archive is damaged, or cannot be a kernel's.
    #[error("the archive is damaged")]
    Archive {
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is called for each file: its path, and its content.
pub type Visit<'a> = dyn FnMut(&str, &mut dyn Read) -> io::Result<Walk> + 'a;

impl KernelSource {
    /// Looks what is in a file.
    ///
    /// # Errors
    /// Nothing that a kernel comes in, or it was cancelled.
    pub fn of_file(path: &Path, cancelled: &Cancelled<'_>) -> Result<KernelSource, SourceError> {
        let read = |source| SourceError::Read { source };
        let mut file = File::open(path).map_err(read)?;
        let mut head = Vec::new();
        (&mut file)
            .take(0x400)
            .read_to_end(&mut head)
            .map_err(read)?;
        let whole = |what: &str| {
            let bytes = std::fs::metadata(path).map_err(read)?.len();
            if bytes > LARGEST_IMAGE {
                return Err(SourceError::TooLarge {
                    what: what.to_owned(),
                    limit: LARGEST_IMAGE,
                });
            }
            std::fs::read(path).map_err(read)
        };
        if head.starts_with(b"!<arch>\n") {
            return whole("the package").map(|deb| KernelSource::Packages(vec![deb]));
        }
        if is_image(&head) {
            return whole("the kernel").map(KernelSource::Image);
        }
        let unfolded = match Packing::of(&head) {
            None => head,
            // A packed archive; a kernel's file that is packed itself (`vmlinux.xz`) is unfolded for nobody.
            Some(_) => {
                let mut start = Vec::new();
                let tar = open_archive(path, cancelled).map_err(|_| SourceError::Unknown)?;
                tar.take(512)
                    .read_to_end(&mut start)
                    .map_err(|_| SourceError::Unknown)?;
                start
            }
        };
        match unfolded.get(257..262) == Some(b"ustar") {
            true => Ok(KernelSource::Archive(path.to_owned())),
            false => Err(SourceError::Unknown),
        }
    }

    /// Calls `visit` with path and content of each regular file. What comes back are paths that name a kernel and are
    /// links, the first ones.
    ///
    /// # Errors
    /// Damage, what `visit` returns, or it was cancelled.
    pub fn for_each_file(
        &self,
        cancelled: &Cancelled<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<Vec<String>, SourceError> {
        match self {
            KernelSource::Packages(debs) => {
                let (mut done, mut links) = (false, Vec::new());
                for deb in debs {
                    let mut seen = |path: &str, body: &mut dyn Read| {
                        let walk = visit(path, body)?;
                        done |= walk == Walk::Done;
                        Ok(walk)
                    };
                    links.extend(deb::for_each_file(deb, cancelled, &mut seen)?);
                    if done {
                        break;
                    }
                }
                Ok(links)
            }
            KernelSource::Image(image) => {
                let name = if elf::is_elf(image) {
                    "vmlinux"
                } else {
                    "vmlinuz"
                };
                let seen = visit(name, &mut image.as_slice());
                seen.map(|_| Vec::new())
                    .map_err(|source| SourceError::Archive { source })
            }
            KernelSource::Archive(path) => {
                let walked =
                    open_archive(path, cancelled).and_then(|tar| walk_tar(tar, cancelled, visit));
                walked.map_err(|source| SourceError::Archive { source })
            }
        }
    }
}

fn is_image(head: &[u8]) -> bool {
    elf::is_elf(head) || head.get(HDRS_AT..HDRS_AT + 4) == Some(b"HdrS")
}

/// The plain tar in a file, packed or not.
fn open_archive<'a>(path: &Path, cancelled: &'a Cancelled<'a>) -> io::Result<Box<dyn Read + 'a>> {
    // Asked below the decoder too: packed data may go on without unfolding to anything.
    let inner = File::open(path)?;
    let file = Cancellable { inner, cancelled };
    let mut file = io::BufReader::with_capacity(256 << 10, file);
    let head = io::BufRead::fill_buf(&mut file)?;
    match Packing::of(head) {
        None => Ok(Box::new(file)),
        Some(packing) => reader(packing, file).map_err(io::Error::other),
    }
}

/// Counts what is read, and how many zeros came last: an archive ends with a block of them.
struct Counted<R> {
    inner: R,
    left: u64,
    zeros: usize,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::other(format!(
                "it unfolds to more than {} MiB",
                LARGEST_TREE >> 20
            ))
        })?;
        let zeros = buffer[..n].iter().rev().take_while(|b| **b == 0).count();
        self.zeros = if zeros == n { self.zeros + n } else { zeros };
        Ok(n)
    }
}

/// What is to be done about something in an archive that is no regular file. A second name of a module is content that
/// would be missed; a name of a kernel is told if there is no other one.
fn no_file(path: &str, kind: EntryType, links: &mut Vec<String>) -> io::Result<()> {
    let path = path.trim_start_matches("./");
    let is_image = image_rank(path).is_some();
    if is_image && (kind.is_symlink() || kind.is_hard_link()) && links.len() < TOLD_LINKS {
        links.push(path.to_owned());
    }
    if kind.is_hard_link() && !is_image && in_tree(path).is_some() {
        return Err(io::Error::other(format!(
            "{path} is a hard link; pack it with --hard-dereference"
        )));
    }
    Ok(())
}

/// Calls `visit` with path and content of each regular file of a plain tar; see [`KernelSource::for_each_file`].
pub(super) fn walk_tar(
    tar: Box<dyn Read + '_>,
    cancelled: &Cancelled<'_>,
    visit: &mut Visit<'_>,
) -> io::Result<Vec<String>> {
    let counted = Counted {
        inner: Cancellable {
            inner: tar,
            cancelled,
        },
        left: LARGEST_TREE,
        zeros: 0,
    };
    let mut archive = tar::Archive::new(counted);
    let mut named: Option<String> = None;
    let mut links = Vec::new();
    // Raw: a header that says it is a name of a gigabyte is not read into memory.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                let name = header_text(&mut entry, LONGEST_NAME)?;
                named = Some(text(name.split(|b| *b == 0).next().unwrap_or_default())?);
                continue;
            }
            EntryType::XHeader => {
                let header = header_text(&mut entry, LONGEST_HEADER)?;
                for extension in PaxExtensions::new(&header) {
                    let extension = extension?;
                    if extension.key_bytes() == b"path" {
                        named = Some(text(extension.value_bytes())?);
                    }
                    if extension.key_bytes().starts_with(b"GNU.sparse.") {
                        let what = "a file in it is sparse; pack it without --sparse";
                        return Err(io::Error::other(what));
                    }
                    if extension.key_bytes() == b"size" {
                        return Err(io::Error::other("a file of more than 8 GiB is announced"));
                    }
                }
                continue;
            }
            EntryType::XGlobalHeader | EntryType::GNULongLink => continue,
            _ => {}
        }
        let path = match named.take() {
            Some(path) => path,
            None => text(&entry.header().path_bytes())?,
        };
        if kind == EntryType::GNUSparse {
            return Err(io::Error::other(format!(
                "{path} is a sparse file; pack it without --sparse"
            )));
        }
        if !kind.is_file() {
            no_file(&path, kind, &mut links)?;
            continue;
        }
        let path = path.trim_start_matches("./");
        check_name(path)?;
        let mut body = Whole {
            left: entry.size(),
            inner: &mut entry,
        };
        if visit(path, &mut body)? == Walk::Done {
            return Ok(links);
        }
    }
    if archive.into_inner().zeros < 512 {
        return Err(cut());
    }
    Ok(links)
}

/// A body that ends early is an error, never a shorter file.
struct Whole<'a> {
    left: u64,
    inner: &'a mut dyn Read,
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(n as u64);
        match n == 0 && !buffer.is_empty() && self.left > 0 {
            true => Err(cut()),
            false => Ok(n),
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut short")
}

fn header_text(entry: &mut dyn Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::other("a name in it is too long")),
        false => Ok(bytes),
    }
}

fn text(bytes: &[u8]) -> io::Result<String> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned)
        .map_err(|_| io::Error::other("a name in it is no text"))
}

/// Names are used as paths below a directory of ours.
fn check_name(path: &str) -> io::Result<()> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.contains('\0')
        || path.split('/').any(|part| part == "..");
    let told = |why| {
        let start: String = path.chars().take(100).collect();
        Err(io::Error::other(format!("the name {start:?} {why}")))
    };
    if bad {
        return told("leads out of it");
    }
    match path.len() > LONGEST_PATH || path.split('/').count() > DEEPEST_PATH {
        true => told("and what follows is longer or deeper than any kernel's"),
        false => Ok(()),
    }
}

/// The content of a file, if no kernel has a larger one.
///
/// # Errors
/// It is larger, or cannot be read.
pub fn bytes_of(body: &mut dyn Read, what: &str, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::other(format!(
            "{what} is larger than {} MiB",
            limit >> 20
        ))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::boot::bzimage::tests::bzimage;
    use crate::boot::deb::tests::tiny_deb;
    use crate::boot::elf::tests::tiny_vmlinux;

    /// A tar as `tar -C DIR .` writes it.
    pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("./{path}"), *bytes)
                .unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn seen(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("source");
        std::fs::write(&path, bytes).unwrap();
        let mut files = Vec::new();
        let told = |e: SourceError| {
            let why = std::error::Error::source(&e)
                .map(|e| e.to_string())
                .unwrap_or_default();
            format!("{e}: {why}")
        };
        KernelSource::of_file(&path, &|| false)
            .map_err(told)?
            .for_each_file(&|| false, &mut |path, body| {
                files.push((path.to_owned(), bytes_of(body, path, 1 << 20)?));
                Ok(Walk::On)
            })
            .map_err(told)?;
        Ok(files)
    }

    #[test]
    fn packages_archives_and_images_are_told_apart_by_their_content() {
        let files: &[(&str, &[u8])] = &[("boot/vmlinuz-6", b"k"), ("lib/modules/6/x.ko", b"m")];
        let wanted: Vec<_> = files
            .iter()
            .map(|(p, b)| ((*p).to_owned(), b.to_vec()))
            .collect();
        let tar = tar_of(files);
        for source in [
            tiny_deb(files, true),
            tar.clone(),
            zstd::bulk::compress(&tar, 1).unwrap(),
        ] {
            assert_eq!(seen(&source).unwrap(), wanted);
        }
        let elf = tiny_vmlinux(true);
        assert_eq!(seen(&elf).unwrap(), [("vmlinux".to_owned(), elf)]);
        let image = bzimage(b"x");
        assert_eq!(seen(&image).unwrap(), [("vmlinuz".to_owned(), image)]);
        for other in [
            &b""[..],
            b"#!/bin/sh\n",
            &zstd::bulk::compress(b"hello", 1).unwrap(),
        ] {
            assert!(seen(other).unwrap_err().contains("this is no kernel"));
        }
    }

    #[test]
    fn long_names_are_whole() {
        let long = format!("lib/modules/6/{}x.ko", "deeply/".repeat(20));
        assert_eq!(
            seen(&tar_of(&[(&long, b"m")])).unwrap(),
            [(long, b"m".to_vec())]
        );
    }

    /// What is unpacked below a directory of ours must be there to be removed.
    #[test]
    fn names_that_no_directory_of_ours_has_room_for_are_refused() {
        let named = |path: &str| seen(&tar_of(&[(path, b"m")]));
        let deep = |depth: usize| format!("{}x.ko", "d/".repeat(depth - 1));
        let long = |bytes: usize| {
            let part = format!("{}/", "n".repeat(255));
            format!("{}{}", part.repeat(3), "x".repeat(bytes - 3 * part.len()))
        };
        assert_eq!(named(&deep(DEEPEST_PATH)).unwrap().len(), 1);
        assert_eq!(named(&long(LONGEST_PATH)).unwrap().len(), 1);
        for name in [deep(DEEPEST_PATH + 1), long(LONGEST_PATH + 1)] {
            let told = named(&name).unwrap_err();
            assert!(told.contains("longer or deeper"), "{told}");
        }
    }

    #[test]
    fn a_cut_archive_is_never_a_shorter_one() {
        let tar = tar_of(&[("vmlinux", &[7; 700]), ("config", b"x")]);
        // Up to the block of zeros behind the last file.
        for at in (512..=3 * 512 + 1024).step_by(64) {
            let told = seen(&tar[..at]).unwrap_err();
            assert!(
                told.contains("damaged") || told.contains("no kernel"),
                "{at}: {told}"
            );
        }
        assert!(seen(&tar).is_ok());
    }

    #[test]
    fn names_that_lead_out_and_names_without_end_are_refused() {
        let with_name = |name: &[u8]| {
            let mut tar = tar_of(&[("vmlinux", b"x")]);
            tar[..100].fill(0);
            tar[..name.len()].copy_from_slice(name);
            let mut header = tar::Header::from_byte_slice(&tar[..512]).clone();
            header.set_cksum();
            tar[..512].copy_from_slice(header.as_bytes());
            seen(&tar)
        };
        for name in [&b"../vmlinux"[..], b"/vmlinux", b"lib/modules/../../x"] {
            assert!(with_name(name).unwrap_err().contains("leads out of it"));
        }
        assert!(with_name(b"vml\xffnux").unwrap_err().contains("no text"));

        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 32);
        header.set_cksum();
        let endless = [header.as_bytes().as_slice(), &vec![b'a'; 1 << 20]].concat();
        assert!(seen(&endless).unwrap_err().contains("too long"));
    }

    #[test]
    fn second_names_of_files_are_no_empty_files() {
        let linked = |path: &str, kind: EntryType| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_entry_type(kind);
            tar.append_link(&mut header, path, "elsewhere").unwrap();
            seen(&tar.into_inner().unwrap())
        };
        let told = linked("lib/modules/6/b.ko", EntryType::Link).unwrap_err();
        assert!(told.contains("--hard-dereference"), "{told}");
        for (path, kind) in [
            ("lib/modules/6/build", EntryType::Symlink),
            ("lib/modules/6/build/b.h", EntryType::Link),
            ("boot/vmlinuz-6", EntryType::Link),
            ("etc/b", EntryType::Link),
        ] {
            assert_eq!(linked(path, kind).unwrap(), [], "{path}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_named() {
        let told = seen(&tar_of(&[("config", &vec![0; (1 << 20) + 1])])).unwrap_err();
        assert!(told.contains("config is larger than 1 MiB"), "{told}");
    }
}
