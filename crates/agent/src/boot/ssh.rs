//! What an sshd of the image finds: who may enter, who it is, how it is to behave (R-GUEST-3, R-GUEST-4).
//!
//! Keys lie on the work disk, in `/root/.ssh`. `/etc/ssh` gets links to the host key and one file of settings, in the
//! layer for changes, and only where the image has an sshd.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use banger_wire::guest::SshFacts;

use super::{Reason, mounts};

const HOME: &str = ".ssh";
const AUTHORIZED_KEYS: &str = "authorized_keys";
const HOST_KEY: &str = "ssh_host_ed25519_key";
/// Where the sshd of every distribution keeps its settings and keys.
const ETC: &str = "/etc/ssh";
/// Settings that come before those of `sshd_config`, which includes this directory at its top.
const DROP_IN: &str = "/etc/ssh/sshd_config.d/99-banger.conf";
/// Debian's sshd wants it, and only its systemd unit makes it.
const RUN: &str = "/run/sshd";

/// What is set, in order: keyword and value.
pub const SETTINGS: [(&str, &str); 5] = [
    ("PermitRootLogin", "prohibit-password"),
    ("PubkeyAuthentication", "yes"),
    ("PasswordAuthentication", "no"),
    ("KbdInteractiveAuthentication", "no"),
    ("AuthorizedKeysFile", "/root/.ssh/authorized_keys"),
];

/// Prepares the root that was entered. Gives a sentence for each thing that failed.
pub fn prepare(facts: &SshFacts) -> Vec<Reason> {
    let mut tasks = vec![(
        "/root/.ssh",
        keys(Path::new("/root"), facts.authorized_key.as_deref()),
    )];
    if has_sshd(Path::new(ETC)) {
        tasks.push(("the image's sshd", set_up(facts)));
    }
    let failed = |(what, done): (&str, io::Result<()>)| {
        let error = done.err()?;
        Some(format!("{what} cannot be prepared: {error}"))
    };
    tasks.into_iter().filter_map(failed).collect()
}

fn has_sshd(etc: &Path) -> bool {
    etc.join("sshd_config").exists() || etc.join("sshd_config.d").is_dir()
}

/// `.ssh` is root's alone, and who is to be let in stands in it.
fn keys(home: &Path, ours: Option<&str>) -> io::Result<()> {
    let home = home.join(HOME);
    if !home.is_dir() {
        fs::create_dir(&home)?;
    }
    own(&home, 0o700)?;
    let Some(ours) = ours else { return Ok(()) };
    let file = home.join(AUTHORIZED_KEYS);
    // Where the links lead.
    let file = file.canonicalize().unwrap_or(file);
    let there = match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        there => there?,
    };
    match with_key(&there, ours) {
        Some(text) => write(&file, &text, 0o600),
        None => own(&file, 0o600),
    }
}

/// An `authorized_keys` that lets a key in exactly once; `None` if it does. A line that has the key stays as the user
/// made it (options before it, another comment behind it), and so does every line without it.
fn with_key(there: &[u8], ours: &str) -> Option<Vec<u8>> {
    let key = ours.split_whitespace().nth(1)?.as_bytes();
    let has_it = |line: &[u8]| {
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|w| !w.is_empty());
        line.trim_ascii_start().first() != Some(&b'#') && words.any(|word| word == key)
    };
    let mut text = Vec::with_capacity(there.len() + ours.len() + 2);
    let mut seen = false;
    for line in there.split_inclusive(|byte| *byte == b'\n') {
        let is_ours = has_it(line);
        if !(is_ours && seen) {
            text.extend_from_slice(line);
        }
        seen |= is_ours;
    }
    if !seen {
        if text.last().is_some_and(|byte| *byte != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(ours.trim_end().as_bytes());
        text.push(b'\n');
    }
    (text != there).then_some(text)
}

fn set_up(facts: &SshFacts) -> io::Result<()> {
    let files = [
        ("", &facts.host_key, 0o600),
        (".pub", &facts.host_public_key, 0o644),
    ];
    for (suffix, text, mode) in files {
        let name = format!("{HOST_KEY}{suffix}");
        let kept = Path::new("/root").join(HOME).join(&name);
        if !fs::read(&kept).is_ok_and(|found| found == text.as_bytes()) {
            write(&kept, text.as_bytes(), mode)?;
        }
        own(&kept, mode)?;
        link(&kept, &Path::new(ETC).join(name))?;
    }
    let text = drop_in();
    if !fs::read(DROP_IN).is_ok_and(|found| found == text.as_bytes()) {
        mounts::make_dir(Path::new("/etc/ssh/sshd_config.d"), 0o755).map_err(io::Error::other)?;
        write(Path::new(DROP_IN), text.as_bytes(), 0o644)?;
    }
    mounts::make_dir(Path::new(RUN), 0o755).map_err(io::Error::other)
}

