//! Whether the image's sshd does as our settings say: of several files the first that names a keyword wins.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_wire::guest::exec::DEFAULT_PATH;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process_group};

use crate::boot::ssh::SETTINGS;
use crate::reaper::Reaper;
use crate::spawn::{Launch, Stdio, Streams, spawn};

/// How long sshd may take to say what its settings are.
const LIMIT: Duration = Duration::from_secs(3);
/// Longest answer that is read.
const MAX_TEXT: usize = 64 * 1024;
/// Where distributions put it. It wants to be called by its whole path.
const PROGRAMS: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"];

/// A sentence for what is otherwise than it should be; none where there is no sshd. Waits for it, for a bounded time.
pub fn complaints(reaper: &Reaper) -> Vec<String> {
    let Some(program) = PROGRAMS.into_iter().find(|path| Path::new(path).is_file()) else {
        return Vec::new();
    };
    let told = match said(reaper, program) {
        Ok(text) => differences(&text),
        Err(why) => Some(format!("{program} -T does not say its settings: {why}")),
    };
    told.into_iter().collect()
}

/// What `sshd -T` prints, within the time it has.
fn said(reaper: &Reaper, program: &str) -> io::Result<String> {
    let launch = Launch {
        program: Path::new(program),
        argv: &[program.to_owned(), "-T".to_owned()],
        env: &[("PATH".to_owned(), DEFAULT_PATH.to_owned())],
        cwd: Path::new("/"),
        uid: 0,
        gid: 0,
        groups: &[],
        stdio: Stdio::Pipes,
    };
    let running = spawn(reaper, &launch)?;
    let Streams::Pipes { stdout, stderr, .. } = running.streams else {
        return Ok(String::new());
    };
    let end = Instant::now() + LIMIT;
    // What it complains of fits into a pipe.
    let read = text(&stdout, end).and_then(|said| Ok((said, text(&stderr, end)?)));
    // Of one that has ended nothing is left to kill.
    reaper.if_alive(running.pid, || {
        let _ = kill_process_group(running.pid, Signal::KILL);
    });
    let (said, complaint) = read?;
    match complaint.trim_end().lines().last() {
        Some(complaint) if said.is_empty() => Err(io::Error::other(complaint)),
        _ => Ok(said),
    }
}

/// What comes out of a pipe to its end, or until a time.
fn text(pipe: &OwnedFd, end: Instant) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while bytes.len() < MAX_TEXT {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        // The signal that a child ended may come to this thread.
        match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => continue,
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            waited => waited?,
        };
        match rustix::io::read(pipe, &mut part) {
            Err(Errno::INTR) => {}
            Ok(0) => break,
            read => bytes.extend_from_slice(&part[..read?]),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What of the output of `sshd -T` is not as we set it, in one sentence.
fn differences(said: &str) -> Option<String> {
    let differs = |(keyword, wanted): (&str, &str)| {
        let value = said.lines().find_map(|line| {
            let (word, value) = line.split_once(' ')?;
            word.eq_ignore_ascii_case(keyword).then(|| value.trim())
        });
        let value = value.unwrap_or("unknown");
        // sshd calls it by its older name.
        let same =
            value == wanted || (value == "without-password" && wanted == "prohibit-password");
        (!same).then(|| format!("{keyword} is {value}, not {wanted}"))
    };
    let found: Vec<String> = SETTINGS.into_iter().filter_map(differs).collect();
    (!found.is_empty()).then(|| {
        format!(
            "the image's sshd does not heed sshd_config.d/99-banger.conf: {}; the first file of that directory that \
             names a keyword wins, if /etc/ssh/sshd_config includes it at its top",
            found.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "port 22\npermitrootlogin without-password\npubkeyauthentication yes\n\
                        passwordauthentication no\nkbdinteractiveauthentication no\n\
                        authorizedkeysfile /root/.ssh/authorized_keys\nstrictmodes yes\n";

    #[test]
    fn only_what_differs_is_told() {
        assert_eq!(differences(GOOD), None);
        assert_eq!(differences(&GOOD.replace("without-", "prohibit-")), None);
        for (is, becomes, told) in [
            (
                "passwordauthentication no",
                "passwordauthentication yes",
                "PasswordAuthentication is yes, not no;",
            ),
            (
                "permitrootlogin without-password",
                "permitrootlogin yes",
                "PermitRootLogin is yes, not prohibit-password;",
            ),
            (
                "pubkeyauthentication yes",
                "pubkeyauthentication no",
                "PubkeyAuthentication is no, not yes;",
            ),
            (
                "kbdinteractiveauthentication no",
                "x",
                "KbdInteractiveAuthentication is unknown, not no;",
            ),
            (
                "/root/.ssh/authorized_keys",
                ".ssh/authorized_keys .ssh/authorized_keys2",
                "AuthorizedKeysFile is .ssh/authorized_keys .ssh/authorized_keys2, not /root/.ssh/authorized_keys;",
            ),
        ] {
            let said = differences(&GOOD.replace(is, becomes)).unwrap();
            assert!(said.contains(told), "{said}");
            assert_eq!(said.matches(", not ").count(), 1, "{said}");
        }
        assert_eq!(differences("").unwrap().matches("unknown").count(), 5);
    }
}
