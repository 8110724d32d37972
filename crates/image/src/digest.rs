//! Digest of a file.

use crate::{Error, Result};
use banger_model::hex;
use sha2::{Digest, Sha256};
use std::{fs::File, io::Read, path::Path};

/// Lower-case hex sha256 of a file, and its length in bytes; `cancelled` is polled for each MiB.
pub(crate) fn sha256_file(path: &Path, cancelled: &dyn Fn() -> bool) -> Result<(String, u64)> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok((hex::encode(&hash.finalize()), length)),
            n => {
                hash.update(&buffer[..n]);
                length += n as u64;
            }
        }
    }
}

/// Lower-case hex sha256 of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes))
}

/// A version 8 (free-form, RFC 9562 section 5.8) UUID made of a text's digest.
pub(crate) fn uuid(text: &str) -> String {
    let hex = sha256(text.as_bytes());
    format!(
        "{}-{}-8{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..15],
        &hex[15..18],
        &hex[18..30]
    )
}

/// The same as bytes.
pub(crate) fn uuid_bytes(text: &str) -> [u8; 16] {
    let hex = uuid(text).replace('-', "");
    let byte = |n: usize| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap_or_default();
    std::array::from_fn(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_a_known_text() {
        // FIPS 180-2, appendix B.1.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), known);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(
            sha256_file(&path, &|| false).unwrap(),
            (known.to_owned(), 3)
        );
        assert!(matches!(
            sha256_file(&path, &|| true),
            Err(Error::Cancelled)
        ));
    }

    #[test]
    fn uuids_have_the_form_and_tell_volumes_apart() {
        let first = uuid("a");
        assert_eq!(
            first.split('-').map(str::len).collect::<Vec<_>>(),
            [8, 4, 4, 4, 12]
        );
        assert_eq!(first.as_bytes()[14], b'8');
        assert_ne!(first, uuid("b"));
        assert_eq!(hex::encode(&uuid_bytes("a")), first.replace('-', ""));
    }
}
