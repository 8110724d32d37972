//! Trees whose files belong to many users, made, read and removed by whoever runs us.
//!
//! dpkg gives files to the users of the system it installs, and runs that system's programs in a chroot. Root may do both. Anyone
//! else may in a user namespace of theirs, in which they are root and the other users are the ids that `/etc/subuid` and
//! `/etc/subgid` give them. Because root of the namespace is the user, the tree lies in their own private directory; because its
//! other ids are not the user's, what reads or removes the whole tree runs in such a namespace too.

use crate::{Error, Result, ext4};
use banger_host::{ErrorKind, ToolCall, Tools};
use std::{
    collections::BTreeMap, error::Error as _, ffi::OsString, fmt, fs, path::Path, path::PathBuf,
    time::Duration,
};

/// Ids that a namespace must have besides root's: all of a Debian system, up to `nobody` (65534).
const IDS: u64 = 65_535;
/// Ids that are asked for where there are none, and the first of them that `usermod` would choose (login.defs, SUB_UID_MIN).
const RANGE: u64 = 65_536;
const FIRST: u64 = 100_000;
/// Longest for a program that ends at once.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A namespace of the user's: mounts of its own for mmdebstrap, and processes of its own, of which none outlives the first. That one
/// is killed with `unshare`, which is killed with us.
const NAMESPACE: [&str; 7] = [
    "--map-root-user",
    "--map-auto",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--",
];

/// How programs are run that meet files of many owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owners {
    /// As they are: we are root.
    Root,
    /// In a namespace, by this `unshare`.
    Namespace(PathBuf),
}

impl Owners {
    /// What is possible here; tried, since nothing less tells.
    ///
    /// # Errors
    /// What stands in the way, and what else does.
    pub(crate) fn of<H: Tools + ?Sized>(host: &H) -> Result<Self, (Error, Vec<Error>)> {
        if rustix::process::geteuid().is_root() {
            return Ok(Owners::Root);
        }
        let tools = ext4::tool(host, "unshare", "util-linux").and_then(|unshare| {
            let nothing = ext4::tool(host, "true", "coreutils")?;
            Ok((Owners::Namespace(unshare), nothing))
        });
        let (owners, nothing) = tools.map_err(|missing| (missing, Vec::new()))?;
        let (program, args) = owners.call(nothing, Vec::new());
        match brief(host, program, args) {
            Ok(_) => Ok(owners),
            Err(said) => Err(Machine::look(host).obstacles(&said)),
        }
    }

    /// The program and the arguments that run this.
    pub(crate) fn call(&self, program: PathBuf, args: Vec<OsString>) -> (PathBuf, Vec<OsString>) {
        match self {
            Owners::Root => (program, args),
            Owners::Namespace(unshare) => {
                let mut all: Vec<OsString> = NAMESPACE.map(OsString::from).to_vec();
                all.push(program.into());
                all.extend(args);
                (unshare.clone(), all)
            }
        }
    }
}

/// Why there is no namespace to build in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoNamespace {
    /// The files of the user's further ids lack so many.
    NoIds {
        /// The user.
        user: String,
        /// First free user id, if user ids are missing.
        uids: Option<u64>,
        /// First free group id, if group ids are missing.
        gids: Option<u64>,
    },
    /// The kernel was told to refuse it.
    Setting {
        /// Name of the setting.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// `unshare` is from before util-linux 2.38.
    OldTool,
    /// Refused, and nothing here says why.
    Refused(String),
}

impl fmt::Display for NoNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("building a Debian image without root takes ")?;
        match self {
            NoNamespace::NoIds { user, uids, gids } => {
                let files = match (uids, gids) {
                    (Some(_), Some(_)) => "/etc/subuid and /etc/subgid give",
                    (Some(_), None) => "/etc/subuid gives",
                    _ => "/etc/subgid gives",
                };
                write!(
                    f,
                    "{RANGE} user and group ids for the owners of its files, and {files} '{user}' fewer"
                )
            }
            NoNamespace::Setting { key, value, .. } => write!(
                f,
                "a user namespace, and this machine keeps users from having one ({key} = {value})"
            ),
            NoNamespace::OldTool => {
                f.write_str("'unshare' of util-linux 2.38 or newer, and this one is older")
            }
            NoNamespace::Refused(said) => {
                write!(f, "a user namespace, and there is none to be had: {said}")
            }
        }
    }
}

