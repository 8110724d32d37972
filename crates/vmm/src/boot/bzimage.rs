//! bzImage → ELF: the kernel without the decompressor that a virtual machine monitor does not need.
//!
//! Booting the ELF directly saves the guest its own decompression (0.12 to 0.2 s under emulation), and Firecracker
//! accepts nothing else. Format: Documentation/arch/x86/boot.rst of the Linux source, "The Real-Mode Kernel Header".

use thiserror::Error;

use super::elf;
use super::unpack::{Cancelled, Packing, UnpackError, unpack_unless};

/// No kernel unfolds to more than this; a header that says so is damaged.
const LARGEST_KERNEL: usize = 512 << 20;

/// Why an image is no kernel we can boot.
#[derive(Debug, Error)]
pub enum KernelImageError {
    /// Neither ELF nor bzImage.
    #[error("this is neither an ELF kernel nor an x86 bzImage: {what}")]
    NotAKernel {
        /// The first thing that is wrong.
        what: String,
    },
    /// The header points outside of the file.
    #[error("the bzImage is cut short: its payload ends at byte {needed}, the file has {len}")]
    Cut {
        /// Where the header says the payload ends.
        needed: usize,
        /// Bytes in the file.
        len: usize,
    },
    /// Packed with something we do not read.
    #[error(
        "the kernel's payload starts with {magic:02x?}: banger reads gzip, xz, zstd and lz4 kernels"
    )]
    UnknownPacking {
        /// The first bytes.
        magic: Vec<u8>,
    },
    /// The payload does not unfold.
    #[error("the kernel's payload cannot be unpacked")]
    Unpack {
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// The payload unfolds to another size than its trailer says.
    #[error("the kernel's payload unfolded to {got} bytes instead of {expected}")]
    WrongSize {
        /// What the trailer says.
        expected: usize,
        /// What came out.
        got: usize,
    },
    /// Unfolded, but a microVM cannot enter it.
    #[error(
        "the kernel cannot be entered by a microVM monitor: it has no PVH note (CONFIG_PVH=y is needed)"
    )]
    NoPvh {
        /// Why the note was not found.
        #[source]
        source: elf::ElfError,
    },
}

/// Makes the bootable ELF of a kernel image (bzImage, or an ELF, which is checked and returned as it is).
///
/// # Errors
/// Damage, or it was cancelled.
pub fn vmlinux_of(image: Vec<u8>, cancelled: &Cancelled<'_>) -> Result<Vec<u8>, KernelImageError> {
    let vmlinux = if elf::is_elf(&image) {
        image
    } else {
        unpack_bzimage(&image, cancelled)?
    };
    elf::pvh_entry(&vmlinux).map_err(|source| KernelImageError::NoPvh { source })?;
    Ok(vmlinux)
}

fn unpack_bzimage(image: &[u8], cancelled: &Cancelled<'_>) -> Result<Vec<u8>, KernelImageError> {
    let payload = payload_of(image)?;
    let packing = Packing::of(payload).ok_or_else(|| KernelImageError::UnknownPacking {
        magic: payload.iter().take(6).copied().collect(),
    })?;
    let expected = size_trailer(payload);
    let cap = expected.min(LARGEST_KERNEL);
    let vmlinux = unpack_unless(packing, payload, cap, cancelled)
        .map_err(|source| KernelImageError::Unpack { source })?;
    if vmlinux.len() != expected {
        return Err(KernelImageError::WrongSize {
            expected,
            got: vmlinux.len(),
        });
    }
    Ok(vmlinux)
}

/// The last four bytes of the payload are its unfolded size: gzip's own trailer, appended by the build elsewhere.
fn size_trailer(payload: &[u8]) -> usize {
    payload
        .last_chunk::<4>()
        .map_or(0, |size| u32::from_le_bytes(*size) as usize)
}

