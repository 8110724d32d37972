//! The command's output to ours, by a thread of its own: a slow reader holds up nothing but itself.

use bytes::Bytes;
use std::{
    io::{self, Write},
    thread,
};
use tokio::sync::mpsc;

/// Output of the command.
pub enum Chunk {
    /// For our stdout.
    Stdout(Bytes),
    /// For our stderr.
    Stderr(Bytes),
}

/// Starts the thread. It ends when the sender is dropped, or with the first write that fails.
pub fn start(chunks: usize) -> (mpsc::Sender<Chunk>, thread::JoinHandle<io::Result<()>>) {
    let (sender, mut receiver) = mpsc::channel(chunks);
    let writer = thread::spawn(move || {
        while let Some(chunk) = receiver.blocking_recv() {
            match chunk {
                Chunk::Stdout(bytes) => write_all(&mut io::stdout().lock(), &bytes)?,
                Chunk::Stderr(bytes) => write_all(&mut io::stderr().lock(), &bytes)?,
            }
        }
        Ok(())
    });
    (sender, writer)
}

fn write_all(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
