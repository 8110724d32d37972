//! `vm ssh` and `ssh-config`: the user's own `ssh` to VMs.

use super::print_text;
use crate::{
    args::{SshArgs, SshConfigArgs},
    connection::{Daemon, paths},
    failure::{Failure, tell},
    spawn,
    ssh::config::{Places, Server, with_include, without_include},
};
use banger_model::VmName;
use banger_wire::{api::VmSsh, environment};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Mode of a configuration that we make.
const MODE: u32 = 0o600;

/// Becomes `ssh`.
pub async fn ssh(args: SshArgs) -> Result<ExitCode, Failure> {
    let (user, vm) = match args.vm.rsplit_once('@') {
        Some((user, vm)) => (Some(user), vm),
        None => (None, args.vm.as_str()),
    };
    // A VM that does not run is told by us, and its name is what it is pinned by.
    let vm = VmName::without_domain(vm).to_owned();
    let vm = Daemon::of_this_user()?.call(&VmSsh { vm }).await?;
    let mut words: Vec<String> = Vec::new();
    // The first value of an option counts.
    if let Some(user) = user {
        words.extend(["-l".to_owned(), user.to_owned()]);
    }
    let server = match args.sshd {
        true => Server::OfTheImage,
        false => Server::Ours,
    };
    for (key, value) in places()?.options(server) {
        words.extend(["-o".to_owned(), format!("{key}={value}")]);
    }
    words.extend(args.tty.then(|| "-t".to_owned()));
    words.extend(["--".to_owned(), vm.name.dns()]);
    words.extend(args.command);
    let error = spawn::become_ssh(&words);
    Err(Failure::new("cannot start ssh")
        .caused_by(&error)
        .hint("apt install openssh-client, or banger vm exec"))
}

/// Whether the user's own configuration knows banger's VMs.
pub fn included() -> bool {
    let text = users_own()
        .ok()
        .and_then(|file| fs::read_to_string(file).ok());
    text.is_some_and(|text| without_include(&text) != text)
}

/// Prints what `ssh` needs to know, or makes the user's own configuration know it.
pub fn ssh_config(args: &SshConfigArgs) -> Result<ExitCode, Failure> {
    let ours = paths()?.config.with_file_name("ssh_config");
    if args.install {
        install(&ours)?;
    } else if args.uninstall {
        uninstall()?;
    } else {
        print_text(&places()?.config())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All is decided before anything is written.
fn install(ours: &Path) -> Result<(), Failure> {
    let (file, text) = (users_own()?, places()?.config());
    let otherwise = |failure: Failure| {
        failure.hint("banger ssh-config >FILE; ssh -F FILE NAME.vm needs no more")
    };
    let own = Edit::decide(ours, |_| text).map_err(otherwise)?;
    let users = Edit::decide(&file, |users| with_include(users, ours)).map_err(otherwise)?;
    own.write().map_err(otherwise)?;
    match users.write().map_err(otherwise)? {
        true => tell(&format!(
            "banger: {} includes {}",
            file.display(),
            ours.display()
        )),
        false => tell(&format!("banger: {} included it already", file.display())),
    }
    tell("banger: ssh NAME.vm, scp, rsync and editors reach running VMs now");
    Ok(())
}

fn uninstall() -> Result<(), Failure> {
    let file = users_own()?;
    let edited = Edit::decide(&file, without_include).and_then(Edit::write);
    let by_hand = |failure: Failure| {
        let file = file.display();
        failure.hint(format!(
            "mend that, or take banger's block out of {file} yourself"
        ))
    };
    match edited.map_err(by_hand)? {
        true => tell(&format!("banger: {} is as it was", file.display())),
        false => tell(&format!(
            "banger: there is nothing of banger in {}",
            file.display()
        )),
    }
    Ok(())
}

fn places() -> Result<Places, Failure> {
    let banger = std::env::current_exe()
        .map_err(|e| Failure::new("our own program cannot be found").caused_by(&e))?;
    let keys = paths()?.state_dir.join("ssh");
    let set = |name| Some((name, std::env::var_os(name).filter(|v| !v.is_empty())?));
    Ok(Places {
        banger: banger.into_os_string(),
        variables: environment::PLACES.into_iter().filter_map(set).collect(),
        known_hosts: keys.join("known_hosts").into_os_string(),
        identity: keys.join("id_ed25519").into_os_string(),
    })
}

/// The user's own configuration.
fn users_own() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.filter(|home| home.is_absolute());
    home.map(|home| home.join(".ssh/config"))
        .ok_or_else(|| Failure::new("HOME is not set").hint("HOME=/your/home banger ssh-config …"))
}

fn make_directory(directory: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(|e| Failure::new(format!("cannot make {}", directory.display())).caused_by(&e))
}

/// A file that is to be another. A link stays one, and the mode stays.
struct Edit {
    /// Where the links lead.
    target: PathBuf,
    /// What it is to have in it, if that is something else.
    text: Option<String>,
    mode: u32,
}

impl Edit {
    /// What a function makes of a file; one that is not there is empty. Writes nothing.
    fn decide(file: &Path, change: impl FnOnce(&str) -> String) -> Result<Self, Failure> {
        let failed = |what: &str, e: &io::Error| {
            Failure::new(format!("cannot {what} {}", file.display())).caused_by(e)
        };
        // A link that leads nowhere is an error, and not made a file of.
        let target = match fs::symlink_metadata(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => file.to_owned(),
            _ => file.canonicalize().map_err(|e| failed("find", &e))?,
        };
        let (text, mode) = match fs::read_to_string(&target) {
            Ok(text) => {
                let seen = fs::metadata(&target).map_err(|e| failed("look at", &e))?;
                (text, seen.permissions().mode() & 0o7777)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => (String::new(), MODE),
            Err(e) => return Err(failed("read", &e)),
        };
        let new = change(&text);
        Ok(Edit {
            target,
            text: (new != text).then_some(new),
            mode,
        })
    }

    /// Makes it so; whether there was something to do.
    fn write(self) -> Result<bool, Failure> {
        let Some(text) = self.text else {
            return Ok(false);
        };
        if let Some(directory) = self.target.parent() {
            make_directory(directory)?;
        }
        let failed =
            |e| Failure::new(format!("cannot write {}", self.target.display())).caused_by(&e);
        replace(&self.target, &text, self.mode).map_err(failed)?;
        Ok(true)
    }
}

/// Durably, and never half.
fn replace(target: &Path, text: &str, mode: u32) -> io::Result<()> {
    let directory = target.parent().unwrap_or(Path::new("/"));
    let part = directory.join(format!(".banger-{}.part", std::process::id()));
    let mut options = OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&part)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&part, target));
    if written.is_err() {
        // The first failure is the one to tell.
        let _ = fs::remove_file(&part);
    }
    written.and_then(|()| File::open(directory)?.sync_all())
}
