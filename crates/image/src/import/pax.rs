//! The records of PAX extended headers: `<length> <key>=<value>\n`.

use crate::{Error, Result};
use std::io;

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
}

/// Length of a file, and where its bytes belong: offset and length, ascending; the rest is holes.
pub(crate) type Layout = (u64, Vec<(u64, u64)>);

fn bad(why: &'static str) -> Error {
    Error::damaged(io::Error::new(io::ErrorKind::InvalidData, why))
}

impl Pax {
    /// Takes the records of one header on top of what is there.
    ///
    /// # Errors
    /// They are none.
    pub(crate) fn take(&mut self, mut records: &[u8]) -> Result<()> {
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
            self.record(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
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
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
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
        pax.take(b"12 path=a/b\n20 mtime=12.5000001\n31 SCHILY.xattr.user.x=one\ntwo\n")
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
            assert!(Pax::default().take(bad).is_err(), "{}", bad.escape_ascii());
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
