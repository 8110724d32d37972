//! File systems that are smaller than their disk grow to it when they are mounted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::ext4_ioc_resize_fs;

/// Where the superblock is on the disk (Documentation/filesystems/ext4/super.rst).
const SUPERBLOCK: u64 = 1024;

/// Grows the ext4 file system of `device`, which is mounted at `at`. A sentence if that failed: it is as large as before,
/// and nothing on it is touched.
pub fn to_its_disk(device: &Path, at: &str) -> Option<String> {
    grow(device, at).err().map(|error| {
        format!(
            "the file system of {} cannot grow to the size of its disk: {error}",
            device.display()
        )
    })
}

fn grow(device: &Path, at: &str) -> io::Result<()> {
    let (has, block) = size(device)?;
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    // In units of 512 bytes, whatever the device's own are.
    let sectors = std::fs::read_to_string(format!("/sys/class/block/{name}/size"))?;
    let sectors: u64 = sectors.trim().parse().map_err(io::Error::other)?;
    let room = sectors * 512 / block;
    if room <= has {
        return Ok(());
    }
    Ok(ext4_ioc_resize_fs(File::open(at)?, room)?)
}

/// Blocks of a file system, and bytes of a block.
fn size(device: &Path) -> io::Result<(u64, u64)> {
    let mut raw = [0_u8; 1024];
    File::open(device)?.read_exact_at(&mut raw, SUPERBLOCK)?;
    let word = |at: usize| {
        u64::from(u32::from_le_bytes([
            raw[at],
            raw[at + 1],
            raw[at + 2],
            raw[at + 3],
        ]))
    };
    // s_blocks_count_lo, s_log_block_size; s_blocks_count_hi counts with the feature 64bit only.
    let high = if word(0x60) & 0x80 != 0 {
        word(0x150)
    } else {
        0
    };
    let log = word(0x18);
    if raw[0x38..0x3a] != [0x53, 0xef] || log > 6 {
        return Err(io::Error::other("it is no ext4 file system"));
    }
    Ok((high << 32 | word(0x4), 1024 << log))
}
