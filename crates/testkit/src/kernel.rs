//! Kernels that no guest runs, and that every check takes.

/// Options that banger needs of a kernel, by the names that `kernel import` says when they are missing.
pub const NEEDED: [&str; 17] = [
    "64BIT",
    "BINFMT_ELF",
    "BLK_DEV_INITRD",
    "DEVTMPFS",
    "PROC_FS",
    "SYSFS",
    "TMPFS",
    "SERIAL_8250_CONSOLE",
    "ACPI",
    "VIRTIO_MMIO",
    "VIRTIO_CONSOLE",
    "VIRTIO_BLK",
    "EXT4_FS",
    "OVERLAY_FS",
    "INET",
    "UNIX",
    "VIRTIO_NET",
];

/// An ELF with the note by which microVMs are entered, that says a release.
pub fn vmlinux(release: &str, pvh: bool) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4u32, 8, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(if pvh { *b"Xen\0" } else { *b"Nix\0" });
    note.extend(0x0100_0370u64.to_le_bytes());
    let mut elf = vec![0u8; 120];
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(64, &4u32.to_le_bytes());
    put(72, &120u64.to_le_bytes());
    put(96, &(note.len() as u64).to_le_bytes());
    put(112, &4u64.to_le_bytes());
    elf.extend(note);
    elf.extend(format!("\0Linux version {release} (a@b) #1\0").into_bytes());
    elf
}

/// A configuration with what banger needs, but for one option.
pub fn config(without: &str) -> String {
    let set = NEEDED.iter().filter(|option| **option != without);
    set.map(|option| format!("CONFIG_{option}=y\n")).collect()
}
