//! Headers as they are written.

use super::fields::{self, Block, Field};
use super::{BLOCK, Entry, Extent, Kind, pax};

/// What ends a stream: two blocks of zeros.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// How many zeros follow so many bytes of data.
pub const fn padding(length: u64) -> usize {
    ((BLOCK as u64 - length % BLOCK as u64) % BLOCK as u64) as usize
}

/// The blocks before an entry's data: what ustar cannot say stands in a pax header in front. For a file with holes
/// the map of its data is among them (GNU's sparse format 1.0).
pub fn header(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let mut block: Block = [0; BLOCK];
    let mut map = Vec::new();
    let mut size = 0;
    let mut path = &entry.path[..];
    block[fields::TYPE] = match &entry.kind {
        Kind::File { size: bytes, data } => {
            size = *bytes;
            if let Some(extents) = data {
                map = sparse_map(extents, *bytes);
                size = map.len() as u64 + extents.iter().map(|e| e.length).sum::<u64>();
                pax::record(&mut records, "GNU.sparse.major", b"1");
                pax::record(&mut records, "GNU.sparse.minor", b"0");
                pax::record(&mut records, "GNU.sparse.name", path);
                pax::record(
                    &mut records,
                    "GNU.sparse.realsize",
                    bytes.to_string().as_bytes(),
                );
                path = b"GNUSparseFile.0";
            }
            b'0'
        }
        Kind::Directory => b'5',
        Kind::Symlink { target } => {
            put_text(&mut block, &mut records, fields::LINK, "linkpath", target);
            b'2'
        }
        Kind::HardLink { target } => {
            put_text(&mut block, &mut records, fields::LINK, "linkpath", target);
            b'1'
        }
        Kind::Other { .. } => b'6',
    };
    put_text(&mut block, &mut records, fields::NAME, "path", path);
    for (at, key, value) in [
        (fields::UID, "uid", entry.uid),
        (fields::GID, "gid", entry.gid),
        (fields::SIZE, "size", size),
    ] {
        if !fields::put_number(&mut block, at, value) {
            fields::put_number(&mut block, at, 0);
            pax::record(&mut records, key, value.to_string().as_bytes());
        }
    }
    fields::put_number(&mut block, fields::MODE, u64::from(entry.mode & 0o7777));
    let seconds = u64::try_from(entry.mtime.seconds).unwrap_or(0);
    let whole = fields::put_number(&mut block, fields::MTIME, seconds);
    if !whole || entry.mtime.nanoseconds != 0 || entry.mtime.seconds < 0 {
        pax::record(
            &mut records,
            "mtime",
            pax::time_text(entry.mtime).as_bytes(),
        );
    }
    let mut blocks = Vec::with_capacity(3 * BLOCK);
    if !records.is_empty() {
        let mut extension: Block = [0; BLOCK];
        put(&mut extension, fields::NAME, b"PaxHeader");
        fields::put_number(&mut extension, fields::MODE, 0o644);
        fields::put_number(&mut extension, fields::SIZE, records.len() as u64);
        extension[fields::TYPE] = b'x';
        blocks.extend_from_slice(&finished(extension));
        pad(&mut records);
        blocks.extend_from_slice(&records);
    }
    blocks.extend_from_slice(&finished(block));
    blocks.extend_from_slice(&map);
    blocks
}

/// The number of pieces and where each lies, in lines. A last piece of nothing tells where a hole at the end ends.
fn sparse_map(extents: &[Extent], size: u64) -> Vec<u8> {
    let end = extents.last().map_or(0, |e| e.offset + e.length);
    let last = (end < size || extents.is_empty()).then_some(Extent {
        offset: size,
        length: 0,
    });
    let count = extents.len() + usize::from(last.is_some());
    let mut text = format!("{count}\n").into_bytes();
    for extent in extents.iter().chain(&last) {
        text.extend_from_slice(format!("{}\n{}\n", extent.offset, extent.length).as_bytes());
    }
    pad(&mut text);
    text
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len() + padding(bytes.len() as u64), 0);
}

/// A text, or its beginning with the whole in a record.
fn put_text(block: &mut Block, records: &mut Vec<u8>, at: Field, key: &str, text: &[u8]) {
    if text.len() > at.1 {
        pax::record(records, key, text);
    }
    put(block, at, &text[..text.len().min(at.1)]);
}

fn put(block: &mut Block, (at, _): Field, text: &[u8]) {
    block[at..at + text.len()].copy_from_slice(text);
}

fn finished(mut block: Block) -> Block {
    put(&mut block, fields::MAGIC, fields::USTAR);
    let (sum, _) = fields::sums(&block);
    // Six digits, a zero byte and a blank.
    fields::put_number(&mut block, (fields::CHECKSUM.0, 7), sum.unsigned_abs());
    block[fields::CHECKSUM.0 + 7] = b' ';
    block
}
