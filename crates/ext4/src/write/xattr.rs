//! Extended attributes: after the inode's record, and what does not fit there in a block
//! (`Documentation/filesystems/ext4/attributes.rst`, `fs/ext4/xattr.c`, `fs/ext4/acl.h`).

use crate::checksum::Checksum;
use crate::error::{Path, Why};
use crate::format::{BLOCK, INODE, INODE_USED, Put};
use crate::tree::{Inode, Kind, Xattr};
use std::borrow::Cow;
use std::cmp::Ordering;

/// Bytes of an inode after its record.
pub const INLINE: usize = INODE - INODE_USED;
/// Before the attributes of an inode, and of a block.
const MAGIC: u32 = 0xea02_0000;
/// Bytes before the first entry in an inode.
const INLINE_HEADER: usize = 4;
/// Bytes before the first entry in a block.
const BLOCK_HEADER: usize = 32;
/// Bytes of an entry before its name.
const ENTRY: usize = 16;
/// Entries end with a word of zeros.
const END: usize = 4;

/// Beginnings of names that are stored as a number; the two ACLs are whole names.
const PREFIXES: [(u8, &[u8], bool); 5] = [
    (1, b"user.", false),
    (2, b"system.posix_acl_access", true),
    (3, b"system.posix_acl_default", true),
    (4, b"trusted.", false),
    (6, b"security.", false),
];
/// The ACL of a directory's new entries.
const DEFAULT_ACL: u8 = 3;

/// Whether ext4 has a form for an attribute of this name: `user.`, `trusted.` and `security.` with something behind, and
/// the two POSIX ACLs. File systems of other kinds have more, and a tree that has one of those is refused.
#[must_use]
pub fn keeps_xattr(name: &[u8]) -> bool {
    form(name).is_some()
}

/// The number of a name's beginning, and what follows it.
fn form(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(index, prefix, whole)| {
        let rest = name.strip_prefix(*prefix)?;
        (rest.is_empty() == *whole).then_some((*index, rest))
    })
}

/// An attribute in the form it is stored in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored<'a> {
    index: u8,
    name: &'a [u8],
    value: Cow<'a, [u8]>,
}

/// Attributes of an inode, each with its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Xattrs<'a> {
    inline: Vec<Stored<'a>>,
    block: Vec<Stored<'a>>,
}

impl<'a> Xattrs<'a> {
    /// Decides what goes where: the small ones into the inode, the others into the block.
    pub fn of(inode: &'a Inode) -> Result<Xattrs<'a>, Why> {
        if inode.meta.xattrs.is_empty() {
            return Ok(Xattrs::default());
        }
        let directory = matches!(inode.kind, Kind::Directory(_));
        let mut all = Vec::with_capacity(inode.meta.xattrs.len());
        for xattr in &inode.meta.xattrs {
            let stored = Stored::of(xattr, directory).map_err(|why| Why::Xattr {
                name: Path(xattr.name.clone()),
                why,
            })?;
            all.push(stored);
        }
        // In a block the kernel looks them up by this order.
        all.sort_by(Stored::order);
        if let Some(pair) = all.windows(2).find(|pair| pair[0].order(&pair[1]).is_eq()) {
            return Err(Why::Xattr {
                name: pair[0].full_name(),
                why: "given twice",
            });
        }
        split(all)
    }

    /// Whether they need a block.
    pub fn needs_block(&self) -> bool {
        !self.block.is_empty()
    }

    /// What comes after the inode's record.
    pub fn encode_inline(&self) -> [u8; INLINE] {
        let mut bytes = [0; INLINE];
        if !self.inline.is_empty() {
            bytes.put32(0, MAGIC);
            // Values are told by their distance from the first entry.
            encode(&mut bytes[INLINE_HEADER..], 0, &self.inline);
        }
        bytes
    }

    /// The block, which lies at `place`; `checksum` is the file system's.
    pub fn encode_block(&self, place: u32, checksum: Checksum) -> [u8; BLOCK] {
        let mut bytes = [0; BLOCK];
        bytes.put32(0, MAGIC);
        bytes.put32(4, 1); // inodes that share the block
        bytes.put32(8, 1); // blocks
        encode(&mut bytes, BLOCK_HEADER, &self.block);
        let hash = self
            .block
            .iter()
            .fold(0u32, |hash, stored| hash.rotate_left(16) ^ stored.hash());
        bytes.put32(12, hash);
        let sum = checksum.word(place).word(0).bytes(&bytes).value();
        bytes.put32(16, sum);
        bytes
    }
}

impl<'a> Stored<'a> {
    fn of(xattr: &'a Xattr, directory: bool) -> Result<Stored<'a>, &'static str> {
        let (index, name) = form(&xattr.name).ok_or(
            "ext4 keeps names that begin with user., trusted. or security., and the two POSIX ACLs",
        )?;
        if name.len() > 255 || name.contains(&0) {
            return Err("the name is longer than 255 bytes or has a NUL");
        }
        let value = match (whole_acl(index), directory) {
            (false, _) => Cow::Borrowed(&xattr.value[..]),
            (true, false) if index == DEFAULT_ACL => {
                return Err("only directories have a default ACL");
            }
            (true, _) => {
                Cow::Owned(acl(&xattr.value).ok_or("not a POSIX ACL as getxattr gives it")?)
            }
        };
        Ok(Stored { index, name, value })
    }

