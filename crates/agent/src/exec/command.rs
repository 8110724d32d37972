//! One command, whether anybody attends to it or not: what it wrote, what it is to read, how it ended, who holds it.

use std::sync::{OnceLock, Weak};

use banger_wire::guest::frame::{Output, Taken};
use banger_wire::guest::{ExitStatus, TtySize};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::watch;

use super::input::{Input, Next};
use super::log::Log;
use super::stdio::Stream;
use crate::guest::Guest;
use crate::reaper::Reaper;
use crate::spawn;

/// Input that was consumed is told in steps of this many bytes, or when none is left.
const TELL_INPUT: u64 = 32 * 1024;

/// One command. All tasks around it share it, and wait for what they need of it.
#[derive(Debug)]
pub struct Command {
    state: watch::Sender<State>,
    /// Whether it has an id: then it is kept for whoever comes back, and output is kept until the host has got it.
    named: bool,
    process: OnceLock<Process>,
}

#[derive(Debug, Default)]
struct State {
    log: Log,
    input: Input,
    exit: Option<ExitStatus>,
    /// The attachment that counts: a newer one takes over from one whose session has not been seen to end.
    holder: u64,
    attached: bool,
    /// Nobody will come any more.
    left: bool,
}

/// What runs.
#[derive(Debug)]
pub struct Process {
    /// Collects it.
    pub reaper: Reaper,
    /// Its process group.
    pub pid: Pid,
    /// Its terminal, for as long as that is read.
    pub terminal: Option<Weak<Stream>>,
}

/// The number of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold(u64);

/// What an attachment sends next.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// These bytes of this stream.
    Output(Output, Vec<u8>),
    /// Input has arrived.
    Taken(Taken),
    /// It ended, and all its output was sent.
    Exit(ExitStatus),
    /// Another attachment took over, or nobody is to come any more.
    Over,
}

impl Command {
    /// A command that has not been started.
    pub fn unstarted(named: bool) -> Self {
        Self {
            state: watch::Sender::new(State::default()),
            named,
            process: OnceLock::new(),
        }
    }

    /// Whether it has an id.
    pub const fn named(&self) -> bool {
        self.named
    }

    /// It runs.
    pub fn started(&self, process: Process) {
        // There is one start.
        let _ = self.process.set(process);
    }

    /// It ended, or was never started; all its output is here.
    pub fn ended(&self, status: ExitStatus) {
        self.state.send_modify(|state| {
            state.input.close();
            state.exit = Some(status);
        });
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = self.process.get() {
            process.reaper.if_alive(process.pid, || {
                // It may have ended this instant.
                let _ = kill_process_group(process.pid, signal);
            });
        }
    }

    /// Sets the size of its terminal, if it has one.
    pub fn resize(&self, size: TtySize) {
        let terminal = self.process.get().and_then(|p| p.terminal.as_ref());
        if let Some(terminal) = terminal.and_then(Weak::upgrade) {
            let _ = spawn::resize(terminal.fd(), size);
        }
    }

    /// Waits until more output may be kept; false if nobody wants it any more.
    pub async fn output_room(&self) -> bool {
        self.when(|state| state.left || state.log.has_room())
            .await
            .is_some_and(|state| !state.left)
    }

    /// Keeps output.
    pub fn wrote(&self, output: Output, bytes: &[u8]) {
        self.state
            .send_modify(|state| state.log.push(output, bytes));
    }

    /// Output before `offset` has been got.
    pub fn got(&self, offset: u64) {
        self.state.send_modify(|state| state.log.got(offset));
    }

    /// Whether output from `offset` on is still here.
    pub fn keeps(&self, offset: u64) -> bool {
        self.state.borrow().log.keeps(offset)
    }

    /// Takes input from this attachment, when there is room for it. What waits for room while another takes over is
    /// dropped: the other was told that it has not arrived, and sends it again.
    pub async fn put(&self, hold: Hold, bytes: &[u8]) {
        let ready = |state: &State| state.left || state.holder != hold.0 || state.input.has_room();
        drop(self.when(ready).await);
        self.state.send_if_modified(|state| {
            let ours = state.holder == hold.0;
            if ours {
                state.input.put(bytes);
            }
            ours
        });
    }

    /// The input ends here.
    pub fn end_input(&self) {
        self.state.send_modify(|state| state.input.end());
    }

    /// It takes no more input.
    pub fn close_input(&self) {
        self.state.send_modify(|state| state.input.close());
    }

    /// Waits for input to write, or its end.
    pub async fn next_input(&self) -> Next {
        drop(self.when(|state| state.input.is_due()).await);
        let mut next = Next::Nothing;
        self.state.send_if_modified(|state| {
            next = state.input.next();
            // What was taken out is told when it is written.
            false
        });
        next
    }

