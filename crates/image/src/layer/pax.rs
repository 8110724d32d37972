//! The records of PAX extended headers: `<length> <key>=<value>\n`.

use crate::{Error, Result};
use banger_ext4::keeps_xattr;
use std::io;

/// Bytes of records that an entry may have, all its headers and the global ones together.
const KEPT_MAX: usize = 2 << 20;
/// Of these, bytes that may come from global headers: every entry gets a copy.
const GLOBAL_MAX: usize = 16 << 10;
/// More extended attributes than ext4 keeps of one inode, each taking 32 bytes and more.
const XATTRS_MAX: usize = 128;

/// What records say that an image keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    path: Option<Vec<u8>>,
    /// Target of a link.
    pub link: Option<Vec<u8>>,
    /// Bytes stored.
    pub size: Option<u64>,
    /// Owner.
    pub uid: Option<u64>,
    /// Group.
    pub gid: Option<u64>,
    /// Time of the last change.
    pub mtime: Option<(i64, u32)>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_name: Option<Vec<u8>>,
    sparse_major: Option<u64>,
    sparse_size: Option<u64>,
    sparse_map: Option<Vec<u64>>,
    /// Bytes of records taken.
    kept: usize,
    /// Why the entry is to be refused, once its name is known; nothing more is taken then.
    pub excess: Option<&'static str>,
}

/// What records are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The next entry.
    Entry,
    /// Every entry from here on.
    Global,
}

/// Keys of records that may be of every entry.
const OF_ANY: [&[u8]; 4] = [b"size", b"uid", b"gid", b"mtime"];
/// Keys of records, or their beginnings, of which every entry has its own if any. What a global header says would be
/// copied to each of millions.
const OF_ONE: [&[u8]; 2] = [b"path", b"linkpath"];
const OF_ONE_PREFIXES: [&[u8]; 2] = [b"SCHILY.xattr.", b"GNU.sparse."];

/// Length of a file, and where its bytes belong: offset and length, ascending; the rest is holes.
pub(crate) type Layout = (u64, Vec<(u64, u64)>);

fn bad(why: &'static str) -> Error {
    Error::damaged(io::Error::new(io::ErrorKind::InvalidData, why))
}

impl Pax {
    /// Takes the records of one header on top of what is there. What is too much is not taken, and [`Pax::excess`] says
    /// so.
    ///
    /// # Errors
    /// They are none.
    pub(crate) fn take(&mut self, mut records: &[u8], scope: Scope) -> Result<()> {
        while !records.is_empty() {
            let wrong = || bad("a record of an extended header is wrong");
            let blank = records
                .iter()
                .position(|byte| *byte == b' ')
                .ok_or_else(wrong)?;
            let length = decimal(&records[..blank]).ok_or_else(wrong)?;
            let length = usize::try_from(length).map_err(|_| wrong())?;
            let record = records.get(blank + 1..length).ok_or_else(wrong)?;
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(wrong)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if self.has_room(key, length, scope) {
                self.record(key, value)?;
            }
            records = &records[length..];
        }
        Ok(())
    }

