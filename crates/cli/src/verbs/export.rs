//! `image export` and `image bundle`: the daemon sends the bytes, and the file is written here (R-OPS-3).

use crate::{
    args::{ArchiveFormat, ImageBundleArgs, ImageExportArgs},
    connection::Daemon,
    failure::Failure,
    progress::Progress,
    signals::Signals,
};
use banger_wire::api::{ExportFormat, Frame, FrameReceiver, ImageExport};
use banger_wire::guest::{CopyFrame, CopyOutcome};
use bytes::Bytes;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};
use tokio::sync::{mpsc, oneshot};

/// Pieces that wait for the disk.
const PIECES: usize = 16;

/// Writes an archive of an image.
pub async fn export(args: ImageExportArgs) -> Result<ExitCode, Failure> {
    let format = match args.format {
        ArchiveFormat::Oci => ExportFormat::Oci,
        ArchiveFormat::Bundle => ExportFormat::Bundle,
    };
    write(args.image, args.output, format).await
}

/// Writes a bundle of an image.
pub async fn bundle(args: ImageBundleArgs) -> Result<ExitCode, Failure> {
    write(args.image, args.output, ExportFormat::Bundle).await
}

async fn write(
    image: String,
    output: Option<PathBuf>,
    format: ExportFormat,
) -> Result<ExitCode, Failure> {
    let output = output.filter(|path| path != Path::new("-"));
    if output.is_none() && io::stdout().is_terminal() {
        return Err(
            Failure::new("stdout is a terminal, and an archive is nothing to look at")
                .hint(format!("banger image export {image} -o FILE")),
        );
    }
    let listen = |error: io::Error| Failure::new("cannot listen for signals").caused_by(&error);
    let mut signals = Signals::listen().map_err(listen)?;
    // Nothing is made before the daemon has said that there is such an image.
    let request = ImageExport { image, format };
    let (_sender, receiver) = Daemon::of_this_user()?.frames(&request).await?;
    let target = Target::open(output)?;
    let (pieces, mut written) = start_writer(target);
    let received = tokio::select! {
        received = receive(receiver, pieces, &mut written) => received,
        number = signals.next() => {
            // What is not whole is removed by whoever writes it, whom nobody sends any more.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), written).await;
            return Ok(ExitCode::from(128 + number));
        }
    };
    received
}

/// Takes the archive to its end; it gets its name only when all of it is here.
async fn receive(
    mut receiver: FrameReceiver,
    pieces: mpsc::Sender<Piece>,
    written: &mut oneshot::Receiver<Result<(), Failure>>,
) -> Result<ExitCode, Failure> {
    let mut progress = Progress::default();
    let mut bytes = 0;
    loop {
        let frame = receiver.next().await?;
        let piece = match frame {
            Some(Frame::Event(event)) => {
                progress.event(&event);
                continue;
            }
            Some(Frame::Copy(CopyFrame::Data(data))) => {
                bytes += data.len() as u64;
                Piece::Bytes(data)
            }
            Some(Frame::Copy(CopyFrame::Outcome(CopyOutcome::Done { sum, .. })))
                if sum.bytes == bytes =>
            {
                Piece::End
            }
            _ => return Err(cut()),
        };
        let ended = matches!(piece, Piece::End);
        // Who writes ends early only when it cannot, and says why.
        let taken = pieces.send(piece).await.is_ok();
        if ended || !taken {
            break;
        }
    }
    let written = written.await.unwrap_or_else(|_| Err(cut()));
    written.map(|()| ExitCode::SUCCESS)
}

fn cut() -> Failure {
    Failure::new("the archive ended before it was whole").hint("banger daemon logs")
}

/// A piece of an archive, or its end in order.
enum Piece {
    Bytes(Bytes),
    End,
}

/// Where an archive goes.
enum Target {
    Stdout,
    /// A pipe or device that is there.
    There(PathBuf, File),
    /// A file that gets its name in the end.
    File(Part),
}

/// A file that is removed unless it was finished.
struct Part {
    path: PathBuf,
    part: PathBuf,
    file: File,
    done: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            // It is left at worst, by a name that says whose it is.
            let _ = fs::remove_file(&self.part);
        }
    }
}

impl Target {
    fn open(output: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = output else {
            return Ok(Target::Stdout);
        };
        let failed = |error: &io::Error| {
            Failure::new(format!("cannot write '{}'", path.display())).caused_by(error)
        };
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                let why = format!("'{}' is a directory", path.display());
                return Err(Failure::new(why).hint("-o FILE"));
            }
            Ok(meta) if !meta.is_file() => {
                let file = OpenOptions::new().write(true).open(&path);
                let file = file.map_err(|e| failed(&e))?;
                return Ok(Target::There(path, file));
            }
            _ => {}
        }
        // Through a link, the file that it leads to is replaced.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let name = format!(".banger-export-{}", std::process::id());
        let part = path.with_file_name(name);
        let file = File::create_new(&part).map_err(|e| {
            Failure::new(format!("cannot write '{}'", path.display())).caused_by(&e)
        })?;
        Ok(Target::File(Part {
            path,
            part,
            file,
            done: false,
        }))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::Stdout => io::stdout().lock().write_all(bytes),
            Target::There(_, file) => file.write_all(bytes),
            Target::File(part) => part.file.write_all(bytes),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Target::Stdout => io::stdout().lock().flush(),
            Target::There(..) => Ok(()),
            Target::File(part) => {
                part.file.sync_all()?;
                fs::rename(&part.part, &part.path)?;
                part.done = true;
                Ok(())
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Target::Stdout => "stdout".to_owned(),
            Target::There(path, _) => format!("'{}'", path.display()),
            Target::File(part) => format!("'{}'", part.path.display()),
        }
    }
}

/// Writes on a thread of its own: a pipe whose reader is slow must not keep signals from being heard.
fn start_writer(
    mut target: Target,
) -> (mpsc::Sender<Piece>, oneshot::Receiver<Result<(), Failure>>) {
    let (pieces, mut queue) = mpsc::channel(PIECES);
    let (tell, written) = oneshot::channel();
    thread::spawn(move || {
        let done = loop {
            match queue.blocking_recv() {
                Some(Piece::Bytes(bytes)) => match target.write(&bytes) {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
                Some(Piece::End) => break target.finish(),
                None => break Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        let name = target.name();
        drop(target);
        let failed = |e: io::Error| Failure::new(format!("cannot write {name}")).caused_by(&e);
        // Nobody listens when we are leaving.
        let _ = tell.send(done.map_err(failed));
    });
    (pieces, written)
}
