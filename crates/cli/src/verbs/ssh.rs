//! `vm ssh` and `ssh-config`: the user's own `ssh` to VMs.

use super::print_text;
use crate::{
    args::{SshArgs, SshConfigArgs},
    connection::{Daemon, paths},
    failure::{Failure, tell},
    spawn,
    ssh::config::{Places, Server, with_include, without_include},
};
use banger_wire::api::VmSsh;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Variables that say which daemon is ours (R-PROG-6).
const VARIABLES: [&str; 3] = ["BANGER_STATE_DIR", "BANGER_RUNTIME_DIR", "BANGER_CONFIG"];
/// Mode of a configuration that we make.
const MODE: u32 = 0o600;

/// Becomes `ssh`.
pub async fn ssh(args: SshArgs) -> Result<ExitCode, Failure> {
    let (user, vm) = match args.vm.rsplit_once('@') {
        Some((user, vm)) => (Some(user), vm),
        None => (None, args.vm.as_str()),
    };
    // A VM that does not run is told by us, and its name is what it is pinned by.
    let vm = vm.strip_suffix(".vm").unwrap_or(vm).to_owned();
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
    words.extend(["--".to_owned(), format!("{}.vm", vm.name)]);
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
        let file = users_own()?;
        match edit(&file, &without_include)? {
            true => tell(&format!("banger: {} is as it was", file.display())),
            false => tell(&format!(
                "banger: there is nothing of banger in {}",
                file.display()
            )),
        }
    } else {
        print_text(&places()?.config())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn install(ours: &Path) -> Result<(), Failure> {
    if let Some(directory) = ours.parent() {
        make_directory(directory)?;
    }
    let text = places()?.config();
    edit(ours, &|_| text.clone())?;
    let file = users_own()?;
    if let Some(directory) = file.parent() {
        make_directory(directory)?;
    }
    match edit(&file, &|own| with_include(own, ours))? {
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

fn places() -> Result<Places, Failure> {
    let banger = std::env::current_exe()
        .map_err(|e| Failure::new("our own program cannot be found").caused_by(&e))?;
    let keys = paths()?.state_dir.join("ssh");
    let set = |name| Some((name, std::env::var_os(name).filter(|v| !v.is_empty())?));
    Ok(Places {
        banger: banger.into_os_string(),
        variables: VARIABLES.into_iter().filter_map(set).collect(),
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

/// Replaces a file by what a function makes of it, if that is something else; a file that is not there is empty. A link
/// stays one, and the mode stays. Whether there was something to do.
fn edit(file: &Path, change: &dyn Fn(&str) -> String) -> Result<bool, Failure> {
    let failed = |what: &str, e: &io::Error| {
        Failure::new(format!("cannot {what} {}", file.display())).caused_by(e)
    };
    // Where the links lead; a link that leads nowhere is an error, and not made a file of.
    let target = match fs::symlink_metadata(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => file.to_owned(),
        _ => file.canonicalize().map_err(|e| failed("find", &e))?,
    };
    let (text, mode) = match fs::read_to_string(&target) {
        Ok(text) => {
            let seen = fs::metadata(&target).map_err(|e| failed("look at", &e))?;
            (Some(text), seen.permissions().mode() & 0o7777)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => (None, MODE),
        Err(e) => return Err(failed("read", &e)),
    };
    let new = change(text.as_deref().unwrap_or_default());
    if new == text.unwrap_or_default() {
        return Ok(false);
    }
    replace(&target, &new, mode).map_err(|e| failed("write", &e))?;
    Ok(true)
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
