//! What an SSH session runs in the guest.

use super::Guest;
use crate::failure::Failure;
use banger_wire::{
    api::{Command, Frame, VmExec},
    guest::{ExitStatus, frame::Frame as GuestFrame},
};

/// Where images keep the program that serves `sftp` and `scp`.
const FIND_SFTP: &str = "for p in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/libexec /usr/lib; do \
    [ -x $p/sftp-server ] && exec echo $p/sftp-server; done; exit 1";

/// A command, run by the user's shell, as sshd does.
pub fn command(line: &str) -> Vec<String> {
    let run = "exec \"${SHELL:-/bin/sh}\" -c \"$1\"";
    argv(&["/bin/sh", "-c", run, "sh", line])
}

/// What serves a subsystem; `None` if the image has nothing for it.
pub async fn subsystem(guest: &Guest, name: &str) -> Option<Vec<String>> {
    if name != "sftp" {
        return None;
    }
    let path = output(guest, &["/bin/sh", "-c", FIND_SFTP]).await.ok()?;
    let path = path.trim();
    (!path.is_empty()).then(|| argv(&[path]))
}

/// Runs a program as root; gives what it wrote, whatever it ended with.
///
/// # Errors
/// The daemon's.
pub async fn output(guest: &Guest, words: &[&str]) -> Result<String, Failure> {
    let request = VmExec {
        vm: guest.vm.clone(),
        command: Command {
            argv: argv(words),
            ..Command::default()
        },
    };
    let (mut sender, mut receiver) = guest.daemon.frames(&request).await?;
    sender.send(&Frame::Command(GuestFrame::StdinEof)).await?;
    let mut output = Vec::new();
    while let Some(frame) = receiver.next().await? {
        match frame {
            Frame::Command(GuestFrame::Stdout(data)) => output.extend_from_slice(&data),
            Frame::Command(GuestFrame::Exit(_)) => break,
            _ => {}
        }
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// What SSH is told of an end.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// An exit status.
    Status(u32),
    /// A signal that SSH has a name for; others are statuses above 128.
    Signal(u8),
}

impl From<&ExitStatus> for End {
    fn from(status: &ExitStatus) -> Self {
        match status {
            ExitStatus::Signaled { signal } if named(*signal).is_some() => End::Signal(*signal),
            ExitStatus::Failed(failure) => End::Status(failure.reason.code().into()),
            status => End::Status(status.code().into()),
        }
    }
}

/// Signals that SSH names (RFC 4254, 6.10), with Linux's numbers.
const SIGNALS: [(russh::Sig, u8); 12] = [
    (russh::Sig::HUP, 1),
    (russh::Sig::INT, 2),
    (russh::Sig::QUIT, 3),
    (russh::Sig::ILL, 4),
    (russh::Sig::ABRT, 6),
    (russh::Sig::FPE, 8),
    (russh::Sig::KILL, 9),
    (russh::Sig::USR1, 10),
    (russh::Sig::SEGV, 11),
    (russh::Sig::PIPE, 13),
    (russh::Sig::ALRM, 14),
    (russh::Sig::TERM, 15),
];

/// SSH's name of a signal.
pub fn named(number: u8) -> Option<russh::Sig> {
    let found = SIGNALS.iter().find(|(_, n)| *n == number);
    found.map(|(name, _)| name.clone())
}

/// Linux's number of a signal.
pub fn number(name: &russh::Sig) -> Option<u8> {
    let same = |other: &russh::Sig| std::mem::discriminant(other) == std::mem::discriminant(name);
    SIGNALS.iter().find(|(n, _)| same(n)).map(|(_, n)| *n)
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().copied().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_as_ssh_tells_them() {
        let end = |status| End::from(&status);
        assert_eq!(end(ExitStatus::Exited { code: 42 }), End::Status(42));
        assert_eq!(end(ExitStatus::Signaled { signal: 15 }), End::Signal(15));
        assert_eq!(end(ExitStatus::Signaled { signal: 28 }), End::Status(156));
        assert_eq!(number(&russh::Sig::USR1), Some(10));
        assert_eq!(number(&russh::Sig::Custom("x".to_owned())), None);
    }
}
