//! From a VMM that was started to a guest that runs commands: the agent's hello, then its word that its root is
//! mounted.
//!
//! Who creates or starts a VM asks the agent for that word. A `vm.run` asks nothing: its command is sent with the
//! first word, the agent holds it until it is ready, and what it answers to the command is the word.

use super::set::Entry;
use super::{VmService, clock};
use banger_converge::Told;
use banger_model::VmId;
use banger_wire::api::Command;
use banger_wire::guest::{ClientError, ExecRequest, ExecStream, GuestClient};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::watch;

/// Wait before a session that was lost while the guest booted is made anew.
const PAUSE: Duration = Duration::from_secs(1);

/// What the guest's answer to the first command says of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// It runs commands.
    Ready,
    /// It cannot, and says why.
    Failed(String),
    /// Nothing.
    Nothing,
}

/// Whom a command is sent to, and the command.
type Ready = (GuestClient, ExecRequest);

/// The boot's half of a command that is sent with the guest's first word.
#[derive(Debug)]
pub struct FirstCommand {
    command: Command,
    /// What it is in a guest of the image, when that is known.
    decided: OnceLock<ExecRequest>,
    linked: watch::Sender<Option<Ready>>,
    answer: watch::Receiver<Option<Answer>>,
}

/// The command's half.
#[derive(Debug)]
pub struct Starter {
    linked: watch::Receiver<Option<Ready>>,
    answer: watch::Sender<Option<Answer>>,
}

/// A command that a boot is to begin with.
pub fn first_command(command: Command) -> (FirstCommand, Starter) {
    let (linked, see_linked) = watch::channel(None);
    let (answer, see_answer) = watch::channel(None);
    let boot = FirstCommand {
        command,
        decided: OnceLock::new(),
        linked,
        answer: see_answer,
    };
    let starter = Starter {
        linked: see_linked,
        answer,
    };
    (boot, starter)
}

impl Starter {
    /// Sends the command as soon as the guest has said its first word, and tells the boot what its answer says.
    ///
    /// # Errors
    /// The boot ended without a first word, or the guest did not start the command.
    pub async fn exec(mut self) -> Result<ExecStream, ClientError> {
        let linked = self.linked.wait_for(Option::is_some).await;
        let Some((guest, request)) = linked.ok().and_then(|ready| ready.clone()) else {
            return Err(ClientError::ConnectionLost);
        };
        let started = guest.exec(&request).await;
        self.answer.send_replace(Some(Answer::of(&started)));
        started
    }
}

impl Answer {
    fn of<T>(started: &Result<T, ClientError>) -> Answer {
        match started {
            Ok(_) => Answer::Ready,
            Err(error) => match error.not_ready() {
                Some(why) => Answer::Failed(why.to_owned()),
                None => Answer::Nothing,
            },
        }
    }
}

impl FirstCommand {
    /// The command as it was asked for.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// This is what it is in a guest of the image.
    pub fn decided(&self, request: ExecRequest) {
        // An image is chosen once.
        let _ = self.decided.set(request);
    }

    /// Lets the command go to this guest, and waits for what its answer says.
    async fn send(&self, guest: GuestClient) -> Answer {
        let Some(request) = self.decided.get() else {
            return Answer::Nothing;
        };
        self.linked.send_replace(Some((guest, request.clone())));
        let mut answer = self.answer.clone();
        let answered = answer.wait_for(Option::is_some).await;
        // Without its sender there is no command any more.
        let answered = answered.ok().and_then(|answer| answer.clone());
        answered.unwrap_or(Answer::Nothing)
    }
}

/// How long a guest may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within {
    /// To its hello.
    pub hello: Duration,
    /// From there until it runs commands.
    pub ready: Duration,
}

impl VmService {
    /// Waits until a guest runs commands; keeps the session that its first word begins.
    pub(super) async fn await_ready(
        &self,
        id: VmId,
        entry: &Entry,
        within: Within,
        first: Option<&FirstCommand>,
    ) -> Told {
        self.enclose(id);
        tokio::select! {
            told = self.hello_and_ready(id, entry, within, first) => told,
            () = self.vmm_exited(id) => Told::VmmEnded(self.last_words(id).await),
        }
    }

    async fn hello_and_ready(
        &self,
        id: VmId,
        entry: &Entry,
        within: Within,
        first: Option<&FirstCommand>,
    ) -> Told {
        let guest = match self.connect(id, within.hello).await {
            Ok(guest) => guest,
            Err(error) => {
                tracing::warn!(vm = %id, %error, "no hello");
                return Told::NoHello;
            }
        };
        clock::tell(id, &guest);
        entry.link.send_replace(Some(guest.clone()));
        let ready = self.ready(id, entry, guest, within.ready, first);
        let why = match tokio::time::timeout(within.ready, ready).await {
            Ok(Ok(())) => return Told::Ready,
            Ok(Err(why)) => why,
            Err(_) => format!(
                "the guest said hello, and not within {} s that it is ready",
                within.ready.as_secs()
            ),
        };
        tracing::warn!(vm = %id, why, "the guest is not ready");
        Told::GuestFailed(why)
    }

    /// Waits for the guest's word that it runs commands, over one session after the other; the error is its reason.
    async fn ready(
        &self,
        id: VmId,
        entry: &Entry,
        mut guest: GuestClient,
        within: Duration,
        first: Option<&FirstCommand>,
    ) -> Result<(), String> {
        if let Some(first) = first {
            match first.send(guest.clone()).await {
                Answer::Ready => return Ok(()),
                Answer::Failed(why) => return Err(why),
                Answer::Nothing => {}
            }
        }
        loop {
            let Err(error) = guest.ready().await else {
                return Ok(());
            };
            if let Some(why) = error.not_ready() {
                return Err(why.to_owned());
            }
            if !matches!(error, ClientError::ConnectionLost) {
                return Err(format!("the guest's agent cannot be understood: {error}"));
            }
            tracing::info!(vm = %id, "the session with the agent ended while its guest booted");
            entry.link.send_replace(None);
            tokio::time::sleep(PAUSE).await;
            let linked = self.connect(id, within).await;
            guest = linked.map_err(|error| error.to_string())?;
            clock::tell(id, &guest);
            entry.link.send_replace(Some(guest.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot that ends before the first word ends the wait of its command, and a command that goes away that of
    /// the boot.
    #[tokio::test]
    async fn neither_half_waits_for_one_that_is_gone() {
        let (boot, command) = first_command(Command::default());
        drop(boot);
        let lost = command.exec().await;
        assert!(matches!(lost, Err(ClientError::ConnectionLost)));
        let (boot, command) = first_command(Command::default());
        drop(command);
        let answered = boot.answer.clone().wait_for(Option::is_some).await.is_ok();
        assert!(!answered);
    }

    /// Only the refusal of a guest that is not ready is its word on that.
    #[test]
    fn what_an_answer_says_of_the_guest() {
        let refused = |status| {
            Err::<(), _>(ClientError::Refused {
                status,
                message: "no root".to_owned(),
            })
        };
        assert_eq!(Answer::of(&Ok(())), Answer::Ready);
        assert_eq!(Answer::of(&refused(503)), Answer::Failed("no root".into()));
        assert_eq!(Answer::of(&refused(400)), Answer::Nothing);
        let lost = Err::<(), _>(ClientError::ConnectionLost);
        assert_eq!(Answer::of(&lost), Answer::Nothing);
    }
}
