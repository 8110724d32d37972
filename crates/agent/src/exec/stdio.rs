//! Pipes and terminals as asynchronous streams.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use crate::spawn::set_nonblocking;

/// What a pipe holds at most by default limits, in bytes: read after the deadline without waiting.
const LAST_WORDS: usize = 1024 * 1024;

/// One end of a pipe, or the controlling side of a terminal.
#[derive(Debug)]
pub struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    /// The end we read from.
    pub fn reader(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, Interest::READABLE)
    }

    /// The end we write to.
    pub fn writer(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, Interest::WRITABLE)
    }

    /// Something to read from and write to.
    pub fn both(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, Interest::READABLE | Interest::WRITABLE)
    }

    fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        // SAFETY: the descriptor is owned, and nothing exchanges it while it is watched.
        Ok(Self(unsafe {
            AsyncFd::register_with_interest(fd, interest)
        }?))
    }

    /// The descriptor.
    pub fn fd(&self) -> &OwnedFd {
        self.0.get_ref()
    }

    /// Reads what is there; 0 is the end. A terminal whose last user is gone gives an error; that is its end.
    pub async fn read(&self, buffer: &mut [u8]) -> usize {
        self.try_read(buffer).await.unwrap_or(0)
    }

    /// Reads what is there; 0 is the end.
    pub async fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(read) = guard.try_io(|fd| retry(|| rustix::io::read(fd, &mut *buffer))) {
                return read;
            }
        }
    }

    /// Waits until there is room to write; for a socket that connects, until that is decided.
    pub async fn writable(&self) -> io::Result<()> {
        self.0
            .writable()
            .await
            .map(|mut guard| guard.retain_ready())
    }

    /// Writes everything; waits while the other side does not read.
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let mut guard = self.0.writable().await?;
            if let Ok(written) = guard.try_io(|fd| retry(|| rustix::io::write(fd, data))) {
                data = &data[written?..];
            }
        }
        Ok(())
    }

    /// Reads what is there without waiting; 0 if there is nothing.
    fn read_now(&self, buffer: &mut [u8]) -> usize {
        retry(|| rustix::io::read(self.fd(), &mut *buffer)).unwrap_or(0)
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

/// Reads to the end, or until `deadline` (which may be set later) has passed; what lies in the pipe by then is
/// still read. The time that `take` needs does not count: a slow host loses nothing.
#[derive(Debug)]
pub struct UntilDeadline<'a> {
    stream: &'a Stream,
    deadline: tokio::sync::watch::Receiver<Option<Instant>>,
    left: Option<usize>,
}

impl<'a> UntilDeadline<'a> {
    /// Reads from `stream`.
    pub fn new(
        stream: &'a Stream,
        deadline: tokio::sync::watch::Receiver<Option<Instant>>,
    ) -> Self {
        Self {
            stream,
            deadline,
            left: None,
        }
    }

    /// The next bytes; 0 is the end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> usize {
        if self.left.is_none() {
            let stream = self.stream;
            tokio::select! {
                biased;
                // First: a background process that never stops writing is no reason to read for ever.
                () = passed(&mut self.deadline) => self.left = Some(LAST_WORDS),
                count = stream.read(buffer) => return count,
            }
        }
        let left = self.left.unwrap_or(0);
        if left == 0 {
            return 0;
        }
        let limit = buffer.len().min(left);
        let count = self.stream.read_now(&mut buffer[..limit]);
        self.left = Some(left - count);
        count
    }
}

/// Waits until a deadline is set and has passed.
async fn passed(deadline: &mut tokio::sync::watch::Receiver<Option<Instant>>) {
    let at = match deadline.wait_for(Option::is_some).await {
        Ok(at) => at.unwrap_or_else(Instant::now),
        // Nobody is left to set one; the reader goes with them.
        Err(_) => return,
    };
    let _ = timeout_at(at, std::future::pending::<()>()).await;
}

/// How long output is awaited after the command has ended: a background process may hold the pipe for ever.
pub const GRACE: Duration = Duration::from_millis(500);
