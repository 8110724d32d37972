//! An inode's record (`Documentation/filesystems/ext4/inodes.rst`).

use super::extents::Fork;
use super::xattr::INLINE;
use crate::checksum::Checksum;
use crate::error::Why;
use crate::format::{INODE, INODE_USED, Put, high16, high32, low16, low32, mode};
use crate::tree::{Inode, Kind, Time};

/// Bytes of the record after the first 128 that say something.
const EXTRA: u16 = (INODE_USED - 128) as u16;
/// Targets shorter than this are kept in the inode.
pub const FAST_SYMLINK: usize = 60;

/// What an inode's record says.
#[derive(Debug, Clone)]
pub struct Record {
    /// Type and permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Names.
    pub links: u16,
    /// Blocks it takes on the disk, all kinds.
    pub blocks: u64,
    /// `i_flags`.
    pub flags: u32,
    /// All its times.
    pub time: Time,
    /// Extents, a short target or a device.
    pub fork: Fork,
    /// The block of attributes, or 0.
    pub xattr_block: u32,
    /// Attributes after the record.
    pub xattrs: [u8; INLINE],
}

impl Record {
    /// The record's bytes; `checksum` is the inode's.
    pub fn encode(&self, checksum: Checksum) -> [u8; INODE] {
        let mut bytes = [0; INODE];
        let (seconds, extra) = time(self.time);
        // In units of 512 bytes, whatever the size of blocks.
        let sectors = self.blocks * 8;
        bytes.put16(0x00, self.mode);
        bytes.put16(0x02, low16(self.uid));
        bytes.put32(0x04, low32(self.size));
        for at in [0x08, 0x0c, 0x10, 0x90] {
            bytes.put32(at, seconds);
        }
        for at in [0x84, 0x88, 0x8c, 0x94] {
            bytes.put32(at, extra);
        }
        bytes.put16(0x18, low16(self.gid));
        bytes.put16(0x1a, self.links);
        bytes.put32(0x1c, low32(sectors));
        bytes.put32(0x20, self.flags);
        bytes.put(0x28, &self.fork);
        bytes.put32(0x68, self.xattr_block);
        bytes.put32(0x6c, high32(self.size));
        bytes.put16(0x74, low16(high32(sectors)));
        bytes.put16(0x78, high16(self.uid));
        bytes.put16(0x7a, high16(self.gid));
        bytes.put16(0x80, EXTRA);
        bytes.put(INODE_USED, &self.xattrs);
        let sum = checksum.bytes(&bytes).value();
        bytes.put16(0x7c, low16(sum));
        bytes.put16(0x82, high16(sum));
        bytes
    }
}

/// A time as seconds of 32 bits, and two more bits of them below the nanoseconds. What lies outside is moved to the nearest
/// that can be told, as the kernel does when it is given such a time. The bits reach to 2446, but e2fsck takes times after
/// 2310-04-04 for some before 1970 that were stored wrongly, and would move them there.
pub fn time(time: Time) -> (u32, u32) {
    const FIRST: i64 = i32::MIN as i64;
    const LAST: i64 = FIRST + 3 * (1 << 32) - 1;
    let inside = (FIRST..=LAST).contains(&time.seconds);
    let seconds = time.seconds.clamp(FIRST, LAST);
    let nanos = if inside { time.nanos } else { 0 };
    let low = low32(seconds.cast_unsigned());
    // The low half counts as signed; the two bits say how often 2^32 is to be added to that.
    let epoch = low32(((seconds - i64::from(low.cast_signed())) >> 32).cast_unsigned()) & 3;
    (low, nanos << 2 | epoch)
}

/// The type of an inode.
pub fn type_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => mode::DIRECTORY,
        Kind::File { .. } => mode::REGULAR,
        Kind::Symlink(_) => mode::SYMLINK,
        Kind::CharDevice { .. } => mode::CHAR,
        Kind::BlockDevice { .. } => mode::BLOCK,
        Kind::Fifo => mode::FIFO,
        Kind::Socket => mode::SOCKET,
    }
}

/// A device's number in the place of extents: in the first word as it once was, in the second if it is too large for that.
pub fn device(major: u32, minor: u32) -> Fork {
    let mut fork = [0; 60];
    if major < 256 && minor < 256 {
        fork.put32(0, major << 8 | minor);
    } else {
        fork.put32(4, (minor & 0xff) | major << 8 | (minor & !0xff) << 12);
    }
    fork
}

/// What of an inode by itself has no form in ext4.
pub fn check(inode: &Inode) -> Result<(), Why> {
    let meta = &inode.meta;
    if meta.mtime.nanos >= 1_000_000_000 {
        return Err(Why::Nanos(meta.mtime.nanos));
    }
    if meta.mode & !0o7777 != 0 {
        return Err(Why::Mode(meta.mode));
    }
    match &inode.kind {
        Kind::Symlink(target) if target.is_empty() || target.len() > 4095 => {
            Err(Why::TargetLength(target.len()))
        }
        Kind::Symlink(target) if target.contains(&0) => Err(Why::TargetNul),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }
            if *major > 0xfff || *minor > 0xf_ffff =>
        {
            Err(Why::Device {
                major: *major,
                minor: *minor,
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{device, time};
    use crate::tree::Time;

    #[test]
    fn times_reach_from_1901_to_2310() {
        // The examples of the kernel's fs/ext4/inode-test.c.
        for (seconds, low, epoch) in [
            (-0x8000_0000, 0x8000_0000, 0),
            (-1, 0xffff_ffff, 0),
            (0, 0, 0),
            (0x7fff_ffff, 0x7fff_ffff, 0),
            (0x8000_0000, 0x8000_0000, 1),
            (0xffff_ffff, 0xffff_ffff, 1),
            (0x1_0000_0000, 0, 1),
            (0x1_8000_0000, 0x8000_0000, 2),
            (0x2_7fff_ffff, 0x7fff_ffff, 2),
            (0x2_8000_0000, 0x7fff_ffff, 2),
            (i64::MAX, 0x7fff_ffff, 2),
            (i64::MIN, 0x8000_0000, 0),
        ] {
            let (stored, extra) = time(Time { seconds, nanos: 0 });
            assert_eq!((stored, extra), (low, epoch), "{seconds:#x}");
        }
        assert_eq!(
            time(Time {
                seconds: 1,
                nanos: 999_999_999
            })
            .1,
            999_999_999 << 2
        );
        assert_eq!(
            time(Time {
                seconds: i64::MAX,
                nanos: 5
            })
            .1,
            2
        );
    }

    #[test]
    fn devices_have_two_forms() {
        assert_eq!(device(5, 1)[..8], [1, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            device(259, 0x12345)[..8],
            [0, 0, 0, 0, 0x45, 0x03, 0x31, 0x12]
        );
    }
}
