//! What a kernel module says about itself: the `.modinfo` section.
//!
//! Debian's kernel packages carry no `modules.dep` (their installer runs `depmod`); the names of the modules that a
//! module needs are written into each one by the kernel's build (`depends=`, scripts/mod/modpost.c), so that the
//! dependency order needs no program.

use thiserror::Error;

use super::elf::{self, ElfError};
use super::unpack::{Packing, UnpackError, unpack};

/// The largest module taken (the biggest of Debian's cloud kernel has 4 MB).
pub const LARGEST_MODULE: usize = 64 << 20;

/// The most that a module says of itself, and the names of its functions, in bytes each; Debian's most talkative has 100 kB.
pub(super) const MOST_SAID: usize = 2 << 20;

/// Why a file is no readable module.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// Compressed and damaged.
    #[error("the compressed module cannot be unpacked")]
    Unpack {
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// Not an ELF object.
    #[error("the module is no ELF object")]
    Elf {
        /// Why.
        #[source]
        source: ElfError,
    },
    /// Without the section that every module has.
    #[error("the module has no .modinfo section")]
    NoModinfo,
    /// More words than any module has.
    #[error("the module says more than {} MiB of itself", MOST_SAID >> 20)]
    TooTalkative,
}

/// The plain ELF bytes of a `.ko`, `.ko.xz`, `.ko.zst` or `.ko.gz` file.
pub fn plain_module(bytes: &[u8]) -> Result<Vec<u8>, ModuleError> {
    match Packing::of(bytes) {
        Some(packing) => {
            unpack(packing, bytes, LARGEST_MODULE).map_err(|source| ModuleError::Unpack { source })
        }
        None => Ok(bytes.to_vec()),
    }
}

/// The `.modinfo` section of a plain module: `key=value`, each with NULs behind it.
pub(crate) fn info(module: &[u8]) -> Result<&[u8], ModuleError> {
    elf::section(module, ".modinfo")
        .map_err(|source| ModuleError::Elf { source })?
        .ok_or(ModuleError::NoModinfo)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::boot::depmod::ModuleFacts;

    /// A relocatable ELF file with one `.modinfo` section.
    pub(crate) fn tiny_module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.shstrtab\0.modinfo\0";
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let names_at = elf.len();
        elf.extend(names);
        let info_at = elf.len();
        elf.extend(modinfo);
        let table = elf.len();
        let mut section = |name: u32, at: usize, len: usize| {
            let mut s = [0u8; 64];
            s[..4].copy_from_slice(&name.to_le_bytes());
            s[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            s[32..40].copy_from_slice(&(len as u64).to_le_bytes());
            elf.extend(s);
        };
        section(0, 0, 0);
        section(1, names_at, names.len());
        section(11, info_at, modinfo.len());
        elf[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        elf[58..60].copy_from_slice(&64u16.to_le_bytes());
        elf[60..62].copy_from_slice(&3u16.to_le_bytes());
        elf[62..64].copy_from_slice(&1u16.to_le_bytes());
        elf
    }

    #[test]
    fn depends_is_read_and_empty_means_none() {
        let m = tiny_module(b"license=GPL\0depends=failover,net_failover\0name=virtio_net\0");
        let needs = |module: &[u8]| ModuleFacts::of("x.ko", module).map(|facts| facts.needs);
        assert_eq!(needs(&m).unwrap(), ["failover", "net_failover"]);
        let alone = needs(&tiny_module(b"depends=\0name=x\0"));
        assert!(alone.unwrap().is_empty());
        assert!(matches!(needs(b"#!/bin/sh"), Err(ModuleError::Elf { .. })));
    }

    #[test]
    fn compressed_modules_come_out_plain() {
        let m = tiny_module(b"depends=\0");
        let zst = zstd::bulk::compress(&m, 3).unwrap();
        assert_eq!(plain_module(&zst).unwrap(), m);
        assert_eq!(plain_module(&m).unwrap(), m);
    }
}
