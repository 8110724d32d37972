//! The second pass: every layer is unpacked again, and the bytes of its winners are put where they belong.

use crate::flatten::Winner;
use crate::layer::{self, Blob, Content, Mark, Unpacked, Watch};
use crate::{Error, Result};
use banger_ext4::{Layout, Placer};
use std::{
    fs::File,
    io::{self, Read},
};

/// Bytes that are read and put at once.
const CHUNK: usize = 1 << 20;

/// Fetches the winners, in the order that flattening gave them, and puts each byte once into the file of a file system
/// laid out so.
///
/// # Errors
/// A layer is not as it was when it was read first, no room, or cancelled.
pub(crate) fn place(
    layers: &[Blob],
    winners: &[Winner],
    (layout, out): (&Layout, &File),
    watch: &Watch<'_>,
) -> Result<()> {
    let mut work: Vec<_> = layers
        .iter()
        .enumerate()
        .filter_map(|(n, blob)| {
            let of_layer = |winner: &Winner| (winner.layer as usize).cmp(&n);
            let start = winners.partition_point(|w| of_layer(w).is_lt());
            let end = winners.partition_point(|w| of_layer(w).is_le());
            winners
                .get(start..end)
                .filter(|w| !w.is_empty())
                .map(|w| (blob, w))
        })
        .collect();
    // The longest first: nobody waits for it alone at the end.
    work.sort_by_key(|(blob, _)| std::cmp::Reverse(blob.len));
    let each = |(blob, winners): &(&Blob, &[Winner])| {
        let mut placer = Placer::new(layout, out);
        place_layer(blob, winners, &mut placer, watch)?;
        placer.finish().map_err(Error::unwritten)
    };
    watch.each(&work, &each).map(drop)
}

fn place_layer(
    blob: &Blob,
    winners: &[Winner],
    placer: &mut Placer<'_>,
    watch: &Watch<'_>,
) -> Result<()> {
    let mut reader = blob.reader();
    let source = match layer::open(&mut reader)? {
        Content::Tar(stream) if stream.is_plain() => None,
        Content::Tar(stream) => Some(stream),
        Content::Ext4(_) => return Err(changed()),
    };
    let mut bytes = match source {
        Some(stream) => Bytes::Stream { stream, at: 0 },
        None => Bytes::Plain(blob),
    };
    let mut buffer = vec![0; CHUNK];
    let mut mark = Mark::default();
    let mut look_up = |stream: Option<&Unpacked<'_>>| match stream {
        Some(stream) => watch.look_up(stream, &mut mark),
        None => watch.go_on(None),
    };
    for winner in winners {
        let mut done = 0;
        while done < winner.len {
            let left = winner.len - done;
            let n = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            bytes.read_at(&mut buffer[..n], winner.from + done, &mut look_up)?;
            let placed = placer.place(winner.inode, winner.offset + done, &buffer[..n]);
            placed.map_err(Error::unwritten)?;
            done += n as u64;
        }
    }
    Ok(())
}

/// The unpacked bytes of a layer, asked for in ascending order.
enum Bytes<'a> {
    /// They lie in the file as they are.
    Plain(&'a Blob),
    /// They come out of a decompressor.
    Stream { stream: Unpacked<'a>, at: u64 },
}

/// Asks whether to go on with what a stream has given.
type LookUp<'a> = &'a mut dyn FnMut(Option<&Unpacked<'_>>) -> Result<()>;

impl Bytes<'_> {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64, look_up: LookUp<'_>) -> Result<()> {
        match self {
            Bytes::Plain(blob) => {
                look_up(None)?;
                blob.read_at(buffer, offset).map_err(Error::damaged)
            }
            Bytes::Stream { stream, at } => {
                let mut skip = offset.checked_sub(*at).ok_or_else(changed)?;
                // What nobody wants of a layer may be nearly all of it.
                while skip > 0 {
                    let part = skip.min(CHUNK as u64);
                    let skipped = io::copy(&mut stream.by_ref().take(part), &mut io::sink());
                    if skipped.map_err(Error::damaged)? < part {
                        return Err(Error::Truncated);
                    }
                    skip -= part;
                    look_up(Some(stream))?;
                }
                stream.read_exact(buffer).map_err(Error::damaged)?;
                *at = offset + buffer.len() as u64;
                look_up(Some(stream))
            }
        }
    }
}

fn changed() -> Error {
    Error::damaged(io::Error::other("it changed while it was read"))
}
