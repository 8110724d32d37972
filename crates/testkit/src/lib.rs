//! What tests of the real programs share: a private home per test ([`Home`]), runs of the command
//! line with a deadline ([`Run`]), waits that say what they waited for ([`wait_until`]), and the check
//! that the machine is as it was ([`Machine`]).

mod home;
mod image;
pub mod kernel;
mod listing;
mod local_guest;
mod lost;
mod machine;
mod run;
mod skip;
mod terminal;

pub use home::{Home, binaries, seed};
pub use image::image_seeds;
pub use listing::listing;
pub use local_guest::{LocalGuest, in_own_mounts};
pub use lost::leave_lost;
pub use machine::Machine;
pub use run::{Run, Running};
pub use rustix::process::Signal;
pub use skip::{in_test_host, skip};
pub use terminal::OnTerminal;

use std::time::{Duration, Instant};

/// Signals a process, if it is there.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok();
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Waits until `probe` yields a value, polling every 20 ms.
///
/// # Panics
/// After `timeout`, saying what was waited for and the last thing seen.
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= deadline => {
                panic!("waited {timeout:?} for {what}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
