//! Reading a Debian package without dpkg.
//!
//! Format: deb(5): an ar archive of `debian-binary`, `control.tar*` and `data.tar*`.

use std::io::Read;

use thiserror::Error;

use super::source::{Visit, walk_tar};
use super::unpack::{Cancelled, Packing, UnpackError, reader};

/// Why a package could not be read.
#[derive(Debug, Error)]
pub enum DebError {
    /// Not an ar archive, or one cut short.
    #[error("the file is no Debian package: {what}")]
    NotADeb {
        /// The first thing that is wrong.
        what: &'static str,
    },
    /// The data member does not unfold.
    #[error("the package's data cannot be unpacked")]
    Unpack {
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// The data member is no tar archive.
    #[error("the package's file list cannot be read")]
    Tar {
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Whether to go on with the next file of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Go on.
    On,
    /// All that was wanted is there.
    Done,
}

/// Calls `visit` with the path (no leading `./`) and the content of each regular file, in the package's order. What comes
/// back are paths that name a kernel and are links.
///
/// # Errors
/// Damage of the package, what `visit` returns while reading, or it was cancelled.
pub fn for_each_file(
    deb: &[u8],
    cancelled: &Cancelled<'_>,
    visit: &mut Visit<'_>,
) -> Result<Vec<String>, DebError> {
    let data = member(deb, "data.tar")?;
    let tar: Box<dyn Read + '_> = match Packing::of(data) {
        Some(packing) => reader(packing, data).map_err(|source| DebError::Unpack { source })?,
        None => Box::new(data),
    };
    walk_tar(tar, cancelled, visit).map_err(|source| DebError::Tar { source })
}

/// The content of the first ar member whose name starts with `prefix`.
fn member<'a>(deb: &'a [u8], prefix: &str) -> Result<&'a [u8], DebError> {
    let not = |what| DebError::NotADeb { what };
    let mut rest = deb
        .strip_prefix(b"!<arch>\n")
        .ok_or(not("it does not start like an ar archive"))?;
    while let Some((header, after)) = rest.split_at_checked(60) {
        if &header[58..60] != b"`\n" {
            return Err(not("a member's header is damaged"));
        }
        let size: usize = std::str::from_utf8(&header[48..58])
            .ok()
            .and_then(|s| s.trim().parse().ok())
            .ok_or(not("a member's size is no number"))?;
        let body = after.get(..size).ok_or(not("it is cut short"))?;
        if header.starts_with(prefix.as_bytes()) {
            return Ok(body);
        }
        // Members start at even offsets.
        rest = after.get(size.next_multiple_of(2)..).unwrap_or_default();
    }
    Err(not("it has no data.tar member"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A package whose data.tar (zstd, or plain) holds `files`.
    pub(crate) fn tiny_deb(files: &[(&str, &[u8])], packed: bool) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("./{path}"), *bytes)
                .unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let (name, data) = if packed {
            ("data.tar.zst", zstd::bulk::compress(&tar, 1).unwrap())
        } else {
            ("data.tar", tar)
        };
        let mut deb = b"!<arch>\n".to_vec();
        for (name, body) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", b"odd".to_vec()),
            (name, data),
        ] {
            deb.extend(
                format!(
                    "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                    0,
                    0,
                    0,
                    100644,
                    body.len()
                )
                .bytes(),
            );
            let odd = body.len() % 2;
            deb.extend(body);
            deb.extend(vec![b'\n'; odd]);
        }
        deb
    }

    fn list(deb: &[u8]) -> Result<Vec<(String, Vec<u8>)>, DebError> {
        let mut out = Vec::new();
        for_each_file(deb, &|| false, &mut |path, body| {
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes)?;
            out.push((path.to_owned(), bytes));
            Ok(Walk::On)
        })?;
        Ok(out)
    }

    #[test]
    fn files_of_packed_and_plain_packages_are_read() {
        let files: &[(&str, &[u8])] = &[("boot/vmlinuz-1", b"kernel"), ("lib/x", b"")];
        for packed in [true, false] {
            let seen = list(&tiny_deb(files, packed)).unwrap();
            let seen: Vec<(&str, &[u8])> = seen
                .iter()
                .map(|(p, b)| (p.as_str(), b.as_slice()))
                .collect();
            assert_eq!(seen, files);
        }
    }

    #[test]
    fn what_is_no_package_is_refused() {
        let deb = tiny_deb(&[("a", b"b")], true);
        assert!(matches!(list(b"PK\x03\x04"), Err(DebError::NotADeb { .. })));
        assert!(matches!(
            list(&deb[..deb.len() - 8]),
            Err(DebError::NotADeb {
                what: "it is cut short"
            })
        ));
        for at in 0..deb.len() {
            let mut broken = deb.clone();
            broken[at] ^= 0xff;
            let _ = list(&broken);
        }
    }
}