impl NoNamespace {
    /// The way out.
    pub(crate) fn hint(&self) -> String {
        let way = match self {
            NoNamespace::NoIds { user, uids, gids } => {
                let mut command = String::from("sudo usermod");
                for (flag, first) in [("--add-subuids", uids), ("--add-subgids", gids)] {
                    if let Some(first) = first {
                        command += &format!(" {flag} {first}-{}", first.saturating_add(RANGE - 1));
                    }
                }
                format!("{command} {user}")
            }
            NoNamespace::Setting { key, wanted, .. } => format!("sudo sysctl -w {key}={wanted}"),
            NoNamespace::OldTool => String::from("run banger as root"),
            NoNamespace::Refused(_) => {
                String::from("try it by hand: unshare --map-root-user --map-auto --mount true")
            }
        };
        format!("{way}; {OTHER_IMAGES}")
    }
}

/// The way out where nothing can be built.
const OTHER_IMAGES: &str =
    "or use an image that is not built here: banger image pull debian:12, and --image debian:12";

/// What decides whether a user has a namespace; read when there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Machine {
    user: String,
    uid: u32,
    /// Programs that are missing, of those that write the ids of a namespace.
    missing: Vec<&'static str>,
    subuid: String,
    subgid: String,
    /// Values of [`SETTINGS`], `None` where the kernel has none.
    settings: [Option<String>; SETTINGS.len()],
}

/// Settings of the kernel that keep users from namespaces: name, the value that does, the one that does not. The first is
/// Debian's, the last Ubuntu's.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
];

impl Machine {
    fn look<H: Tools + ?Sized>(host: &H) -> Self {
        let named = ext4::tool(host, "id", "coreutils")
            .map_err(|missing| missing.to_string())
            .and_then(|id| brief(host, id, vec!["-un".into()]));
        let uid = rustix::process::geteuid().as_raw();
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let missing = |program: &&'static str| host.find_tool(Path::new(program)).is_none();
        Machine {
            user: named.unwrap_or_else(|_| uid.to_string()),
            uid,
            missing: ["newuidmap", "newgidmap"]
                .into_iter()
                .filter(missing)
                .collect(),
            subuid: text("/etc/subuid"),
            subgid: text("/etc/subgid"),
            settings: SETTINGS.map(|(key, ..)| {
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                fs::read_to_string(path)
                    .ok()
                    .map(|value| value.trim().to_owned())
            }),
        }
    }

    /// What stands in the way of a namespace, where `unshare` failed and said this, and what else does.
    fn obstacles(&self, said: &str) -> (Error, Vec<Error>) {
        let mut why = Vec::new();
        let lacking = |text: &str| (ids_of(text, &self.user, self.uid) < IDS).then(|| free(text));
        let (uids, gids) = (lacking(&self.subuid), lacking(&self.subgid));
        if uids.is_some() || gids.is_some() {
            let user = self.user.clone();
            why.push(NoNamespace::NoIds { user, uids, gids });
        }
        for ((key, bad, wanted), value) in SETTINGS.into_iter().zip(&self.settings) {
            if let Some(value) = value.clone().filter(|value| value == bad) {
                why.push(NoNamespace::Setting { key, value, wanted });
            }
        }
        if said.contains("unrecognized option") {
            why.push(NoNamespace::OldTool);
        }
        let tool = self.missing.first().map(|program| Error::ToolMissing {
            program,
            package: "uidmap",
        });
        let mut all = tool
            .into_iter()
            .chain(why.into_iter().map(Error::NoNamespace));
        let unexplained = || Error::NoNamespace(NoNamespace::Refused(said.to_owned()));
        (all.next().unwrap_or_else(unexplained), all.collect())
    }
}

/// How many ids a user has by `/etc/subuid` or `/etc/subgid` (subuid(5)); of several lines `unshare` takes the first.
fn ids_of(text: &str, user: &str, uid: u32) -> u64 {
    let theirs = |owner: &str| owner == user || owner.parse() == Ok(uid);
    let mut lines = ranges(text).filter(|(owner, ..)| theirs(owner));
    lines.next().map_or(0, |(_, _, count)| count)
}