fn payload_of(image: &[u8]) -> Result<&[u8], KernelImageError> {
    let not = |what: &str| KernelImageError::NotAKernel {
        what: what.to_owned(),
    };
    let header = image
        .get(..0x250)
        .ok_or_else(|| not("the file is shorter than a boot header"))?;
    if header[0x1fe..0x200] != [0x55, 0xaa] || &header[0x202..0x206] != b"HdrS" {
        return Err(not("the boot header's marks are missing"));
    }
    let version = u16::from_le_bytes([header[0x206], header[0x207]]);
    if version < 0x0208 {
        return Err(not(
            "the boot protocol is older than 2.08 and tells no payload",
        ));
    }
    let le32 = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize
    };
    // Zero setup sectors mean four: the format's own oldest rule.
    let setup_sectors = if header[0x1f1] == 0 {
        4
    } else {
        usize::from(header[0x1f1])
    };
    let start = (setup_sectors + 1) * 512 + le32(0x248);
    let end = start + le32(0x24c);
    image.get(start..end).ok_or(KernelImageError::Cut {
        needed: end,
        len: image.len(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::boot::elf::tests::tiny_vmlinux;
    use std::io::Write;

    /// A bzImage around a payload, with one setup sector.
    pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0u8; 1024];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend([0x90; 16]);
        image.extend(payload);
        image.extend([0xcc; 100]);
        image
    }

    fn vmlinux_of(image: &[u8]) -> Result<Vec<u8>, KernelImageError> {
        super::vmlinux_of(image.to_vec(), &|| false)
    }

    fn with_trailer(mut packed: Vec<u8>, size: usize) -> Vec<u8> {
        packed.extend((size as u32).to_le_bytes());
        packed
    }

    fn gz(data: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(data).unwrap();
        e.finish().unwrap()
    }

    #[test]
    fn every_packing_gives_the_elf_back() {
        let elf = tiny_vmlinux(true);
        let zst = with_trailer(zstd::bulk::compress(&elf, 3).unwrap(), elf.len());
        let lz4 = {
            let block = lz4_flex::block::compress(&elf);
            let mut out = vec![0x02, 0x21, 0x4c, 0x18];
            out.extend((block.len() as u32).to_le_bytes());
            out.extend(block);
            with_trailer(out, elf.len())
        };
        for packed in [gz(&elf), zst, lz4] {
            assert_eq!(vmlinux_of(&bzimage(&packed)).unwrap(), elf);
        }
        assert_eq!(vmlinux_of(&elf).unwrap(), elf, "an ELF is taken as it is");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let elf = tiny_vmlinux(true);
        let text = |image: &[u8]| vmlinux_of(image).unwrap_err().to_string();
        assert!(
            text(b"#!/bin/sh\n").contains("neither an ELF kernel nor"),
            "{}",
            text(b"#!/bin/sh\n")
        );
        assert!(text(&bzimage(b"BZh9....")).contains("gzip, xz, zstd and lz4"));
        let whole = bzimage(&gz(&elf));
        assert!(text(&whole[..1100]).contains("cut short"));
        let lies = with_trailer(zstd::bulk::compress(&elf, 3).unwrap(), elf.len() + 1);
        assert!(text(&bzimage(&lies)).contains("instead of"));
        let no_pvh = tiny_vmlinux(false);
        assert!(text(&no_pvh).contains("CONFIG_PVH"));
        let mut old = whole.clone();
        old[0x206..0x208].copy_from_slice(&0x0207u16.to_le_bytes());
        assert!(text(&old).contains("older than 2.08"));
    }

    #[test]
    fn damage_anywhere_is_an_error_or_another_elf_but_never_a_panic() {
        let image = bzimage(&gz(&tiny_vmlinux(true)));
        for at in 0..image.len() {
            for bit in [0x01, 0x80, 0xff] {
                let mut broken = image.clone();
                broken[at] ^= bit;
                let _ = vmlinux_of(&broken);
            }
            let _ = vmlinux_of(&image[..at]);
        }
    }
}
