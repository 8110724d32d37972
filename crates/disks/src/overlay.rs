//! What overlayfs makes of two layers (`fs/overlayfs/namei.c`, `readdir.c`), decided from what they hold. The agent mounts
//! with `redirect_dir=on,metacopy=off,index=off`.

use banger_ext4::{FileType, Named, Node, ReadError, Xattr};

const OPAQUE: &[u8] = b"trusted.overlay.opaque";
const REDIRECT: &[u8] = b"trusted.overlay.redirect";
const METACOPY: &[u8] = b"trusted.overlay.metacopy";
const NO_PATH: ReadError =
    ReadError::Damaged("a directory of the overlay is redirected to what is no path");

/// Where the lower half of a directory of the upper layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Below {
    /// Nowhere: it replaced what was there.
    Nothing,
    /// Under its own name in the lower half of the directory that it is in.
    SameName,
    /// Under this name there: it was renamed.
    Sibling(Vec<u8>),
    /// At this path of the lower layer: it was moved.
    At(Vec<Vec<u8>>),
}

/// Where the lower half of a directory of the upper layer is, by its attributes.
pub fn below(xattrs: &[Xattr]) -> Result<Below, ReadError> {
    match value(xattrs, OPAQUE) {
        Some(b"y") => return Ok(Below::Nothing),
        Some(b"x") => return Err(ReadError::Unsupported("whiteouts that are attributes")),
        _ => {}
    }
    let Some(path) = value(xattrs, REDIRECT) else {
        return Ok(Below::SameName);
    };
    match path.strip_prefix(b"/") {
        None => part(path).map(Below::Sibling),
        Some(path) => {
            let parts = path.split(|byte| *byte == b'/').map(part);
            parts.collect::<Result<_, _>>().map(Below::At)
        }
    }
}

/// A name that can be looked up.
fn part(name: &[u8]) -> Result<Vec<u8>, ReadError> {
    let wrong = matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0);
    if wrong {
        Err(NO_PATH)
    } else {
        Ok(name.to_vec())
    }
}

/// Whether a name is gone, whatever is below.
pub fn is_whiteout(node: &Node) -> bool {
    node.file_type == FileType::CharDevice && node.device() == Some((0, 0))
}

/// Refuses a file whose bytes are another's.
pub fn whole(xattrs: &[Xattr]) -> Result<(), ReadError> {
    match value(xattrs, METACOPY) {
        Some(_) => Err(ReadError::Unsupported(
            "a file whose bytes are in another layer (metacopy)",
        )),
        None => Ok(()),
    }
}

fn value<'a>(xattrs: &'a [Xattr], name: &[u8]) -> Option<&'a [u8]> {
    let found = xattrs.iter().find(|xattr| *xattr.name == *name);
    found.map(|xattr| &*xattr.value)
}

/// A name, and the inodes it has in the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Its bytes.
    pub name: Box<[u8]>,
    pub(crate) upper: Option<u32>,
    pub(crate) lower: Option<u32>,
}

/// The names of two directories together, in their order. Of a name that a directory has twice the first counts, as it does
/// for a look-up.
pub fn join(upper: Vec<Named>, lower: Vec<Named>) -> Vec<Names> {
    let sorted = |mut names: Vec<Named>| {
        names.sort_by(|a, b| a.name.cmp(&b.name));
        names.dedup_by(|later, first| later.name == first.name);
        names.into_iter().peekable()
    };
    let (mut upper, mut lower) = (sorted(upper), sorted(lower));
    let mut joined = Vec::with_capacity(upper.len().max(lower.len()));
    loop {
        let before = match (upper.peek(), lower.peek()) {
            (Some(a), Some(b)) => a.name.cmp(&b.name),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return joined,
        };
        let above = if before.is_le() { upper.next() } else { None };
        let below = if before.is_ge() { lower.next() } else { None };
        let inodes = (
            above.as_ref().map(|n| n.inode),
            below.as_ref().map(|n| n.inode),
        );
        if let Some(named) = above.or(below) {
            joined.push(Names {
                name: named.name,
                upper: inodes.0,
                lower: inodes.1,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattr(name: &[u8], value: &[u8]) -> Xattr {
        Xattr {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn where_the_lower_half_is() {
        let of = |xattrs: &[(&[u8], &[u8])]| {
            let xattrs: Vec<_> = xattrs.iter().map(|(n, v)| xattr(n, v)).collect();
            below(&xattrs)
        };
        let text = |parts: &[&str]| parts.iter().map(|p| p.as_bytes().to_vec()).collect();
        assert_eq!(of(&[]).unwrap(), Below::SameName);
        assert_eq!(
            of(&[(b"user.overlay.opaque", b"y")]).unwrap(),
            Below::SameName
        );
        assert_eq!(of(&[(OPAQUE, b"n")]).unwrap(), Below::SameName);
        assert_eq!(of(&[(OPAQUE, b"y")]).unwrap(), Below::Nothing);
        assert_eq!(
            of(&[(OPAQUE, b"y"), (REDIRECT, b"/a")]).unwrap(),
            Below::Nothing
        );
        assert_eq!(
            of(&[(REDIRECT, b"old")]).unwrap(),
            Below::Sibling(b"old".to_vec())
        );
        assert_eq!(
            of(&[(REDIRECT, b"/a/b")]).unwrap(),
            Below::At(text(&["a", "b"]))
        );
        assert!(of(&[(OPAQUE, b"x")]).is_err());
        for path in [
            "", "/", "//a", "/a/", "/a//b", "a/b", "..", "/a/../b", ".", "/a\0",
        ] {
            assert!(of(&[(REDIRECT, path.as_bytes())]).is_err(), "{path:?}");
        }
        assert!(whole(&[xattr(METACOPY, b"")]).is_err());
        assert!(whole(&[xattr(OPAQUE, b"y")]).is_ok());
    }

    #[test]
    fn names_are_joined_in_order() {
        let named = |names: &[(&str, u32)]| -> Vec<Named> {
            let named = names.iter().map(|(name, inode)| Named {
                name: name.as_bytes().into(),
                inode: *inode,
            });
            named.collect()
        };
        let joined = join(
            named(&[("c", 3), ("a", 1), ("c", 9)]),
            named(&[("d", 14), ("b", 12), ("c", 13)]),
        );
        let joined: Vec<_> = joined
            .iter()
            .map(|n| (std::str::from_utf8(&n.name).unwrap(), n.upper, n.lower))
            .collect();
        assert_eq!(
            joined,
            [
                ("a", Some(1), None),
                ("b", None, Some(12)),
                ("c", Some(3), Some(13)),
                ("d", None, Some(14)),
            ]
        );
    }
}
