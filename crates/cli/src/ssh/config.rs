//! What the user's own `ssh` is told: pure functions from paths to text, and from a configuration to one with ours in it.

use std::{ffi::OsString, path::Path};

/// First line of the block in the user's own configuration.
const BEGIN: &str = "# >>> banger: ssh NAME.vm; `banger ssh-config --uninstall` removes this block";
/// Its last line.
const END: &str = "# <<< banger";

/// Where an sshd listens.
pub const SSHD_PORT: u16 = 22;

/// Where things are that a VM is reached with.
#[derive(Debug, Clone)]
pub struct Places {
    /// Our own program.
    pub banger: OsString,
    /// The variables that say where our daemon is, if they are set.
    pub variables: Vec<(&'static str, OsString)>,
    /// banger's own `known_hosts`.
    pub known_hosts: OsString,
    /// The private key that a VM's own sshd lets in.
    pub identity: OsString,
}

/// Who answers at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// banger, for every image.
    Ours,
    /// The image's sshd.
    OfTheImage,
}

impl Places {
    /// Options of ssh_config(5), which are also those of `ssh -o`.
    pub fn options(&self, server: Server) -> Vec<(&'static str, String)> {
        let set = self.variables.iter().map(|(name, value)| {
            let value = value.to_string_lossy();
            shell_word(&format!("{name}={value}"))
        });
        let mut words: Vec<String> = set.collect();
        if !words.is_empty() {
            words.insert(0, "env".to_owned());
        }
        words.push(shell_word(&self.banger.to_string_lossy()));
        // Only the host is ssh's to fill in.
        let mut proxy = words.join(" ").replace('%', "%%") + " internal connect '%n'";
        if server == Server::OfTheImage {
            proxy.push_str(&format!(" {SSHD_PORT}"));
        }
        let file = |path: &OsString| quoted(&path.to_string_lossy()).replace('%', "%%");
        vec![
            ("ProxyCommand", proxy),
            ("User", "root".to_owned()),
            ("UserKnownHostsFile", file(&self.known_hosts)),
            ("GlobalKnownHostsFile", "/dev/null".to_owned()),
            ("StrictHostKeyChecking", "yes".to_owned()),
            ("HostKeyAlgorithms", "ssh-ed25519".to_owned()),
            ("UpdateHostKeys", "no".to_owned()),
            ("CheckHostIP", "no".to_owned()),
            // For the image's sshd: banger asks for no key, who reaches its daemon may enter.
            ("IdentityFile", file(&self.identity)),
            ("IdentitiesOnly", "yes".to_owned()),
        ]
    }

    /// banger's own ssh_config(5).
    pub fn config(&self) -> String {
        let mut text =
            "# banger's own: `banger ssh-config --install` writes it anew.\nHost *.vm\n".to_owned();
        for (key, value) in self.options(Server::Ours) {
            text.push_str(&format!("    {key} {value}\n"));
        }
        text
    }
}

/// As a shell reads it: `ssh` hands a `ProxyCommand` to the user's.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// As ssh_config(5) reads it.
fn quoted(text: &str) -> String {
    if text.contains([' ', '\t', '#', '=']) {
        format!("\"{text}\"")
    } else {
        text.to_owned()
    }
}

/// A configuration with our block at its top: an `Include` that comes after a `Host` counts for that host only. One that
/// has it already stays as it is.
pub fn with_include(text: &str, include: &Path) -> String {
    let include = quoted(&include.to_string_lossy());
    format!(
        "{BEGIN}\nInclude {include}\n{END}\n{}",
        without_include(text)
    )
}

/// A configuration without our block, and otherwise the same to the byte. A block without its last line is not touched:
/// where it would end nobody knows.
pub fn without_include(text: &str) -> String {
    let begins = |at: usize| at == 0 || text.as_bytes()[at - 1] == b'\n';
    let from = text
        .match_indices(BEGIN)
        .map(|(at, _)| at)
        .find(|at| begins(*at));
    let Some(from) = from else {
        return text.to_owned();
    };
    let last = format!("\n{END}");
    let Some(end) = text[from..].find(&last).map(|at| from + at + last.len()) else {
        return text.to_owned();
    };
    let rest = &text[end..];
    let rest = rest.strip_prefix('\n').unwrap_or(rest);
    format!("{}{rest}", &text[..from])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            banger: "/opt/my tools/100%/banger".into(),
            variables: vec![("BANGER_STATE_DIR", "/it's".into())],
            known_hosts: "/home/a b/ssh/known_hosts".into(),
            identity: "/home/a b/ssh/id_ed25519".into(),
        }
    }

    #[test]
    fn what_a_shell_or_ssh_would_take_apart_is_quoted() {
        let text = places().config();
        let proxy = "    ProxyCommand env 'BANGER_STATE_DIR=/it'\\''s' '/opt/my tools/100%%/banger' \
                     internal connect '%n'\n";
        assert!(text.contains(proxy), "{text}");
        assert!(
            text.contains("UserKnownHostsFile \"/home/a b/ssh/known_hosts\"\n"),
            "{text}"
        );
        assert!(
            text.contains("StrictHostKeyChecking yes\n"),
            "fails closed: {text}"
        );
    }

    #[test]
    fn an_images_sshd_is_reached_by_its_port_and_is_as_strict() {
        let (ours, theirs) = (
            places().options(Server::Ours),
            places().options(Server::OfTheImage),
        );
        for (ours, theirs) in ours.iter().zip(&theirs) {
            match ours.0 {
                "ProxyCommand" => assert_eq!(theirs.1, format!("{} 22", ours.1)),
                _ => assert_eq!(ours, theirs),
            }
        }
        let identity = ("IdentityFile", "\"/home/a b/ssh/id_ed25519\"".to_owned());
        assert!(theirs.contains(&identity), "{theirs:?}");
    }

    #[test]
    fn the_block_comes_and_goes_and_nothing_else_does() {
        let include = Path::new("/c/ssh_config");
        for own in [
            "",
            "Host *\n    User me",
            "Host a\n",
            "\n\n# mine\r\nHost b\n",
        ] {
            let with = with_include(own, include);
            assert!(with.starts_with(BEGIN) && with.ends_with(own), "{with}");
            assert_eq!(with_include(&with, include), with);
            assert_eq!(without_include(&with), own);
            assert_eq!(without_include(own), own);
        }
        // Another place: the block is ours to replace.
        let moved = with_include(&with_include("Host a\n", include), Path::new("/d"));
        assert_eq!(without_include(&moved), "Host a\n");
        assert_eq!(moved.matches("Include").count(), 1);
        // Where somebody has put something before it, that stays.
        let before = format!("# first\n{}", with_include("Host a\n", include));
        assert_eq!(without_include(&before), "# first\nHost a\n");
        let cut = format!("{BEGIN}\nHost a\n");
        assert_eq!(without_include(&cut), cut);
    }
}
