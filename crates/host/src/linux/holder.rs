//! Who holds a block device, for the error of a removal that met "busy" (R-HOST-3).

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

/// Whoever is found first to hold the device of this number: a device on top of it, a mount, a process
/// that has it open. `None` where it has let go meanwhile, or is not ours to see.
pub(super) fn of_device(device: u64) -> Option<String> {
    let number = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    above(&number)
        .or_else(|| mount(&number))
        .or_else(|| opener(device))
}

fn above(number: &str) -> Option<String> {
    let holders = Path::new("/sys/dev/block").join(number).join("holders");
    let entry = fs::read_dir(holders).ok()?.next()?.ok()?;
    Some(format!(
        "the device {} is on top of it",
        entry.file_name().to_string_lossy()
    ))
}

/// Fields 3 and 5 of /proc/self/mountinfo (proc(5)).
fn mount(number: &str) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut lines = table.lines().map(|line| line.split(' ').skip(2));
    lines.find_map(|mut fields| {
        let there = fields.next()? == number;
        let place = fields.nth(1).filter(|_| there)?;
        Some(format!("it is mounted at {place}"))
    })
}

fn opener(device: u64) -> Option<String> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter()
        .find(|pid| has_open(*pid, device))
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({}) has it open", name.trim_end())
        })
}

fn has_open(pid: u32, device: u64) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|entry| {
        fs::metadata(entry.path())
            .is_ok_and(|meta| meta.file_type().is_block_device() && meta.rdev() == device)
    })
}
