//! What all parts of the agent share: how far the boot is, who we are, the reaper.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use banger_wire::guest::handshake::{Nonce, Token};
use banger_wire::guest::{GuestState, Health, PowerOff};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use crate::exec::Commands;
use crate::farewell::Farewells;
use crate::init::Kind;
use crate::reaper::Reaper;

/// The kernel's name of this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How long a command waits for the root file system.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How long a guest that is ready counts as young.
const YOUNG: Duration = Duration::from_secs(5);

/// Where the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// As PID 1 of a guest: power-off ends the machine.
    Init,
    /// Beside the image's init: power-off is asked of that.
    Service,
    /// As an ordinary process: power-off ends this process only.
    Local,
}

/// The state of this guest.
#[derive(Debug)]
pub struct Guest {
    /// The secret of the channel.
    pub token: Token,
    /// Random value of this boot.
    pub boot_nonce: Nonce,
    /// How the VMM is told to end.
    pub power_off: PowerOff,
    /// Where the agent runs.
    pub place: Place,
    /// Collects ended children.
    pub reaper: Reaper,
    /// Commands that can be attached to.
    pub commands: Commands,
    /// Programs that are asked to end before the guest does.
    pub farewells: Farewells,
    state: watch::Sender<GuestState>,
    ready_since: OnceLock<Instant>,
    greeted: watch::Sender<bool>,
    hosted: watch::Sender<bool>,
    warnings: Mutex<Vec<String>>,
    ending: AtomicBool,
    init: OnceLock<Kind>,
}

impl Guest {
    /// A guest that is booting.
    pub fn new(token: Token, power_off: PowerOff, place: Place, reaper: Reaper) -> Self {
        Self {
            token,
            boot_nonce: boot_nonce(),
            power_off,
            place,
            reaper,
            commands: Commands::default(),
            farewells: Farewells::default(),
            state: watch::Sender::new(GuestState::Booting),
            ready_since: OnceLock::new(),
            greeted: watch::Sender::new(false),
            hosted: watch::Sender::new(false),
            warnings: Mutex::new(Vec::new()),
            ending: AtomicBool::new(false),
            init: OnceLock::new(),
        }
    }

    /// Whether this is the first order to end.
    pub fn first_order(&self) -> bool {
        !self.ending.swap(true, Ordering::Relaxed)
    }

    /// The image's init is PID 1.
    pub fn set_init(&self, kind: Kind) {
        // It becomes so once.
        let _ = self.init.set(kind);
    }

    /// The image's init, if that is PID 1.
    pub fn init(&self) -> Option<Kind> {
        self.init.get().copied()
    }

    /// Commands may run now.
    pub fn set_ready(&self) {
        let _ = self.ready_since.set(Instant::now());
        self.state.send_replace(GuestState::Ready);
    }

    /// The root file system could not be made; the VM stays up to say why.
    pub fn set_failed(&self, reason: String) {
        self.state.send_replace(GuestState::Failed { reason });
    }

    /// Nothing but the agent has run yet, or not for long.
    pub fn is_young(&self) -> bool {
        self.ready_since
            .get()
            .is_none_or(|ready| ready.elapsed() < YOUNG)
    }

    /// Something went wrong that does not stop the boot.
    pub fn warn(&self, warning: String) {
        if let Ok(mut warnings) = self.warnings.lock() {
            warnings.push(warning);
        }
    }

    /// The first hello was answered: from now on a retried boot could lose data, so disks may be written.
    pub fn set_greeted(&self) {
        self.greeted
            .send_if_modified(|greeted| !std::mem::replace(greeted, true));
    }

    /// Waits for [`Self::set_greeted`].
    pub async fn greeted(&self) {
        // The sender lives as long as `self`.
        let _ = self.greeted.subscribe().wait_for(|greeted| *greeted).await;
    }

    /// Whether a host is on the channel.
    pub fn set_hosted(&self, hosted: bool) {
        self.hosted.send_replace(hosted);
    }

    /// Waits until a host is on the channel, or none is.
    pub async fn hosted(&self, hosted: bool) {
        // The sender lives as long as `self`.
        let _ = self.hosted.subscribe().wait_for(|is| *is == hosted).await;
    }

    /// Waits until commands may run; the error is a sentence that says why they may not.
    pub async fn ready(&self) -> Result<(), String> {
        let mut state = self.state.subscribe();
        let decided = state.wait_for(|state| *state != GuestState::Booting);
        match tokio::time::timeout(READY_LIMIT, decided).await {
            Ok(Ok(state)) => match &*state {
                GuestState::Failed { reason } => Err(format!(
                    "the guest's root file system is not there: {reason}"
                )),
                _ => Ok(()),
            },
            _ => Err(format!(
                "the guest's root file system was not ready after {} s",
                READY_LIMIT.as_secs()
            )),
        }
    }

    /// The answer of the health method.
    pub fn health(&self) -> Health {
        let boot_id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        Health {
            state: self.state.borrow().clone(),
            boot_nonce: self.boot_nonce.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: boot_id.trim_end().to_owned(),
            uptime_ms: uptime_ms(),
            warnings: self
                .warnings
                .lock()
                .map(|warnings| warnings.clone())
                .unwrap_or_default(),
        }
    }
}

/// Milliseconds since the kernel started.
pub fn uptime_ms() -> u64 {
    let uptime = clock_gettime(ClockId::Boottime);
    let millis = uptime.tv_sec * 1000 + uptime.tv_nsec / 1_000_000;
    u64::try_from(millis).unwrap_or(0)
}

/// A value that differs between boots. It is no secret, so it does not wait for the kernel's entropy.
fn boot_nonce() -> Nonce {
    let mut bytes = [0_u8; 16];
    let _ = getrandom(&mut bytes[..], GetRandomFlags::INSECURE);
    Nonce(bytes)
}
