//! The second pass: every layer is unpacked again, and the bytes of its winners are put where they belong.

use crate::flatten::Winner;
use crate::layer::{self, Blob, Content, Mark, Unpacked, Watch};
use crate::watermark::{SENT, Watermark};
use crate::{Error, Result};
use banger_ext4::{Layout, Placer, WriteAt};
use std::{
    fs::File,
    io::{self, Read},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::Duration,
};

/// Bytes that are read and put at once.
const CHUNK: usize = 1 << 20;
/// Who waits for the disk or the digest looks so often whether to go on.
const LOOK: Duration = Duration::from_millis(50);

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
    place_parts(&parts(layers, winners, layout), (layout, out), None, watch)
}

/// The same where everything else of the file system is written already. Meanwhile what is there is hashed and goes to the disk:
/// the file's sha256 is told, unless it was not written from its beginning to its end, or could not be read.
///
/// # Errors
/// As [`place`].
pub(crate) fn place_hashed(
    layers: &[Blob],
    winners: &[Winner],
    (layout, out): (&Layout, &File),
    watch: &Watch<'_>,
) -> Result<Option<String>> {
    let parts = parts(layers, winners, layout);
    let starts: Vec<u64> = parts.iter().map(|part| part.start).collect();
    let Some(mark) = Watermark::new(&starts, layout.size()) else {
        return place_parts(&parts, (layout, out), None, watch).map(|()| None);
    };
    let mark = Arc::new(mark);
    // Dropped, it ends the threads below: nobody waits for a slow disk when the work has failed or was cancelled.
    let end = mark.ends_here();
    let hashed = beside(&mark, out, Watermark::digest)?;
    let sent = beside(&mark, out, |mark, file| mark.send(file, SENT))?;
    let placed = place_parts(&parts, (layout, out), Some(&mark), watch);
    if let Err(stopped) = placed {
        // It may be why writing stopped, and says more.
        return Err(match sent.recv_timeout(LOOK) {
            Ok(Err(disk)) => Error::unwritten(disk),
            _ => stopped,
        });
    }
    end.written();
    awaited(&sent, watch)?.map_err(Error::unwritten)?;
    // Who hashes the file when it is whole tells what is wrong with it.
    Ok(awaited(&hashed, watch)?.unwrap_or_default())
}

/// Does some work on a file that is being written in a thread of its own, which ends with the writing.
fn beside<R: Send + 'static>(
    mark: &Arc<Watermark>,
    file: &File,
    work: impl FnOnce(&Watermark, &File) -> R + Send + 'static,
) -> Result<Receiver<R>> {
    let (mark, file) = (
        Arc::clone(mark),
        file.try_clone().map_err(Error::unwritten)?,
    );
    let (done, result) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().spawn(move || {
        // Nobody listens any more where the work was given up.
        let _ = done.send(work(&mark, &file));
    });
    thread.map_err(Error::unwritten)?;
    Ok(result)
}

/// What such work comes to, unless it is cancelled or there is no room meanwhile.
fn awaited<R>(result: &Receiver<R>, watch: &Watch<'_>) -> Result<R> {
    loop {
        match result.recv_timeout(LOOK) {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Timeout) => watch.go_on(None)?,
            Err(RecvTimeoutError::Disconnected) => {
                let why = "the thread that reads the image while it is written has panicked";
                return Err(Error::unwritten(io::Error::other(why)));
            }
        }
    }
}

fn place_parts(
    parts: &[Part<'_>],
    (layout, out): (&Layout, &File),
    mark: Option<&Watermark>,
    watch: &Watch<'_>,
) -> Result<()> {
    let mut work: Vec<_> = parts.iter().enumerate().collect();
    // The longest first: nobody waits for it alone at the end. One alone goes forwards, and so does the mark.
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        work.sort_by_key(|(_, part)| std::cmp::Reverse(part.blob.len));
    }
    let each = |(n, part): &(usize, &Part<'_>)| {
        let marked = mark.map(|mark| mark.part(*n, out));
        let to: &dyn WriteAt = marked.as_ref().map_or(out, |marked| marked);
        let mut placer = Placer::new(layout, to);
        place_layer(part.blob, part.winners, &mut placer, watch)?;
        placer.finish().map_err(Error::unwritten)?;
        if let Some(marked) = marked {
            marked.finish();
        }
        Ok(())
    };
    watch.each(&work, &each).map(drop)
}

/// The winners of a layer, and where their bytes begin in the file.
struct Part<'a> {
    blob: &'a Blob,
    winners: &'a [Winner],
    start: u64,
}

fn parts<'a>(layers: &'a [Blob], winners: &'a [Winner], layout: &Layout) -> Vec<Part<'a>> {
    let parts = layers.iter().enumerate().filter_map(|(n, blob)| {
        let of_layer = |winner: &Winner| (winner.layer as usize).cmp(&n);
        let start = winners.partition_point(|w| of_layer(w).is_lt());
        let end = winners.partition_point(|w| of_layer(w).is_le());
        let winners = winners.get(start..end)?;
        let first = winners.first()?;
        let start = layout.position(first.inode, first.offset);
        Some(Part {
            blob,
            winners,
            start: start.map_or(0, |(start, _)| start),
        })
    });
    parts.collect()
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
