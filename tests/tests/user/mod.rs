//! Somebody on this machine who is not root: with a home of their own, and further ids if the test gives them some.

use banger_testkit::{Run, Running, Signal, binaries, in_own_mounts, signal, skip};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Runs banger as the user: in mounts of its own, where the users of the machine and their further ids are the test's, and the
/// programs lie where everybody may come.
const ENTER: &str = "set -e
for file in passwd subuid subgid; do mount --bind \"$1/$file\" \"/etc/$file\"; done
mount --bind \"$2\" \"$1/bin\"
program=$1/bin/banger user=$3
shift 3
exec setpriv \"--reuid=$user\" \"--regid=$user\" --clear-groups \"$program\" \"$@\"";

/// Users of this process.
static USERS: AtomicU32 = AtomicU32::new(0);

/// How many ids the user has besides, where any.
const IDS: u32 = 65_536;

/// The user; what runs as them is ended with the value.
pub struct User {
    dir: tempfile::TempDir,
    uid: u32,
    first: u32,
}

impl User {
    /// A user with or without further ids; `None`, and the test is skipped, where there can be none.
    pub fn new(ids: bool) -> Option<User> {
        if !rustix::process::geteuid().is_root() {
            skip("becoming another user takes root");
            return None;
        }
        // Two of these tests at once are two users.
        let n = std::process::id().wrapping_mul(4) + USERS.fetch_add(1, Ordering::Relaxed);
        let n = n % 10_000;
        let (uid, first) = (70_000_000 + n, 1_000_000_000 + n * IDS);
        let map = fs::read_to_string("/proc/self/uid_map").expect("our own ids");
        if !map.split_whitespace().eq(["0", "0", "4294967295"]) {
            skip("there are no ids to give away in this container");
            return None;
        }
        if !["subuid", "subgid"]
            .iter()
            .all(|file| Path::new("/etc").join(file).exists())
        {
            skip("there is no /etc/subuid and /etc/subgid to cover");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("bu-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/tmp")
            .expect("a directory that all may enter");
        let user = User { dir, uid, first };
        let mut users = fs::read_to_string("/etc/passwd").expect("the machine's users");
        let home = user.home();
        users += &format!("tester:x:{uid}:{uid}::{}:/bin/sh\n", home.display());
        let given = match ids {
            true => format!("tester:{first}:{IDS}\n"),
            false => String::new(),
        };
        for (file, text) in [("passwd", &users), ("subuid", &given), ("subgid", &given)] {
            fs::write(user.dir.path().join(file), text).expect("the machine's users");
        }
        fs::create_dir(user.dir.path().join("bin")).expect("a place for the programs");
        for private in [home, user.runtime()] {
            fs::create_dir(&private).expect("the user's directory");
            fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("a mode");
            chown(&private, Some(uid), Some(uid)).expect("an owner");
        }
        Some(user)
    }

    /// The user's home, which only they may enter.
    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn runtime(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Where their images are.
    pub fn images(&self) -> PathBuf {
        self.home().join("state/images")
    }

    /// One of the further ids.
    pub fn further(&self, n: u32) -> u32 {
        assert!(n < IDS);
        self.first + n
    }

    /// Starts banger as the user.
    pub fn start(&self, args: &[&str]) -> Running {
        let mut command = in_own_mounts(ENTER);
        command
            .args([self.dir.path(), &binaries()])
            .arg(self.uid.to_string())
            .args(args)
            .env("HOME", self.home())
            .env("BANGER_STATE_DIR", self.home().join("state"))
            .env("BANGER_RUNTIME_DIR", self.runtime())
            .env("BANGER_CONFIG", self.home().join("config.toml"))
            .current_dir("/");
        Running::start(command, b"")
    }

    /// Runs banger as the user.
    #[track_caller]
    pub fn banger(&self, args: &[&str]) -> Run {
        self.start(args).finish()
    }

    /// Kills the user's daemon.
    #[track_caller]
    pub fn kill_daemon(&self) {
        let status = self.banger(&["daemon", "status", "--json"]).json();
        let pid = status["pid"].as_u64().expect("a daemon to kill");
        signal(u32::try_from(pid).expect("a pid"), Signal::KILL);
    }

    /// Processes of the user and of their further ids: pid and command.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let ours = |uid: u32| uid == self.uid || (self.first..self.first + IDS).contains(&uid);
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // What is dead and not yet waited for has no command line, and does nothing.
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let uid = entry.metadata().ok()?.uid();
            (ours(uid) && !line.is_empty()).then_some((pid, line))
        });
        pids.collect()
    }

    /// What lies in the directory of images, and what of theirs lies around in the machine's directories of temporary files.
    pub fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.images()).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
        for around in ["/tmp", "/var/tmp"] {
            let entries = fs::read_dir(around).into_iter().flatten().flatten();
            let theirs = entries.filter(|entry| {
                let uid = entry.metadata().map_or(0, |meta| meta.uid());
                uid == self.uid || (self.first..self.first + IDS).contains(&uid)
            });
            names.extend(theirs.map(|entry| entry.path().display().to_string()));
        }
        names
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home().join("state/daemon.log"));
            eprintln!("--- the daemon's log:\n{}", log.unwrap_or_default());
        }
        for (pid, _) in self.processes() {
            signal(pid, Signal::KILL);
        }
    }
}
