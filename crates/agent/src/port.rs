//! The channel's byte stream: a virtio-serial port, or a socket where there is no VM.
//!
//! A port without a client reports a hang-up for ever, and tokio keeps a hang-up for ever: an `AsyncFd` on the
//! port itself wakes hundreds of thousands of times a second. So the port sits in an epoll of our own,
//! edge-triggered, and tokio watches that epoll.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::event::epoll;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The stream. Use it from one task at a time: it keeps one waker.
#[derive(Debug)]
pub struct Port {
    fd: OwnedFd,
    edges: AsyncFd<OwnedFd>,
    readable: bool,
    writable: bool,
    hung_up: bool,
}

impl Port {
    /// Takes the stream; must be called within the runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        let inner = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&inner, &fd, epoll::EventData::new_u64(0), events)?;
        // SAFETY: the epoll is owned, and nothing exchanges it while it is watched.
        let edges = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }?;
        Ok(Self {
            fd,
            edges,
            readable: true,
            writable: true,
            hung_up: false,
        })
    }

    /// Reads what is there. `Ok(0)` is a hang-up; the next call waits for whatever comes after it.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        loop {
            if !self.readable {
                ready!(self.poll_edge(cx))?;
                continue;
            }
            match rustix::io::read(&self.fd, &mut *buffer) {
                Ok((read, _)) => {
                    if read.is_empty() {
                        self.readable = false;
                    }
                    return Poll::Ready(Ok(read.len()));
                }
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes what fits. A hang-up since [`Self::forget_hang_up`] is `BrokenPipe`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.hung_up {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if !self.writable {
                ready!(self.poll_edge(cx))?;
                continue;
            }
            match rustix::io::write(&self.fd, data) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// A new session begins: earlier hang-ups were somebody else's.
    pub fn forget_hang_up(&mut self) {
        self.hung_up = false;
    }

    /// Waits for a change on the port.
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.edges.poll_read_ready(cx))?;
            let mut events = [MaybeUninit::<epoll::Event>::uninit(); 4];
            let zero = rustix::time::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let seen = match epoll::wait(self.edges.get_ref(), &mut events[..], Some(&zero)) {
                Ok((seen, _)) => seen,
                Err(Errno::INTR) => continue,
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            let flags = seen.first().map(|event| event.flags);
            // An edge that comes after the look above makes tokio ready again by itself.
            guard.clear_ready();
            if let Some(flags) = flags {
                self.readable = true;
                self.writable |= flags.contains(epoll::EventFlags::OUT);
                let end = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
                self.hung_up |= flags.intersects(end);
                // A hang-up has no OUT; the writer must hear of it.
                self.writable |= self.hung_up;
                return Poll::Ready(Ok(()));
            }
        }
    }
}
