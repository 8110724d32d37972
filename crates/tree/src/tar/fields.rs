//! Fields of a header block.

use super::BLOCK;

/// Offset and length of a field.
pub type Field = (usize, usize);

pub const NAME: Field = (0, 100);
pub const MODE: Field = (100, 8);
pub const UID: Field = (108, 8);
pub const GID: Field = (116, 8);
pub const SIZE: Field = (124, 12);
pub const MTIME: Field = (136, 12);
pub const CHECKSUM: Field = (148, 8);
pub const TYPE: usize = 156;
pub const LINK: Field = (157, 100);
pub const MAGIC: Field = (257, 8);
pub const PREFIX: Field = (345, 155);

/// The magic of POSIX; GNU's is `ustar` and two blanks, and has no prefix.
pub const USTAR: &[u8; 8] = b"ustar\x0000";

/// A header block.
pub type Block = [u8; BLOCK];

pub fn field(block: &Block, (at, length): Field) -> &[u8] {
    &block[at..at + length]
}

/// A text ends at its first zero byte, or with its field.
pub fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// A number in octal digits, or binary if the first bit is set (GNU: sizes from 8 GiB on, times before 1970).
/// An empty field is 0.
pub fn number(bytes: &[u8]) -> Option<i64> {
    if let Some(first) = bytes.first().filter(|b| **b & 0x80 != 0) {
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (index, byte) in bytes.iter().enumerate() {
            let byte = if index == 0 && !negative {
                byte & 0x7f
            } else {
                *byte
            };
            value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
        }
        return Some(value);
    }
    let digits = text(bytes).trim_ascii();
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Writes a number in octal digits; `false` if it does not fit.
pub fn put_number(block: &mut Block, (at, length): Field, mut value: u64) -> bool {
    let digits = &mut block[at..at + length - 1];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    value == 0
}

/// The sum of all bytes with blanks for the sum itself; the second takes bytes as signed, as old programs do.
pub fn sums(block: &Block) -> (i64, i64) {
    let (start, end) = (CHECKSUM.0, CHECKSUM.0 + CHECKSUM.1);
    let mut sums = (0, 0);
    for (index, byte) in block.iter().enumerate() {
        let byte = if (start..end).contains(&index) {
            b' '
        } else {
            *byte
        };
        sums.0 += i64::from(byte);
        sums.1 += i64::from(byte as i8);
    }
    sums
}