    /// Counts a record of this length; false where it is one too much, or is no record of every entry.
    fn has_room(&mut self, key: &[u8], length: usize, scope: Scope) -> bool {
        let mut prefixes = OF_ONE_PREFIXES.iter();
        let is_of_one = OF_ONE.contains(&key) || prefixes.any(|prefix| key.starts_with(prefix));
        if !is_of_one && !OF_ANY.contains(&key) {
            return false;
        }
        self.kept = self.kept.saturating_add(length);
        let most = match scope {
            Scope::Entry => KEPT_MAX,
            Scope::Global => GLOBAL_MAX,
        };
        if scope == Scope::Global && is_of_one {
            self.excess = Some("it gives every entry what can only be of one");
        } else if self.kept > most {
            self.excess = Some("its extended headers are too long");
        } else if self.xattrs.len() >= XATTRS_MAX {
            self.excess = Some("it has more extended attributes than ext4 keeps");
        }
        self.excess.is_none()
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number =
            || decimal(value).ok_or_else(|| bad("a number in an extended header is wrong"));
        match key {
            b"path" => self.path = Some(value.to_owned()),
            b"linkpath" => self.link = Some(value.to_owned()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(|| bad("a time is wrong"))?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_owned()),
            b"GNU.sparse.major" => self.sparse_major = Some(number()?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse_size = Some(number()?),
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal);
                let map = numbers.collect::<Option<Vec<_>>>();
                self.sparse_map = Some(map.ok_or_else(|| bad("a map of holes is wrong"))?);
            }
            // Form 0.0: one pair of records for each piece.
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse_map.get_or_insert_default().push(number()?);
            }
            _ => {
                // Other systems' attributes (`com.apple.`, `btrfs.`, `system.nfs4_acl`) have no place in ext4, and
                // nothing of Linux misses them.
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                    && keeps_xattr(name)
                {
                    self.xattrs.retain(|(there, _)| there != name);
                    self.xattrs.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        Ok(())
    }

    /// The entry's name, if it is said here.
    pub(crate) fn name(&self) -> Option<Vec<u8>> {
        self.sparse_name.clone().or_else(|| self.path.clone())
    }

    /// Length and pieces of a file whose holes are said here (forms 0.0 and 0.1).
    ///
    /// # Errors
    /// The map is none.
    pub(crate) fn sparse(&self, name: &[u8]) -> Result<Option<Layout>> {
        let (Some(map), Some(len)) = (&self.sparse_map, self.sparse_size) else {
            return Ok(None);
        };
        if !map.len().is_multiple_of(2) {
            return Err(Error::refused(name, "its map of holes cannot be read"));
        }
        let pieces = map.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(Some((len, pieces)))
    }

    /// Whether the map of holes is at the beginning of the content (form 1.0).
    pub(crate) fn map_in_data(&self) -> bool {
        self.sparse_major == Some(1)
    }

    /// Length of a file with holes.
    pub(crate) fn real_size(&self) -> Option<u64> {
        self.sparse_size
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction, perhaps before 1970.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    Some(match (whole.starts_with('-'), nanoseconds) {
        // -1.5 is half a second before -1.
        (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_wrong_ones_refused() {
        let mut pax = Pax::default();
        pax.take(
            b"12 path=a/b\n20 mtime=12.5000001\n31 SCHILY.xattr.user.x=one\ntwo\n",
            Scope::Entry,
        )
        .unwrap();
        assert_eq!(pax.name().unwrap(), b"a/b");
        assert_eq!(pax.mtime, Some((12, 500_000_100)));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"one\ntwo".to_vec())]);
        for bad in [
            &b"x path=a\n"[..],
            b"99 path=a\n",
            b"9 path=ab",
            b"5 a b\n",
            b"0 path=a\n",
            b"10 size=-1\n",
            b"18446744073709551616 a=b\n",
        ] {
            let taken = Pax::default().take(bad, Scope::Entry);
            assert!(taken.is_err(), "{}", bad.escape_ascii());
        }
    }

    fn take(pax: &mut Pax, key: &str, value: &str, scope: Scope) {
        let rest = key.len() + value.len() + 3;
        let fits = |n: &usize| n.to_string().len() + rest == *n;
        let length = (rest..rest + 10).find(fits).unwrap();
        let record = format!("{length} {key}={value}\n");
        pax.take(record.as_bytes(), scope).unwrap();
    }

    /// However much a stranger sends, so much is kept and no more.
    #[test]
    fn what_is_kept_has_limits() {
        let (mut pax, long) = (Pax::default(), "v".repeat(KEPT_MAX / 5));
        for _ in 0..20 {
            take(&mut pax, "comment", &long, Scope::Entry);
        }
        assert_eq!((pax.kept, pax.excess), (0, None), "a comment is not kept");
        for _ in 0..20 {
            take(&mut pax, "path", &long, Scope::Entry);
        }
        assert_eq!(pax.excess, Some("its extended headers are too long"));

        let mut pax = Pax::default();
        for n in 0..1000 {
            take(
                &mut pax,
                &format!("SCHILY.xattr.user.{n}"),
                "",
                Scope::Entry,
            );
        }
        assert_eq!(pax.xattrs.len(), XATTRS_MAX);
        assert!(pax.excess.unwrap().contains("extended attributes"));

        for key in ["SCHILY.xattr.user.x", "GNU.sparse.name", "path", "linkpath"] {
            let mut globals = Pax::default();
            take(&mut globals, key, "x", Scope::Global);
            let why = globals.excess.take().unwrap();
            assert!(why.contains("every entry"), "{key}: {why}");
            let kept = globals.kept;
            assert_eq!(
                globals,
                Pax {
                    kept,
                    ..Pax::default()
                },
                "{key}"
            );
        }
    }

    #[test]
    fn times_before_1970_have_their_fraction_forwards() {
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"-0.25"), Some((-1, 750_000_000)));
        assert_eq!(time(b"3"), Some((3, 0)));
        assert_eq!(time(b"3.x"), None);
    }
}
