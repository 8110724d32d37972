//! The little of ELF that a boot needs: the PVH entry of a kernel, the named section of a module.
//!
//! Formats: the ELF-64 object file format 1.5; `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's public headers (elfnote.h).

use thiserror::Error;

/// Why an ELF file did not hold what was looked for.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ElfError {
    /// Not a 64-bit little-endian ELF file.
    #[error("not a 64-bit little-endian ELF file")]
    NotElf64,
    /// A table or a segment lies outside of the file.
    #[error("the ELF file is cut short ({what})")]
    Cut {
        /// What lies outside.
        what: &'static str,
    },
    /// No note of Xen's type 18 in any PT_NOTE segment.
    #[error("no XEN_ELFNOTE_PHYS32_ENTRY note")]
    NoPvhNote,
}

const PT_NOTE: u32 = 4;
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// Whether the bytes start like an ELF file.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// The physical address at which a PVH-capable monitor enters the kernel.
pub fn pvh_entry(elf: &[u8]) -> Result<u64, ElfError> {
    header(elf)?;
    let (offset, size, count) = (le(elf, 32, 8), le(elf, 54, 2), le(elf, 56, 2));
    for i in 0..count.unwrap_or(0) {
        let at = table_entry(elf, offset, size, i, 56).ok_or(ElfError::Cut {
            what: "program headers",
        })?;
        if le(elf, at, 4) != Some(u64::from(PT_NOTE)) {
            continue;
        }
        let notes = slice(elf, le(elf, at + 8, 8), le(elf, at + 32, 8))
            .ok_or(ElfError::Cut { what: "notes" })?;
        let align = if le(elf, at + 48, 8) == Some(8) { 8 } else { 4 };
        if let Some(entry) = find_pvh(notes, align) {
            return Ok(entry);
        }
    }
    Err(ElfError::NoPvhNote)
}

fn find_pvh(mut notes: &[u8], align: usize) -> Option<u64> {
    while notes.len() >= 12 {
        let name_len = usize::try_from(le(notes, 0, 4)?).ok()?;
        let desc_len = usize::try_from(le(notes, 4, 4)?).ok()?;
        let kind = le(notes, 8, 4)?;
        let name = notes.get(12..12usize.checked_add(name_len)?)?;
        let desc_at = (12 + name_len).next_multiple_of(align);
        let desc = notes.get(desc_at..desc_at.checked_add(desc_len)?)?;
        if kind == u64::from(XEN_ELFNOTE_PHYS32_ENTRY) && name == b"Xen\0" {
            return le(desc, 0, desc_len.min(8));
        }
        notes = notes.get((desc_at + desc_len).next_multiple_of(align)..)?;
    }
    None
}

/// The bytes of a section by its name; `None` if there is no such section.
pub fn section<'a>(elf: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, ElfError> {
    header(elf)?;
    let cut = ElfError::Cut {
        what: "section headers",
    };
    let (offset, size, count, strings) = (
        le(elf, 40, 8),
        le(elf, 58, 2),
        le(elf, 60, 2),
        le(elf, 62, 2),
    );
    let entry = |i| table_entry(elf, offset, size, i, 64);
    let bytes = |at: usize| slice(elf, le(elf, at + 24, 8), le(elf, at + 32, 8));
    let names = strings.and_then(entry).and_then(bytes).ok_or(cut)?;
    for i in 0..count.unwrap_or(0) {
        let at = entry(i).ok_or(ElfError::Cut {
            what: "section headers",
        })?;
        let named = le(elf, at, 4)
            .and_then(|n| names.get(usize::try_from(n).ok()?..))
            .is_some_and(|n| n.split(|b| *b == 0).next() == Some(name.as_bytes()));
        if named {
            return bytes(at)
                .map(Some)
                .ok_or(ElfError::Cut { what: "a section" });
        }
    }
    Ok(None)
}

fn header(elf: &[u8]) -> Result<(), ElfError> {
    // Magic, ELFCLASS64, ELFDATA2LSB.
    if elf.len() < 64 || !elf.starts_with(b"\x7fELF\x02\x01") {
        return Err(ElfError::NotElf64);
    }
    Ok(())
}

fn table_entry(
    elf: &[u8],
    offset: Option<u64>,
    size: Option<u64>,
    index: u64,
    least: usize,
) -> Option<usize> {
    let at = usize::try_from(offset?.checked_add(size?.checked_mul(index)?)?).ok()?;
    (at.checked_add(least)? <= elf.len()).then_some(at)
}

fn slice(bytes: &[u8], at: Option<u64>, len: Option<u64>) -> Option<&[u8]> {
    let at = usize::try_from(at?).ok()?;
    bytes.get(at..at.checked_add(usize::try_from(len?).ok()?)?)
}

fn le(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let mut word = [0u8; 8];
    word.get_mut(..len)?
        .copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
    Some(u64::from_le_bytes(word))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A kernel of one PT_NOTE segment (a foreign note first, then the PVH note if asked for).
    pub(crate) fn tiny_vmlinux(pvh: bool) -> Vec<u8> {
        let mut notes = Vec::new();
        let mut note = |name: &[u8], kind: u32, desc: &[u8]| {
            notes.extend((name.len() as u32).to_le_bytes());
            notes.extend((desc.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            for part in [name, desc] {
                notes.extend(part);
                notes.resize(notes.len().next_multiple_of(4), 0);
            }
        };
        note(b"Linux\0", 18, b"other");
        if pvh {
            note(b"Xen\0", 18, &0x0100_0370u64.to_le_bytes());
        }
        let mut elf = vec![0u8; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32..40].copy_from_slice(&64u64.to_le_bytes());
        elf[54..56].copy_from_slice(&56u16.to_le_bytes());
        elf[56..58].copy_from_slice(&1u16.to_le_bytes());
        elf[64..68].copy_from_slice(&PT_NOTE.to_le_bytes());
        elf[72..80].copy_from_slice(&120u64.to_le_bytes());
        elf[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        elf[112..120].copy_from_slice(&4u64.to_le_bytes());
        elf.extend(notes);
        elf
    }

    #[test]
    fn the_pvh_entry_is_found_behind_other_notes() {
        assert_eq!(pvh_entry(&tiny_vmlinux(true)), Ok(0x0100_0370));
        assert_eq!(pvh_entry(&tiny_vmlinux(false)), Err(ElfError::NoPvhNote));
        assert_eq!(pvh_entry(b"\x7fELF"), Err(ElfError::NotElf64));
    }

    #[test]
    fn no_cut_or_flipped_byte_panics() {
        let elf = tiny_vmlinux(true);
        for at in 0..elf.len() {
            let _ = pvh_entry(&elf[..at]);
            let mut broken = elf.clone();
            broken[at] = 0xff;
            let _ = (pvh_entry(&broken), section(&broken, ".modinfo"));
        }
    }
}
