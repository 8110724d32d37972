//! Copying files into the guest and out of it. Files are read and written by one thread per copy, which waits where
//! its stream waits; everything else goes on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use banger_tree::{
    Chunk, Destination, Owner, Pack, Reach, StreamReader, StreamWriter, Unpack, pack, unpack,
};
use banger_wire::guest::copy::{CopyFrames, HOME};
use banger_wire::guest::{CopyFrame, CopyIn, CopyOut, CopyOutcome, CopyRequest, PathBytes, Sum};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use crate::guest::Guest;
use crate::serve::{self, Answer, AnswerBody, REQUEST_LIMIT, Refusal};
use crate::slot::Slot;

/// Frames that wait for the host, at most 32 KiB each.
const OUTPUT_QUEUE: usize = 4;
/// Frames that wait for the thread that writes files.
const INPUT_QUEUE: usize = 4;
/// Copies at the same time, and so threads.
const MOST_COPIES: usize = 32;

/// Copies that run.
static COPIES: AtomicUsize = AtomicUsize::new(0);

/// Begins a copy; the answer's body is its frames.
pub async fn copy(guest: &Arc<Guest>, body: Incoming) -> Answer {
    let bad = |message: String| Refusal(StatusCode::BAD_REQUEST, message);
    let mut frames = CopyFrames::new(body);
    let request = match tokio::time::timeout(REQUEST_LIMIT, frames.next()).await {
        Ok(Ok(Some(CopyFrame::Request(request)))) => request,
        _ => return Err(bad("the body must begin with the request".to_owned())),
    };
    request.check().map_err(|message| bad(message.to_owned()))?;
    serve::ready(guest).await?;
    let slot = Slot::take(&COPIES, MOST_COPIES, "copies")?;
    let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
    tokio::spawn(attend(slot, request, frames, sender));
    Ok(Response::new(AnswerBody::stream(receiver)))
}

type Ended = Result<(Sum, u64), banger_tree::Error>;

/// Serves a copy until it has ended.
async fn attend(slot: Slot, request: CopyRequest, frames: CopyFrames, sender: mpsc::Sender<Bytes>) {
    let (parts, queue) = mpsc::channel(INPUT_QUEUE);
    let output = sender.clone();
    let mut worker = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        match request {
            CopyRequest::In(copy) => take_in(copy, queue, output),
            CopyRequest::Out(copy) => give_out(copy, output),
        }
    });
    let ended = tokio::select! {
        ended = &mut worker => ended,
        () = feed(frames, parts) => worker.await,
    };
    let failed = match ended {
        Ok(Ok((sum, entries))) => Ok(CopyOutcome::Done { sum, entries }),
        // Nobody is there to be told.
        Ok(Err(error)) if error.is_lost_stream() => return,
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let outcome = failed.unwrap_or_else(|message| CopyOutcome::Failed { message });
    let _ = sender.send(CopyFrame::Outcome(outcome).encode()).await;
}

fn give_out(copy: CopyOut, output: mpsc::Sender<Bytes>) -> Ended {
    let source = absolute(&copy.path);
    let name = copy.name.unwrap_or_default();
    let warn = warner(output.clone());
    let mut writer = StreamWriter::new(output, warn);
    let what = Pack {
        source: &source,
        follow: copy.follow,
        name: &name.0,
    };
    let packed = pack(&what, &mut writer)?;
    let sum = writer.finish()?;
    Ok((sum, packed.entries))
}

fn take_in(copy: CopyIn, queue: mpsc::Receiver<Chunk>, output: mpsc::Sender<Bytes>) -> Ended {
    let how = Unpack {
        destination: Destination {
            path: absolute(&copy.path),
            name: copy.name.map(|name| name.0),
            directory: copy.directory,
        },
        archive: copy.archive,
        owner: if copy.keep_owner {
            Owner::AsInStream
        } else {
            Owner::Us
        },
        reach: Reach::Below,
    };
    let mut reader = StreamReader::new(queue);
    let unpacked = unpack(&mut reader, &how, &mut warner(output))?;
    Ok((reader.sum(), unpacked.entries))
}

/// Passes on the host's frames until the stream ends. What was cut stays without an end.
async fn feed(mut frames: CopyFrames, parts: mpsc::Sender<Chunk>) {
    while let Ok(Some(frame)) = frames.next().await {
        let chunk = match frame {
            CopyFrame::Data(data) => Chunk::Data(data),
            CopyFrame::End(sum) => Chunk::End(sum),
            _ => return,
        };
        let end = matches!(chunk, Chunk::End(_));
        if parts.send(chunk).await.is_err() || end {
            break;
        }
    }
}

/// Tells the host. If it is gone, the next data tells that.
fn warner(sender: mpsc::Sender<Bytes>) -> Box<dyn FnMut(String) + Send> {
    Box::new(move |text| {
        let _ = sender.blocking_send(CopyFrame::Warning(text).encode());
    })
}

/// A relative path is relative to root's home.
fn absolute(path: &PathBytes) -> PathBuf {
    Path::new(HOME).join(OsStr::from_bytes(&path.0))
}
