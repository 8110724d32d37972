//! A writer of newc cpio archives, the format of an initramfs.
//!
//! Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux source. Deterministic: inode
//! numbers count up, times are zero, owners are root.

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpioEntry {
    /// Path without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: CpioKind,
}

/// The kinds of members that an initramfs of ours has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpioKind {
    /// A regular file with its bytes.
    File(Vec<u8>),
    /// A directory; parents must come first.
    Directory,
    /// A character device (major, minor).
    CharDevice(u32, u32),
}

impl CpioEntry {
    /// A regular file.
    pub fn file(path: impl Into<String>, mode: u32, bytes: Vec<u8>) -> CpioEntry {
        CpioEntry {
            path: path.into(),
            mode,
            kind: CpioKind::File(bytes),
        }
    }

    /// A directory with mode 0755.
    pub fn directory(path: impl Into<String>) -> CpioEntry {
        CpioEntry {
            path: path.into(),
            mode: 0o755,
            kind: CpioKind::Directory,
        }
    }
}

/// Writes a whole archive, trailer included, padded so that another archive can follow it.
pub fn write(entries: &[CpioEntry]) -> Vec<u8> {
    let payload: usize = entries
        .iter()
        .map(|e| body(e).len() + e.path.len() + 128)
        .sum();
    let mut out = Vec::with_capacity(payload + 1024);
    for (i, entry) in entries.iter().enumerate() {
        let (type_bits, device) = match entry.kind {
            CpioKind::File(_) => (0o100_000, (0, 0)),
            CpioKind::Directory => (0o040_000, (0, 0)),
            CpioKind::CharDevice(major, minor) => (0o020_000, (major, minor)),
        };
        let links = if matches!(entry.kind, CpioKind::Directory) {
            2
        } else {
            1
        };
        member(
            &mut out,
            &entry.path,
            i + 1,
            type_bits | entry.mode,
            links,
            device,
            body(entry),
        );
    }
    member(&mut out, "TRAILER!!!", 0, 0, 1, (0, 0), &[]);
    // The kernel's unpacker skips zeros between archives; 512 is what cpio(1) pads to.
    pad(&mut out, 512);
    out
}

fn body(entry: &CpioEntry) -> &[u8] {
    match &entry.kind {
        CpioKind::File(bytes) => bytes,
        CpioKind::Directory | CpioKind::CharDevice(..) => &[],
    }
}

fn member(
    out: &mut Vec<u8>,
    path: &str,
    inode: usize,
    mode: u32,
    links: u32,
    device: (u32, u32),
    body: &[u8],
) {
    let header = format!(
        "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{mtime:08x}{size:08x}{zero:08x}{zero:08x}{major:08x}{minor:08x}{name:08x}{check:08x}",
        uid = 0,
        gid = 0,
        mtime = 0,
        size = body.len(),
        zero = 0,
        major = device.0,
        minor = device.1,
        name = path.len() + 1,
        check = 0,
    );
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out, 4);
    out.extend_from_slice(body);
    pad(out, 4);
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_member_is_byte_for_byte_newc() {
        let out = write(&[CpioEntry::file("init", 0o755, b"hello".to_vec())]);
        let expected = "07070100000001000081ed0000000000000000000000010000000000000005\
                        00000000000000000000000000000000\
                        0000000500000000init\0\0hello\0\0\0";
        assert_eq!(String::from_utf8_lossy(&out[..expected.len()]), expected);
        assert_eq!(out.len() % 512, 0);
        assert!(out.windows(10).any(|w| w == b"TRAILER!!!"));
    }

    #[test]
    fn the_same_entries_give_the_same_bytes() {
        let entries = [
            CpioEntry::directory("dev"),
            CpioEntry::file("a", 0o600, vec![1; 5000]),
        ];
        assert_eq!(write(&entries), write(&entries));
    }
}
