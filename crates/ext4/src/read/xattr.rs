//! Extended attributes of an inode, turned back into what `getxattr` gives.

use super::node::Node;
use super::source::{ReadAt, ReadError, get16, get32, get64};
use super::volume::Volume;
use crate::tree::Xattr;

const MAGIC: u32 = 0xea02_0000;
const DAMAGED: ReadError = ReadError::Damaged("extended attributes leave their place");

/// All of an inode's, by name.
pub fn read<R: ReadAt>(volume: &Volume<R>, node: &Node) -> Result<Vec<Xattr>, ReadError> {
    let mut xattrs = Vec::new();
    let inline = 128 + usize::from(get16(&node.bytes, 0x80));
    if node.bytes.len() > 128 && get32(&node.bytes, inline) == MAGIC {
        let bytes = node.bytes.get(inline + 4..).ok_or(DAMAGED)?;
        entries(bytes, 0, &mut xattrs)?;
    }
    let place = get64(&node.bytes, 0x68, 0x76) & 0xffff_ffff_ffff;
    if place != 0 {
        let mut block = vec![0; volume.block];
        volume.read(place.saturating_mul(volume.block as u64), &mut block)?;
        if get32(&block, 0) != MAGIC {
            return Err(DAMAGED);
        }
        entries(&block, 32, &mut xattrs)?;
    }
    xattrs.sort();
    Ok(xattrs)
}

fn entries(bytes: &[u8], first: usize, xattrs: &mut Vec<Xattr>) -> Result<(), ReadError> {
    let mut at = first;
    // Values do not share bytes: together they have no more than their place.
    let mut room = bytes.len();
    while at + 4 <= bytes.len() && get32(bytes, at) != 0 {
        let entry = bytes.get(at..at + 16).ok_or(DAMAGED)?;
        let length = usize::from(entry[0]);
        let name = bytes.get(at + 16..at + 16 + length).ok_or(DAMAGED)?;
        if get32(entry, 4) != 0 {
            return Err(ReadError::Unsupported(
                "attributes kept in inodes of their own",
            ));
        }
        let size = usize::try_from(get32(entry, 8)).map_err(|_| DAMAGED)?;
        let offset = if size == 0 {
            0
        } else {
            usize::from(get16(entry, 2))
        };
        room = room.checked_sub(size).ok_or(DAMAGED)?;
        let value = bytes
            .get(offset..offset.saturating_add(size))
            .ok_or(DAMAGED)?;
        let index = entry[1];
        let prefix: &[u8] = match index {
            1 => b"user.",
            2 => b"system.posix_acl_access",
            3 => b"system.posix_acl_default",
            4 => b"trusted.",
            6 => b"security.",
            // What the kernel keeps for itself.
            _ => b"",
        };
        if !prefix.is_empty() {
            let value = if matches!(index, 2 | 3) {
                acl(value).ok_or(DAMAGED)?
            } else {
                value.to_vec()
            };
            xattrs.push(Xattr {
                name: [prefix, name].concat().into(),
                value: value.into(),
            });
        }
        at += 16 + length.next_multiple_of(4);
    }
    Ok(())
}

/// An ACL as `getxattr` gives it, from what the disk has.
fn acl(disk: &[u8]) -> Option<Vec<u8>> {
    let mut rest = disk.strip_prefix(&1u32.to_le_bytes())?;
    let mut value = 2u32.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let with_id = matches!(get16(rest, 0), 0x02 | 0x08);
        let (entry, behind) = rest.split_at_checked(if with_id { 8 } else { 4 })?;
        value.extend_from_slice(entry);
        if !with_id {
            value.extend_from_slice(&u32::MAX.to_le_bytes());
        }
        rest = behind;
    }
    Some(value)
}
