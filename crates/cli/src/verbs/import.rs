//! `image import`: the source is opened and read here; the daemon is sent its bytes and opens no path of ours (R-OPS-3).

use super::{print_json, print_text};
use crate::{args::ImportArgs, connection::Daemon, failure::Failure, progress::Progress, spawn};
use banger_wire::api::{Event, ImageImport, Method};
use bytes::Bytes;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    process::{Child, ExitCode},
    thread,
};
use tokio::sync::mpsc;

/// Bytes of one read, and reads that may wait for the daemon.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 8;

/// What is behind a source.
pub(super) enum Opened {
    File(File),
    Stdin,
    /// A program that writes an archive.
    Archive(Child),
}

impl Opened {
    /// How much will come, where that is known before.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Opened::File(file) => file
                .metadata()
                .ok()
                .filter(|m| m.is_file())
                .map(|m| m.len()),
            Opened::Stdin | Opened::Archive(_) => None,
        }
    }
}

/// Imports an image; prints its id.
pub async fn import(args: ImportArgs) -> Result<ExitCode, Failure> {
    let names = names(&args)?;
    let from_stdin = "docker export CONTAINER | banger image import - --name NAME";
    let opened = open(&args.source, from_stdin, spawn::spawn_tar)?;
    let size = opened.size();
    let request = ImageImport {
        names,
        replace: args.replace,
        only: args.only,
        source: Some(told(&args.source)),
        size,
    };
    let daemon = Daemon::of_this_user()?;
    let image = upload(
        &daemon,
        &request,
        opened,
        &args.source,
        |event| match event {
            Event::Image { image } => Ok(*image),
            other => Err(other),
        },
    );
    let image = image.await?.ok_or_else(|| {
        Failure::new("the daemon did not say which image it made").hint("banger image list")
    })?;
    if args.json {
        print_json(&image)?;
    } else {
        print_text(&format!("{}\n", image.id))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends a source with its request; what `made` finds in the events is what was made of it.
pub(super) async fn upload<M: Method, T>(
    daemon: &Daemon,
    request: &M,
    opened: Opened,
    source: &Path,
    made: impl Fn(Event) -> Result<T, Event>,
) -> Result<Option<T>, Failure> {
    let (chunks, body) = mpsc::channel(CHUNKS);
    let reader = start_reader(opened, source, chunks);
    let received = receive(daemon, request, body, made).await;
    // Our own reason comes first: the daemon only saw that we left.
    received.map_err(|failure| reader.try_recv().unwrap_or(failure))
}

async fn receive<M: Method, T>(
    daemon: &Daemon,
    request: &M,
    body: mpsc::Receiver<io::Result<Bytes>>,
    made: impl Fn(Event) -> Result<T, Event>,
) -> Result<Option<T>, Failure> {
    let mut events = daemon.upload(request, body).await?;
    let mut progress = Progress::default();
    let mut last = None;
    while let Some(event) = events.next().await? {
        match made(event) {
            Ok(made) => last = Some(made),
            Err(other) => progress.event(&other),
        }
    }
    Ok(last)
}

fn names(args: &ImportArgs) -> Result<Vec<String>, Failure> {
    let name = match args.name.as_ref().or(args.only.as_ref()) {
        Some(name) => name.clone(),
        None if is_stdin(&args.source) => {
            return Err(Failure::new("an image from stdin needs a name").hint("--name NAME"));
        }
        None => default_name(&args.source).ok_or_else(|| {
            let source = args.source.display();
            Failure::new(format!("'{source}' gives no name for the image")).hint("--name NAME")
        })?,
    };
    let mut names = vec![name];
    for tag in &args.tag {
        if !names.contains(tag) {
            names.push(tag.clone());
        }
    }
    Ok(names)
}

/// The last component without what tells how it is packed.
fn default_name(source: &Path) -> Option<String> {
    const ENDINGS: [&str; 14] = [
        ".tar", ".tgz", ".txz", ".tzst", ".gz", ".xz", ".zst", ".ext4", ".ext3", ".ext2", ".img",
        ".raw", ".zstd", ".gzip",
    ];
    let last = match source.file_name() {
        Some(name) => name.to_owned(),
        // `.` and `..`: the directory's own name.
        None => source.canonicalize().ok()?.file_name()?.to_owned(),
    };
    let mut name = last.to_str()?;
    while let Some(shorter) = ENDINGS.iter().find_map(|end| name.strip_suffix(end)) {
        name = shorter;
    }
    let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    (!name.is_empty() && name.chars().all(legal)).then(|| name.to_owned())
}

pub(super) fn is_stdin(source: &Path) -> bool {
    source == Path::new("-")
}

pub(super) fn told(source: &Path) -> String {
    if is_stdin(source) {
        return "stdin".to_owned();
    }
    let whole = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    whole.to_string_lossy().into_owned()
}

/// Opens a source; a directory is read by `archive`.
pub(super) fn open(
    source: &Path,
    from_stdin: &str,
    archive: impl FnOnce(&Path) -> io::Result<Child>,
) -> Result<Opened, Failure> {
    if is_stdin(source) {
        use std::io::IsTerminal;
        if io::stdin().is_terminal() {
            return Err(Failure::new(
                "stdin is a terminal, and nothing to import comes from there",
            )
            .hint(from_stdin));
        }
        return Ok(Opened::Stdin);
    }
    let failed =
        |e: io::Error| Failure::new(format!("cannot open '{}'", source.display())).caused_by(&e);
    let file = File::open(source).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    Ok(if meta.is_dir() {
        Opened::Archive(archive(source).map_err(|e| no_tar(&e))?)
    } else {
        Opened::File(file)
    })
}

pub(super) fn no_tar(error: &io::Error) -> Failure {
    Failure::new("cannot start 'tar', which reads directories")
        .caused_by(error)
        .hint("apt install tar, or import an archive")
}

/// Reads on a thread of its own; what goes wrong comes out of the receiver, and cuts the upload.
fn start_reader(
    opened: Opened,
    source: &Path,
    chunks: mpsc::Sender<io::Result<Bytes>>,
) -> std::sync::mpsc::Receiver<Failure> {
    let (tell, failures) = std::sync::mpsc::channel();
    let name = source.display().to_string();
    thread::spawn(move || {
        let failed = match opened {
            Opened::Archive(tar) => pump_tar(tar, &chunks),
            Opened::File(file) => pump(file, &chunks),
            Opened::Stdin => pump(io::stdin(), &chunks),
        };
        if let Err(error) = failed {
            let failure = Failure::new(format!("cannot read '{name}'")).caused_by(&error);
            // First the reason, then the cut: who sees the cut finds the reason.
            let _ = tell.send(failure);
            let _ = chunks.blocking_send(Err(error));
        }
    });
    failures
}

/// Sends what a source has; the daemon's leaving ends it, and says why itself.
fn pump(mut source: impl Read, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let chunk = Bytes::copy_from_slice(&buffer[..n]);
        if chunks.blocking_send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
}

/// An archive is whole only if who made it says so.
fn pump_tar(mut tar: Child, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    if let Some(stdout) = tar.stdout.take() {
        pump(stdout, chunks)?;
    }
    let status = tar.wait()?;
    if status.success() || chunks.is_closed() {
        return Ok(());
    }
    Err(io::Error::other(format!("tar ended with {status}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_image_without_its_endings() {
        for (source, name) in [
            ("/a/rootfs.tar.zst", Some("rootfs")),
            ("debian-12.ext4", Some("debian-12")),
            ("x/y/", Some("y")),
            ("box.img.xz", Some("box")),
            ("Box.tar", None),
            (".tar", None),
            ("/", None),
        ] {
            assert_eq!(default_name(Path::new(source)).as_deref(), name, "{source}");
        }
    }
}