    /// The order of entries.
    fn order(&self, other: &Self) -> Ordering {
        let key = |stored: &Self| (stored.index, stored.name.len());
        key(self).cmp(&key(other)).then(self.name.cmp(other.name))
    }

    fn full_name(&self) -> Path {
        let prefix = PREFIXES.iter().find(|prefix| prefix.0 == self.index);
        let prefix = prefix.map_or(&b""[..], |prefix| prefix.1);
        Path([prefix, self.name].concat().into())
    }

    /// Bytes of entry and value.
    fn bytes(&self) -> usize {
        ENTRY + self.name.len().next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }

    /// `e_hash`: the name's bytes, then the value's words.
    fn hash(&self) -> u32 {
        let name = self
            .name
            .iter()
            .fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
        self.value.chunks(4).fold(name, |hash, chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

fn whole_acl(index: u8) -> bool {
    PREFIXES.iter().any(|prefix| prefix.0 == index && prefix.2)
}

/// Fills the inode with the smallest, as many as fit; the block has to hold the rest.
fn split(all: Vec<Stored<'_>>) -> Result<Xattrs<'_>, Why> {
    let mut by_size: Vec<usize> = (0..all.len()).collect();
    by_size.sort_by_key(|&at| all[at].bytes());
    let mut room = INLINE - INLINE_HEADER - END;
    let mut inline = vec![false; all.len()];
    for at in by_size {
        match room.checked_sub(all[at].bytes()) {
            Some(left) => (inline[at], room) = (true, left),
            None => break,
        }
    }
    let mut room = BLOCK - BLOCK_HEADER - END;
    let mut xattrs = Xattrs::default();
    for (stored, inline) in all.into_iter().zip(inline) {
        if inline {
            xattrs.inline.push(stored);
            continue;
        }
        room = room
            .checked_sub(stored.bytes())
            .ok_or_else(|| Why::XattrsTooLarge {
                name: stored.full_name(),
                bytes: stored.bytes() - room,
            })?;
        xattrs.block.push(stored);
    }
    Ok(xattrs)
}

/// Entries from `first` on, values from the end; offsets count from the beginning of `bytes`.
fn encode(bytes: &mut [u8], first: usize, all: &[Stored<'_>]) {
    let mut at = first;
    let mut end = bytes.len();
    for stored in all {
        let mut offset = 0;
        if !stored.value.is_empty() {
            end -= stored.value.len().next_multiple_of(4);
            bytes.put(end, &stored.value);
            offset = end;
        }
        bytes.put8(at, u8::try_from(stored.name.len()).unwrap_or(0));
        bytes.put8(at + 1, stored.index);
        bytes.put16(at + 2, u16::try_from(offset).unwrap_or(0));
        bytes.put32(at + 8, u32::try_from(stored.value.len()).unwrap_or(0));
        bytes.put32(at + 12, stored.hash());
        bytes.put(at + ENTRY, stored.name);
        at += ENTRY + stored.name.len().next_multiple_of(4);
    }
}

/// An ACL as the disk has it, from what `getxattr` gives: another version, and no id where there is none.
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    const WITHOUT_ID: [u16; 4] = [0x01, 0x04, 0x10, 0x20];
    let (version, entries) = value.split_at_checked(4)?;
    if version != 2u32.to_le_bytes() || entries.is_empty() || !entries.len().is_multiple_of(8) {
        return None;
    }
    let mut disk = 1u32.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        if permissions > 7 {
            return None;
        }
        match tag {
            USER | GROUP => disk.extend_from_slice(entry),
            tag if WITHOUT_ID.contains(&tag) => disk.extend_from_slice(&entry[..4]),
            _ => return None,
        }
    }
    Some(disk)
}