    /// So much input was written.
    pub fn input_written(&self, count: usize) {
        self.state.send_modify(|state| state.input.wrote(count));
    }

    /// Attaches; whoever held it before is told that it is over.
    pub fn hold(&self) -> Hold {
        let mut hold = 0;
        self.state.send_modify(|state| {
            state.holder += 1;
            state.attached = true;
            hold = state.holder;
        });
        Hold(hold)
    }

    /// Lets go, unless another has taken over.
    pub fn let_go(&self, hold: Hold) {
        if !self.named {
            self.leave();
        }
        self.state.send_if_modified(|state| {
            let ours = state.holder == hold.0;
            state.attached &= !ours;
            ours
        });
    }

    /// Whether this attachment is the one that counts.
    pub fn is_held_by(&self, hold: Hold) -> bool {
        self.state.borrow().holder == hold.0
    }

    /// Nobody will come any more: what runs gets a hang-up, and our ends of its streams are closed.
    pub fn leave(&self) {
        let running = self.state.send_if_modified(|state| {
            let first = !std::mem::replace(&mut state.left, true);
            first && state.exit.is_none()
        });
        if running {
            self.signal(Signal::HUP);
        } else {
            // Told to those who wait, though nothing ran any more.
            self.state.send_modify(|_| ());
        }
    }

    /// Waits for [`Self::leave`].
    pub async fn left(&self) {
        drop(self.when(|state| state.left).await);
    }

    /// Waits until nobody has come for it for the limit, counted while a host is there.
    pub async fn orphaned(&self, guest: &Guest, limit: std::time::Duration) {
        loop {
            drop(self.when(|state| !state.attached).await);
            guest.hosted(true).await;
            tokio::select! {
                () = tokio::time::sleep(limit) => return,
                () = guest.hosted(false) => {}
                _ = self.when(|state| state.attached) => {}
            }
        }
    }

    /// Waits for what an attachment sends next: output from `offset` on, input other than `told`, the end.
    pub async fn news(&self, hold: Hold, offset: u64, told: Option<Taken>) -> News {
        let due = |state: &State| {
            state.left
                || state.holder != hold.0
                || state.log.end() > offset
                || state.exit.is_some()
                || self.input_news(state, told).is_some()
        };
        loop {
            let Some(state) = self.when(due).await else {
                return News::Over;
            };
            if state.left || state.holder != hold.0 {
                return News::Over;
            }
            if let Some(taken) = self.input_news(&state, told) {
                return News::Taken(taken);
            }
            match (state.log.from(offset), &state.exit) {
                (Some((output, bytes)), _) => return News::Output(output, bytes.to_vec()),
                // A host that has got more than it attached for has contradicted itself.
                (None, _) if !state.log.keeps(offset) => return News::Over,
                (None, Some(status)) => return News::Exit(status.clone()),
                (None, None) => {}
            }
        }
    }

    /// What of the input is worth telling. Only who may come back needs to know.
    fn input_news(&self, state: &State, told: Option<Taken>) -> Option<Taken> {
        let now = state.input.taken();
        let Some(told) = told else {
            return Some(now);
        };
        let step = now.consumed - told.consumed >= TELL_INPUT;
        let empty = now.consumed == now.received && now.consumed > told.consumed;
        (self.named && (step || empty)).then_some(now)
    }

    /// Waits until the state is such.
    async fn when(&self, is: impl Fn(&State) -> bool) -> Option<watch::Ref<'_, State>> {
        // A receiver of its own for each wait, so that none sees another's changes as seen.
        let mut seen = self.state.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let waited = seen.wait_for(|state| is(state)).await.is_ok();
        waited.then(|| self.state.borrow())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use banger_wire::guest::exec::WINDOW;

    use super::*;

    /// Input that waits for room while another attachment takes over was not received, whatever room there is later: the
    /// other is told so, and sends it again.
    #[tokio::test]
    async fn input_of_a_displaced_attachment_does_not_come_late() {
        let command = Arc::new(Command::unstarted(true));
        let first = command.hold();
        let full = vec![0; usize::try_from(WINDOW).unwrap()];
        command.put(first, &full).await;
        let late = {
            let command = Arc::clone(&command);
            tokio::spawn(async move { command.put(first, b"late").await })
        };
        // It waits: on one thread, whatever can go on does while we sleep.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!late.is_finished());
        let second = command.hold();
        while let Next::Write(bytes) = command.next_input().await {
            command.input_written(bytes.len());
            if command.state.borrow().input.taken().consumed == WINDOW {
                break;
            }
        }
        late.await.unwrap();
        let told = Taken {
            received: WINDOW,
            consumed: WINDOW,
        };
        assert_eq!(command.news(second, 0, None).await, News::Taken(told));
        assert_eq!(command.news(first, 0, None).await, News::Over);
    }
}
