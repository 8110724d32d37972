//! Processors that the kernel was told to leave for later (`maxcpus=1`).
//!
//! A second processor makes everything before the first word slower under emulation, and bringing it up takes longer
//! than loading the modules (docs/design/boot.md). So it comes up beside the rest of the boot.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::thread::JoinHandle;

/// Where each processor that can be switched has a directory (Documentation/ABI/testing/sysfs-devices-system-cpu).
const CPUS: &str = "/sys/devices/system/cpu";

/// Starts to bring up all processors; the thread gives a sentence for each that did not come.
///
/// The files are opened here: the boot changes the root directory meanwhile.
pub fn bring_up() -> Option<JoinHandle<Vec<String>>> {
    let offline = offline();
    if offline.is_empty() {
        return None;
    }
    let work = move || {
        let bring = |(path, mut file): (PathBuf, File)| {
            let error = file.write_all(b"1").err()?;
            Some(format!("{} refuses to come up: {error}", path.display()))
        };
        offline.into_iter().filter_map(bring).collect()
    };
    std::thread::Builder::new()
        .name("cpus".to_owned())
        .spawn(work)
        .ok()
}

fn offline() -> Vec<(PathBuf, File)> {
    let Ok(entries) = std::fs::read_dir(CPUS) else {
        return Vec::new();
    };
    let switches = entries.flatten().map(|entry| entry.path().join("online"));
    switches
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|state| state.trim() == "0"))
        .filter_map(|path| {
            let file = std::fs::OpenOptions::new().write(true).open(&path).ok()?;
            Some((path, file))
        })
        .collect()
}
