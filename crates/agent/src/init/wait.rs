//! PID 1 until the image's init takes its place.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use banger_wire::guest::BootFacts;
use rustix::process::{WaitOptions, chdir, chroot, wait as wait_child};

use crate::console::say;
use crate::power::{self, End};
use crate::spawn;

/// Starts the agent beside us, waits for its word, and becomes the init it names. If that cannot be, ends the machine
/// when the agent has ended.
pub fn wait(facts: &BootFacts) {
    match serve() {
        Ok(()) => {}
        Err(error) => say(&format!(
            "the agent cannot be started beside the image's init: {error}"
        )),
    }
    // Nobody else collects the dead; the agent is the last of them.
    while wait_child(WaitOptions::empty()).is_ok() {}
    say("the agent ended without an init in its place");
    power::finish(facts.power_off, End::PowerOff);
}

fn serve() -> io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    spawn::service(theirs.into())?;
    let mut path = String::new();
    ours.read_to_string(&mut path)?;
    if path.is_empty() {
        // It ended, and said why.
        return Ok(());
    }
    let error = match enter_root() {
        Ok(()) => spawn::become_init(&path),
        Err(error) => error,
    };
    ours.write_all(format!("the init {path} cannot be executed: {error}").as_bytes())
}

/// The agent has moved the new root onto ours. A path that leaves the root by `..` comes out in what is mounted
/// there, which `/` alone does not.
fn enter_root() -> io::Result<()> {
    chroot("/..")?;
    Ok(chdir("/")?)
}