fn drop_in() -> String {
    let lines = SETTINGS.map(|(keyword, value)| format!("{keyword} {value}\n"));
    lines.concat()
}

/// Replaces what is there by a link: a key that came with the image is known to all who have the image.
fn link(to: &Path, at: &Path) -> io::Result<()> {
    if fs::read_link(at).is_ok_and(|there| there == to) {
        return Ok(());
    }
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(to, at),
    }
}

/// root:root with this mode, where it is not.
fn own(path: &Path, mode: u32) -> io::Result<()> {
    let is = fs::metadata(path)?;
    if (is.uid(), is.gid()) != (0, 0) {
        chown(path, Some(0), Some(0))?;
    }
    if is.mode() & 0o7777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Writes a file through a temporary one, so that a cut leaves the old or the new.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".banger");
    let part = PathBuf::from(part);
    // What a cut left may have another mode.
    let _ = fs::remove_file(&part);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&part)?;
    file.write_all(bytes)?;
    // One that is new is made anew after a cut; one that has something of the user must not be lost.
    if path.exists() {
        file.sync_all()?;
    }
    fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "ssh-ed25519 AAAAours banger";

    #[test]
    fn our_key_is_there_once_and_the_users_stay() {
        let with = |there: &str| {
            let text = with_key(there.as_bytes(), OURS);
            text.map(|text| String::from_utf8(text).unwrap())
        };
        for (there, wanted) in [
            ("", "ssh-ed25519 AAAAours banger\n"),
            (
                "ssh-rsa AAAAmine me\n",
                "ssh-rsa AAAAmine me\nssh-ed25519 AAAAours banger\n",
            ),
            (
                "ssh-rsa AAAAmine me",
                "ssh-rsa AAAAmine me\nssh-ed25519 AAAAours banger\n",
            ),
            (
                "\r\n# AAAAours\n",
                "\r\n# AAAAours\nssh-ed25519 AAAAours banger\n",
            ),
            // Part of another key, or of a comment's word, is not ours.
            (
                "ssh-rsa AAAAoursX me\n",
                "ssh-rsa AAAAoursX me\nssh-ed25519 AAAAours banger\n",
            ),
            // More than once: the first, as the user edited it.
            (
                "no-pty ssh-ed25519 AAAAours x\nssh-rsa AAAAmine me\nssh-ed25519 AAAAours banger\n",
                "no-pty ssh-ed25519 AAAAours x\nssh-rsa AAAAmine me\n",
            ),
        ] {
            let text = with(there);
            assert_eq!(text.as_deref(), Some(wanted), "{there:?}");
            assert_eq!(with(wanted), None, "twice is as once: {there:?}");
        }
        for own in [
            "from=\"10.0.0.0/8\" ssh-ed25519 AAAAours mine now\n",
            "ssh-ed25519\tAAAAours",
            "  ssh-ed25519 AAAAours\r\n\n",
        ] {
            assert_eq!(with(own), None, "{own:?}");
        }
        let latin1 = b"# caf\xe9\n";
        let text = with_key(latin1, OURS).unwrap();
        assert_eq!(text, [&latin1[..], OURS.as_bytes(), b"\n"].concat());
        assert_eq!(
            with_key(b"x", "no-key"),
            None,
            "what is no key is not written"
        );
    }

    #[test]
    fn the_settings_are_these_five_and_no_others() {
        let text = drop_in();
        assert_eq!(
            text,
            "PermitRootLogin prohibit-password\n\
             PubkeyAuthentication yes\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             AuthorizedKeysFile /root/.ssh/authorized_keys\n"
        );
        for never in [
            "LogLevel",
            "DEBUG",
            "StrictModes",
            "PermitRootLogin yes",
            "#",
        ] {
            assert!(!text.contains(never), "{never}");
        }
    }

    #[test]
    fn only_an_image_with_an_sshd_is_prepared_for_one() {
        let etc = std::env::temp_dir().join(format!("banger-agent-ssh-{}", std::process::id()));
        fs::create_dir_all(&etc).unwrap();
        // What the client's package has.
        fs::write(etc.join("ssh_config"), "").unwrap();
        assert!(!has_sshd(&etc));
        fs::write(etc.join("sshd_config"), "").unwrap();
        assert!(has_sshd(&etc));
        fs::remove_file(etc.join("sshd_config")).unwrap();
        fs::create_dir(etc.join("sshd_config.d")).unwrap();
        assert!(has_sshd(&etc));
        fs::remove_dir_all(&etc).unwrap();
    }
}
