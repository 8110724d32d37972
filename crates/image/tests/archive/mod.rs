//! Archives made byte by byte, and images looked into.

use banger_host::linux::{LinuxConfig, LinuxHost};
use banger_host::{ToolCall, Tools};
use banger_image::ImageStore;
use std::{fs, path::Path, sync::Arc, time::Duration};
use tar::{EntryType, Header};

/// A tar of anything, also of what no archiver writes.
#[derive(Default)]
pub struct Tar(Vec<u8>);

/// A header with a right checksum, whatever the name.
pub fn header(kind: EntryType, name: &str, size: u64) -> Header {
    named(kind, name.as_bytes(), size)
}

fn named(kind: EntryType, name: &[u8], size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    let field = &mut header.as_mut_bytes()[..100];
    let cut = name.len().min(100);
    field[..cut].copy_from_slice(&name[..cut]);
    header.set_size(size);
    header.set_mode(if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    header
}

#[allow(dead_code, reason = "each test file uses its part")]
impl Tar {
    pub fn new() -> Self {
        Tar::default()
    }

    pub fn raw(mut self, header: Header, data: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &[u8]) -> Self {
        let name = if name.len() > 100 {
            return self.long(name).file("long", data);
        } else {
            name
        };
        self.raw(header(EntryType::Regular, name, data.len() as u64), data)
    }

    pub fn bytes_name(self, name: &[u8], data: &[u8]) -> Self {
        self.raw(named(EntryType::Regular, name, data.len() as u64), data)
    }

    pub fn directory(self, name: &str) -> Self {
        self.raw(header(EntryType::Directory, name, 0), b"")
    }

    pub fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let this = match target.len() {
            ..=100 => self,
            long => self.raw(
                header(EntryType::GNULongLink, "././@LongLink", long as u64),
                target.as_bytes(),
            ),
        };
        let mut link = header(kind, name, 0);
        let cut = target.len().min(100);
        link.as_mut_bytes()[157..157 + cut].copy_from_slice(&target.as_bytes()[..cut]);
        link.set_cksum();
        this.raw(link, b"")
    }

    pub fn device(self, name: &str, major: u32, minor: u32) -> Self {
        let mut device = header(EntryType::Char, name, 0);
        device.set_device_major(major).unwrap();
        device.set_device_minor(minor).unwrap();
        device.set_cksum();
        self.raw(device, b"")
    }

    /// A GNU long name for the next entry.
    pub fn long(self, name: &str) -> Self {
        let long = header(EntryType::GNULongName, "././@LongLink", name.len() as u64);
        self.raw(long, name.as_bytes())
    }

    /// PAX records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.records(EntryType::XHeader, "pax", records)
    }

    /// PAX records for all entries that follow.
    pub fn global(self, records: &[(&str, &[u8])]) -> Self {
        self.records(EntryType::XGlobalHeader, "pax_global_header", records)
    }

    fn records(self, kind: EntryType, name: &str, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits.
            let length = (1..8)
                .map(|digits| rest + digits)
                .find(|n| n.to_string().len() + rest == *n);
            data.extend_from_slice(format!("{} {key}=", length.unwrap()).as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(header(kind, name, data.len() as u64), &data)
    }

    pub fn done(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub fn store(dir: &Path) -> ImageStore<LinuxHost> {
    let host = LinuxHost::new(LinuxConfig::default());
    ImageStore::new(Arc::new(host), dir.join("images"))
}

/// What is in a directory but locks.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| !matches!(name.as_str(), ".lock" | ".publish.lock"))
        .collect();
    names.sort();
    names
}

/// What debugfs says of a file system.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn look(rootfs: &Path, command: &str) -> String {
    tool("debugfs", &[Path::new("-R"), Path::new(command), rootfs])
}

/// Runs a program; its standard output is given back.
pub fn tool(program: &str, args: &[&Path]) -> String {
    let call = ToolCall {
        program: program.into(),
        args: args.iter().map(|arg| (*arg).into()).collect(),
        env: Default::default(),
        cwd: "/".into(),
        stdin: Vec::new(),
        timeout: Duration::from_secs(30),
    };
    let host = LinuxHost::new(LinuxConfig::default());
    let output = host.run_tool(&call, &mut |_| {}, &|| false).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
