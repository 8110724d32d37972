//! Our side of a command: stdin, signals and the terminal's size to it, over as many connections as it takes.

use crate::{
    signals::{Resizes, Signals},
    terminal,
};
use banger_wire::{
    api::{Frame, FrameSender},
    guest::{
        exec::WINDOW,
        frame::{BEST_PAYLOAD, Frame as GuestFrame, Taken},
    },
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    io::{self, Read},
    pin::pin,
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// Chunks in flight between the reading thread and the event loop.
const CHUNKS: usize = 8;
/// How long a signal waits for frames in front of it that nobody takes.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many signals end us, whatever the command makes of them.
const INSISTENT: u32 = 3;
/// Output that has been got is told in steps of this many bytes.
const TELL_GOT: u64 = WINDOW / 8;

/// Why we leave before the command ends.
pub enum Leave {
    /// A signal, by its number.
    Signal(u8),
    /// Our stdin.
    Unreadable(io::Error),
}

/// What the other direction tells this one.
pub struct Told {
    /// The command runs: signals are its own.
    pub runs: watch::Receiver<bool>,
    /// What has arrived of its input.
    pub taken: watch::Receiver<Taken>,
    /// Bytes of its output that we have.
    pub got: watch::Receiver<u64>,
}

/// Input that has been read and may have to be sent again.
#[derive(Debug, Default)]
struct Kept {
    /// From offset `base` on.
    bytes: VecDeque<u8>,
    base: u64,
    sent: u64,
    /// Nothing follows these bytes.
    ended: bool,
    end_sent: bool,
}

impl Kept {
    /// Whether a chunk may be read: all that is kept may be sent without waiting for the command.
    fn has_room(&self) -> bool {
        !self.ended && self.bytes.len() + BEST_PAYLOAD <= usize::try_from(WINDOW).unwrap_or(0)
    }

    fn consumed(&mut self, offset: u64) {
        let count = offset.saturating_sub(self.base);
        let count = usize::try_from(count).map_or(self.bytes.len(), |n| n.min(self.bytes.len()));
        self.bytes.drain(..count);
        self.base += count as u64;
    }

    /// A new connection goes on from what has arrived.
    fn rewind(&mut self, taken: Taken) {
        self.consumed(taken.consumed);
        self.sent = taken
            .received
            .clamp(self.base, self.base + self.bytes.len() as u64);
        self.end_sent = false;
    }

    /// The next frame to send; it counts as sent.
    fn next(&mut self) -> Option<GuestFrame> {
        let from = usize::try_from(self.sent - self.base).ok()?;
        let rest = self.bytes.len() - from;
        if rest > 0 {
            let part: Vec<u8> = self
                .bytes
                .range(from..from + rest.min(BEST_PAYLOAD))
                .copied()
                .collect();
            self.sent += part.len() as u64;
            return Some(GuestFrame::Stdin(part.into()));
        }
        let end = self.ended && !self.end_sent;
        self.end_sent |= end;
        end.then_some(GuestFrame::StdinEof)
    }
}

/// Everything that goes to the command.
pub struct Feed {
    stdin: mpsc::Receiver<io::Result<Bytes>>,
    signals: Signals,
    resizes: Resizes,
    told: Told,
    tty: bool,
    kept: Kept,
    got_told: u64,
    /// Signals that are not delivered yet.
    waiting: VecDeque<u8>,
    insisted: u32,
}

impl Feed {
    /// Starts to read stdin and to listen to signals.
    ///
    /// # Errors
    /// The system refuses to tell of signals.
    pub fn start(tty: bool, told: Told) -> io::Result<Self> {
        Ok(Feed {
            signals: Signals::listen()?,
            resizes: Resizes::listen()?,
            stdin: start_reader(),
            told,
            tty,
            kept: Kept::default(),
            got_told: 0,
            waiting: VecDeque::new(),
            insisted: 0,
        })
    }

    /// Waits for a signal while there is no connection to send it over: it ends us.
    pub async fn interrupted(&mut self) -> Leave {
        Leave::Signal(self.signals.next().await)
    }

    /// The last connection says nothing any more: what it said of our input and was not looked at is out of date.
    pub fn forget_taken(&mut self) {
        self.told.taken.mark_unchanged();
    }

    /// Takes up a command on a new connection: its first frame says what has arrived of our input.
    pub async fn resume(&mut self, mut sender: FrameSender) -> Leave {
        tokio::select! {
            Ok(()) = self.told.taken.changed() => {}
            number = self.signals.next() => return Leave::Signal(number),
        }
        let taken = *self.told.taken.borrow_and_update();
        self.kept.rewind(taken);
        self.got_told = 0;
        if let Some(size) = terminal::size().filter(|_| self.tty)
            && let Err(leave) = self.deliver(&mut sender, GuestFrame::Resize(size)).await
        {
            return leave;
        }
        self.run(sender).await
    }

    /// Sends what there is to send. Ends only if we are to leave.
    pub async fn run(&mut self, mut sender: FrameSender) -> Leave {
        loop {
            let signal = self.waiting.front().copied();
            let frame = if let Some(number) = signal {
                if !*self.told.runs.borrow() || self.insisted >= INSISTENT {
                    return Leave::Signal(number);
                }
                GuestFrame::Signal(number)
            } else if let Some(offset) = self.got_due() {
                GuestFrame::Got(offset)
            } else if let Some(frame) = self.kept.next() {
                frame
            } else {
                match self.wait().await {
                    Ok(Some(frame)) => frame,
                    Ok(None) => continue,
                    Err(leave) => return leave,
                }
            };
            if let Err(leave) = self.deliver(&mut sender, frame).await {
                return leave;
            }
            if signal.is_some() {
                // Only now: a connection that broke meanwhile is followed by another.
                self.waiting.pop_front();
            }
        }
    }

    fn got_due(&mut self) -> Option<u64> {
        let got = *self.told.got.borrow_and_update();
        let due = got - self.got_told >= TELL_GOT;
        if due {
            self.got_told = got;
        }
        due.then_some(got)
    }

    /// Waits until something is to be sent; gives what is sent by itself.
    async fn wait(&mut self) -> Result<Option<GuestFrame>, Leave> {
        tokio::select! {
            chunk = self.stdin.recv(), if self.kept.has_room() => match chunk {
                Some(Ok(bytes)) => self.kept.bytes.extend(&bytes),
                Some(Err(error)) => return Err(Leave::Unreadable(error)),
                None => self.kept.ended = true,
            },
            number = self.signals.next() => self.note(number),
            () = self.resizes.next(), if self.tty => {
                return Ok(terminal::size().map(GuestFrame::Resize));
            }
            Ok(()) = self.told.taken.changed() => {
                let taken = *self.told.taken.borrow_and_update();
                self.kept.consumed(taken.consumed);
            }
            Ok(()) = self.told.got.changed() => {}
        }
        Ok(None)
    }

    fn note(&mut self, number: u8) {
        self.waiting.push_back(number);
        self.insisted += 1;
    }

    /// Sends a frame, and notes the signal that comes meanwhile. A signal behind frames that nobody takes ends us
    /// instead, and our leaving the command.
    async fn deliver(&mut self, sender: &mut FrameSender, frame: GuestFrame) -> Result<(), Leave> {
        let frame = Frame::Command(frame);
        let mut sending = pin!(sender.send(&frame));
        let (sent, number) = tokio::select! {
            sent = &mut sending => (sent, None),
            number = self.signals.next() => match tokio::time::timeout(PATIENCE, sending).await {
                Ok(sent) => (sent, Some(number)),
                Err(_) => return Err(Leave::Signal(number)),
            },
        };
        if let Some(number) = number {
            self.note(number);
        }
        if sent.is_err() {
            // The connection is gone; what the daemon said last is still to be read.
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn start_reader() -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; BEST_PAYLOAD];
        loop {
            let read = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map(|n| Bytes::copy_from_slice(&buffer[..n])),
            };
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: Option<GuestFrame>) -> String {
        match frame {
            Some(GuestFrame::Stdin(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
            Some(GuestFrame::StdinEof) => "EOF".to_owned(),
            other => panic!("{other:?}"),
        }
    }

    /// R-PROG-2: what the guest has received is not sent again, everything else is, and the end of the input after it.
    #[test]
    fn a_new_connection_goes_on_from_what_has_arrived() {
        let mut kept = Kept::default();
        kept.bytes.extend(b"hello world");
        kept.ended = true;
        assert_eq!(text(kept.next()), "hello world");
        assert_eq!(text(kept.next()), "EOF");
        assert_eq!(kept.next(), None);
        kept.rewind(Taken {
            received: 6,
            consumed: 3,
        });
        assert_eq!(text(kept.next()), "world");
        assert_eq!(text(kept.next()), "EOF");
        kept.consumed(11);
        assert!(kept.bytes.is_empty());
        kept.rewind(Taken {
            received: 11,
            consumed: 11,
        });
        assert_eq!(text(kept.next()), "EOF");
    }

    #[test]
    fn no_more_is_kept_than_may_be_sent_at_once() {
        let mut kept = Kept::default();
        let mut all = 0;
        while kept.has_room() {
            kept.bytes.extend([0; BEST_PAYLOAD]);
            all += BEST_PAYLOAD as u64;
        }
        assert!(all <= WINDOW && all + 2 * BEST_PAYLOAD as u64 > WINDOW);
        kept.consumed(all);
        assert!(kept.has_room() && kept.base == all);
    }
}
