//! From the kernel's hand-over to a guest that runs commands, as PID 1.
//!
//! Things go on at once. The runtime's thread opens the port and answers the host. The boot thread loads the
//! second modules and mounts the base read-only, and another sets up the network meanwhile; then the boot thread
//! waits for the first hello to be answered, because until then the host may kill this boot and try another; only
//! then it mounts anything read-write, makes the root and steps into it. Commands wait for all of it.

mod cpus;
mod disks;
mod engines;
mod grow;
mod identity;
mod library;
mod modules;
pub mod mounts;
pub mod network;
mod root;
pub mod ssh;
mod work;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use banger_wire::guest::boot::ModuleList;
use banger_wire::guest::last_word::UP;
use banger_wire::guest::{BOOT_FACTS_PATH, BootFacts, Init, MODULES_PATH, PowerOff};
use rustix::fs::{Mode, OFlags};
use rustix::system::{RebootCommand, reboot};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::console::{say, say_first, show_panics};
use crate::guest::{Guest, Place};
use crate::port::Port;
use crate::power::{self, End};
use crate::reaper::Reaper;
use crate::{init, orders, session};

/// How long the host may take to give us the port.
const PORT_LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked for the port.
const PORT_LOOK: Duration = Duration::from_millis(1);
/// How long the last words on the console may take to reach the host.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A sentence that says what could not be done and why.
pub type Reason = String;

/// Boots and serves for ever as PID 1, or beside the image's init if that is to be PID 1.
pub fn run_as_init() -> ! {
    show_panics();
    // Facts that cannot be read are told by the boot.
    match read_facts() {
        Ok(facts) if facts.init != Init::Agent => init::wait(&facts),
        _ => run(Place::Init),
    }
    rest()
}

/// Boots and serves for ever. If there can be no channel, says why on the console and ends the machine.
pub fn run(place: Place) -> ! {
    show_panics();
    let mut power_off = PowerOff::default();
    if let Err(reason) = start(place, &mut power_off) {
        say(&format!("cannot serve this guest: {reason}"));
    }
    std::thread::sleep(LAST_WORDS);
    power::finish(power_off, End::PowerOff);
    rest()
}

/// PID 1 must not end; the host kills a machine that does not power off.
fn rest() -> ! {
    loop {
        std::thread::park();
    }
}

fn start(place: Place, power_off: &mut PowerOff) -> Result<(), Reason> {
    mounts::kernel_filesystems()?;
    if place == Place::Service {
        init::leave_pid1()?;
    }
    let facts = read_facts()?;
    *power_off = facts.power_off;
    let list = read_modules()?;
    let mut warnings = modules::load(&list.first);
    // Ctrl-Alt-Del of the VMM must not reset the machine behind our back.
    let _ = reboot(RebootCommand::CadOff);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot start: {error}"))?;
    runtime.block_on(async move {
        let reaper = Reaper::start().map_err(|error| format!("no SIGCHLD handler: {error}"))?;
        let guest = Arc::new(Guest::new(facts.token, facts.power_off, place, reaper));
        for warning in warnings.drain(..) {
            report(&guest, warning);
        }
        orders::obey_signals(&guest).map_err(|error| format!("no signal handlers: {error}"))?;
        let port = open_port(&facts.port).await?;
        let (handle, shared) = (Handle::current(), Arc::clone(&guest));
        std::thread::Builder::new()
            .name("boot".to_owned())
            .spawn(move || make_ready(&handle, &shared, &facts, &list))
            .map_err(|error| format!("no thread for the boot: {error}"))?;
        session::serve(port, guest)
            .await
            .map_err(|error| format!("the port failed: {error}"))
    })
}

