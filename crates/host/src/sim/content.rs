//! What is in a simulated file: bytes, or a disk known by its identity.

use std::{path::Path, rc::Rc};

/// Content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Content {
    /// Bytes of a state file or log.
    Bytes(Rc<[u8]>),
    /// A disk.
    Disk(Disk),
}

/// A disk by identity: two disks with the same serial hold the same bytes, but for guest writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Given when it was made; one that is made anew has another.
    pub serial: u32,
    /// Made to the end.
    pub whole: bool,
    /// What it was copied from, empty for a sparse one.
    pub template: Rc<str>,
    /// Apparent size in bytes.
    pub len: u64,
    /// Guest writes so far: user data, worth keeping.
    pub writes: u32,
}

impl Content {
    /// No bytes.
    pub fn empty() -> Self {
        Content::Bytes(Rc::from([]))
    }

    /// These bytes.
    pub fn bytes(bytes: &[u8]) -> Self {
        Content::Bytes(Rc::from(bytes))
    }

    /// A new disk, whole.
    pub fn disk(serial: u32, template: Option<&Path>, len: u64) -> Self {
        Content::Disk(Disk {
            serial,
            whole: true,
            template: template.and_then(Path::to_str).unwrap_or("").into(),
            len,
            writes: 0,
        })
    }

    /// Apparent size.
    pub fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Disk(disk) => disk.len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first half of it, as a crash in the middle of writing leaves it.
    pub fn half(&self) -> Self {
        match self {
            Content::Bytes(bytes) => Content::bytes(&bytes[..bytes.len() / 2]),
            Content::Disk(disk) => Content::Disk(Disk {
                whole: false,
                ..disk.clone()
            }),
        }
    }

    /// The disk in it.
    pub fn as_disk(&self) -> Option<&Disk> {
        match self {
            Content::Disk(disk) => Some(disk),
            Content::Bytes(_) => None,
        }
    }

    /// Makes it so long, if it is shorter: zeros at the end.
    pub fn grow(&mut self, len: u64) {
        match self {
            Content::Disk(disk) => disk.len = disk.len.max(len),
            Content::Bytes(bytes) if (bytes.len() as u64) < len => {
                let mut longer = bytes.to_vec();
                longer.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
                *bytes = longer.into();
            }
            Content::Bytes(_) => {}
        }
    }

    /// A guest writes to it.
    pub fn scribble(&mut self) {
        if let Content::Disk(disk) = self {
            disk.writes += 1;
        }
    }
}