/// The first id behind all that are given away.
fn free(text: &str) -> u64 {
    ranges(text)
        .map(|(_, first, count)| first.saturating_add(count))
        .fold(FIRST, u64::max)
}

/// Owner, first id and number of each line that has them.
fn ranges(text: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        Some((
            owner,
            fields.next()?.parse().ok()?,
            fields.next()?.parse().ok()?,
        ))
    })
}

/// Runs a program that ends at once; gives what it wrote, or the last that it said of its failure.
fn brief<H: Tools + ?Sized>(
    host: &H,
    program: PathBuf,
    args: Vec<OsString>,
) -> std::result::Result<String, String> {
    let call = ToolCall {
        program,
        args,
        env: BTreeMap::new(),
        cwd: "/".into(),
        stdin: Vec::new(),
        timeout: AT_ONCE,
    };
    let ran = host.run_tool(&call, &mut |_| {}, &|| false);
    let out = ran.map_err(|error| match (error.kind, error.source()) {
        (ErrorKind::Other, Some(why)) => why.to_string(),
        _ => error.to_string(),
    })?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that nothing is wrong with.
    fn machine() -> Machine {
        Machine {
            user: "ada".into(),
            uid: 1000,
            missing: Vec::new(),
            subuid: "bob:100000:65536\nada:165536:65536\n".into(),
            subgid: "1000:100000:65536\n".into(),
            settings: [Some("1".into()), Some("96365".into()), Some("0".into())],
        }
    }

    fn told(machine: &Machine, said: &str) -> Vec<(String, String)> {
        let (first, more) = machine.obstacles(said);
        std::iter::once(first)
            .chain(more)
            .map(|error| (error.to_string(), error.hint().unwrap()))
            .collect()
    }

    #[test]
    fn what_is_missing_is_told_with_the_command_that_brings_it() {
        let mut lacking = machine();
        lacking.missing = vec!["newuidmap", "newgidmap"];
        lacking.subuid = "bob:100000:65536\nada:165536:1000\nada:300000:65536\n".into();
        lacking.subgid = String::new();
        let told = told(&lacking, "no line matching user");
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0].0, "'newuidmap' is not installed");
        assert_eq!(told[0].1, "apt install uidmap");
        assert!(
            told[1]
                .0
                .contains("/etc/subuid and /etc/subgid give 'ada' fewer")
        );
        let command = "sudo usermod --add-subuids 365536-431071 --add-subgids 100000-165535 ada;";
        assert!(told[1].1.starts_with(command), "{told:?}");
        assert!(told[1].1.contains("banger image pull"));
    }

    #[test]
    fn settings_of_the_kernel_are_named() {
        for (n, value) in ["0", "0", "1"].into_iter().enumerate() {
            let mut refusing = machine();
            refusing.settings[n] = Some(value.into());
            let told = told(&refusing, "Operation not permitted");
            let (key, bad, good) = SETTINGS[n];
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].0.contains(&format!("({key} = {bad})")), "{told:?}");
            assert!(told[0].1.contains(&format!("sudo sysctl -w {key}={good};")));
        }
    }

    #[test]
    fn what_nothing_here_explains_is_told_as_it_was_said() {
        let refused = told(&machine(), "unshare: write failed");
        assert_eq!(refused.len(), 1);
        assert!(
            refused[0].0.ends_with("unshare: write failed"),
            "{refused:?}"
        );
        let old = machine().obstacles("unshare: unrecognized option '--map-auto'");
        assert!(matches!(old, (Error::NoNamespace(NoNamespace::OldTool), _)));
        let mut silent = machine();
        silent.settings = Default::default();
        assert_eq!(told(&silent, "x").len(), 1);
    }

    #[test]
    fn ids_are_read_as_subuid_5_says() {
        let text = "# none\nada\nada:x:1\n1000:5:70000\nada:7:1\n";
        assert_eq!(ids_of(text, "ada", 1000), 70_000);
        assert_eq!(ids_of(text, "ada", 1), 1);
        assert_eq!(ids_of(text, "bob", 2), 0);
        assert_eq!(free(""), FIRST);
        assert_eq!(free("a:4000000000:65536"), 4_000_065_536);
        assert_eq!(free("a:9:18446744073709551615"), u64::MAX);
    }
}