/// What the boot thread does.
fn make_ready(handle: &Handle, guest: &Arc<Guest>, facts: &BootFacts, list: &ModuleList) {
    let cpus = cpus::bring_up();
    for warning in modules::load(&list.second) {
        report(guest, warning);
    }
    if let Err(reason) = identity::set_host_name(&facts.hostname) {
        report(guest, reason);
    }
    let made = std::thread::scope(|scope| {
        // Beside the disks, because much of either is waiting for the host.
        let configure = || {
            if let Err(reason) = network::configure(&facts.network) {
                report(guest, reason);
            }
        };
        let thread = std::thread::Builder::new().name("network".to_owned());
        let network = thread.spawn_scoped(scope, configure);
        if let Err(error) = &network {
            report(guest, format!("no thread for the network: {error}"));
        }
        root::prepare(&facts.root).and_then(|prepared| {
            handle.block_on(guest.greeted());
            // A panic ends the machine (`panic = "abort"`), so there is no result to look at.
            let before_switch = || drop(network.map(ScopedJoinHandle::join));
            root::enter(prepared, facts, before_switch)
        })
    });
    let made = made.and_then(|warnings| {
        for warning in warnings {
            report(guest, warning);
        }
        // A command that counts processors must count them all.
        for warning in cpus.and_then(|cpus| cpus.join().ok()).unwrap_or_default() {
            report(guest, warning);
        }
        take_orders(guest, facts)
    });
    match made {
        Ok(pipe) => {
            guest.set_ready();
            if let Some(pipe) = pipe {
                orders::obey_pipe(pipe, handle, guest);
            }
        }
        Err(reason) => {
            say(&reason);
            guest.set_failed(reason);
        }
    }
}

/// Makes sure that there is an init to tell: us, with a pipe to read from, or the image's.
fn take_orders(guest: &Guest, facts: &BootFacts) -> Result<Option<File>, Reason> {
    if guest.place == Place::Service {
        mounts::release_home();
        // The image's init may panic at once; what it says then must come after this.
        say_first(UP);
        let (kind, warnings) = init::hand_over(facts)?;
        guest.set_init(kind);
        for warning in warnings {
            report(guest, warning);
        }
        return Ok(None);
    }
    // Before anyone takes the guest for up: see `last_word`.
    say(UP);
    Ok(orders::open_pipe()
        .map_err(|error| report(guest, format!("/run/initctl cannot be made: {error}")))
        .ok())
}

/// Something that does not stop the boot: on the console and in the health answer.
fn report(guest: &Guest, warning: String) {
    say(&warning);
    guest.warn(warning);
}

fn read_facts() -> Result<BootFacts, Reason> {
    let text = std::fs::read(BOOT_FACTS_PATH)
        .map_err(|error| format!("{BOOT_FACTS_PATH} of the initramfs cannot be read: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| {
        format!("{BOOT_FACTS_PATH} of the initramfs is not what it should be: {error}")
    })
}

/// A kernel with everything built in comes without a list.
fn read_modules() -> Result<ModuleList, Reason> {
    match std::fs::read_to_string(MODULES_PATH) {
        Ok(text) => ModuleList::parse(&text)
            .map_err(|error| format!("{MODULES_PATH} of the initramfs: {error}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ModuleList::default()),
        Err(error) => Err(format!(
            "{MODULES_PATH} of the initramfs cannot be read: {error}"
        )),
    }
}

/// Waits for the port of this name and opens it.
async fn open_port(name: &str) -> Result<Port, Reason> {
    let end = Instant::now() + PORT_LIMIT;
    loop {
        if let Some(device) = find_port(name) {
            let path = Path::new("/dev").join(&device);
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
            match rustix::fs::open(&path, flags, Mode::empty()) {
                Ok(fd) => {
                    return Port::new(fd)
                        .map_err(|error| format!("port {name} cannot be watched: {error}"));
                }
                // The name shows up a moment before the node.
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(format!("{} cannot be opened: {error}", path.display())),
            }
        }
        if Instant::now() >= end {
            return Err(format!(
                "no virtio-serial port is named {name} after {} s (is virtio_console loaded?)",
                PORT_LIMIT.as_secs()
            ));
        }
        sleep(PORT_LOOK).await;
    }
}

/// The device whose `/sys/class/virtio-ports/*/name` is this; its number depends on the other devices.
fn find_port(name: &str) -> Option<std::ffi::OsString> {
    let ports = std::fs::read_dir("/sys/class/virtio-ports").ok()?;
    ports.flatten().map(|port| port.file_name()).find(|device| {
        let file = Path::new("/sys/class/virtio-ports")
            .join(device)
            .join("name");
        std::fs::read_to_string(file).is_ok_and(|found| found.trim_end() == name)
    })
}
