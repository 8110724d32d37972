//! Files of the state directory and of users, and tar streams.

use banger_config::Config;
use banger_converge::SelfDescription;
use banger_model::VmHandles;
use banger_tree::{
    entry_parts,
    tar::{Kind, Reader},
};
use std::{
    ffi::OsStr,
    fmt::Debug,
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
};

fn same_again<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(data) else {
        return;
    };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, read);
}

/// `handles.json`.
pub fn handles(data: &[u8]) {
    same_again::<VmHandles>(data);
}

/// `vm.json`.
pub fn vm_json(data: &[u8]) {
    same_again::<SelfDescription>(data);
}

/// The configuration: read, or refused in words that name the file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(error) = Config::parse(Path::new("/c.toml"), text) {
        let told = error.to_string();
        assert!(told.contains("/c.toml"), "{told}");
        assert!(!error.hint().is_empty());
    }
}

/// A tar stream as `vm cp` reads it: ends, never asks for more than there is, never names a way out of its directory
/// that is taken for one into it.
pub fn tar(data: &[u8]) {
    let mut reader = Reader::new(data);
    let mut given = 0_u64;
    while let Ok(Some(entry)) = reader.next_entry() {
        stays_below(&entry.path);
        if let Kind::HardLink { target } = &entry.kind {
            stays_below(target);
        }
        loop {
            match reader.data(4096) {
                Ok([]) | Err(_) => break,
                Ok(bytes) => {
                    let count = bytes.len();
                    given += count as u64;
                    assert!(given <= data.len() as u64, "more data than the stream has");
                    reader.consume(count);
                }
            }
        }
    }
}

/// A path that is unpacked goes down only, as the standard library reads it.
fn stays_below(path: &[u8]) {
    let Ok(parts) = entry_parts(path) else {
        return;
    };
    let mut down = Vec::new();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(name) => down.push(name.as_bytes()),
            Component::CurDir => {}
            other => panic!("{other:?} of '{}' is unpacked", path.escape_ascii()),
        }
    }
    assert_eq!(parts, down, "parts of '{}'", path.escape_ascii());
}
