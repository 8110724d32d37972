//! Time and boot.

use super::{LinuxHost, fail};
use crate::{Clock, Effect, effects::Result};
use banger_model::BootId;
use rustix::time::{ClockId, clock_gettime};
use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

impl Clock for LinuxHost {
    fn now(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs())
    }

    fn monotonic(&self) -> Duration {
        // Boot time goes on while the machine is suspended, and so do deadlines.
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }

    fn boot_id(&self) -> Result<BootId> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let text = std::fs::read_to_string(path)
            .map_err(|e| fail(Effect::Read, "read this boot's id from", path, e))?;
        Ok(BootId(text.trim().to_owned()))
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
