//! Disks by the serial number their virtio-blk device carries.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Reason;

/// How long a disk may take to appear after the driver is there.
const LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(1);

/// Waits for the disk with this serial and gives its device node.
pub fn find(serial: &str) -> Result<PathBuf, Reason> {
    let end = Instant::now() + LIMIT;
    loop {
        let seen = serials();
        if let Some((name, _)) = seen.iter().find(|(_, found)| found == serial) {
            return Ok(Path::new("/dev").join(name));
        }
        if Instant::now() >= end {
            let seen: Vec<String> = seen
                .iter()
                .map(|(name, serial)| format!("{name}={serial:?}"))
                .collect();
            return Err(format!(
                "no disk has the serial {serial:?} after {} s; there are: {}",
                LIMIT.as_secs(),
                if seen.is_empty() {
                    "none".to_owned()
                } else {
                    seen.join(", ")
                }
            ));
        }
        std::thread::sleep(LOOK);
    }
}

/// Name and serial of every block device that has one.
fn serials() -> Vec<(String, String)> {
    let Ok(devices) = std::fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    devices
        .flatten()
        .filter_map(|device| {
            let serial = std::fs::read_to_string(device.path().join("serial")).ok()?;
            Some((
                device.file_name().into_string().ok()?,
                serial.trim_end().to_owned(),
            ))
        })
        .collect()
}
