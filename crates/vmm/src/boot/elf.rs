//! The little of ELF that a boot needs: the PVH entry of a kernel, the named section of a module.
//!
//! Formats: the ELF-64 object file format 1.5; `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's public headers (elfnote.h).

use thiserror::Error;

/// Why an ELF file did not hold what was looked for.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
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
    /// Far more of something than any kernel or module has.
    #[error("the ELF file has more {what} than any kernel")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
}

const PT_NOTE: u32 = 4;
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
const SHT_SYMTAB: u64 = 2;
/// Size of a symbol's entry.
const SYMBOL: usize = 24;
/// All notes of a file that are looked at, in bytes; Debian's kernels have 500. Headers may name the same bytes 65 535 times.
const MOST_NOTES: usize = 64 << 10;
/// Symbols of a kernel; Debian's largest, with debug information, has 200 000.
const MOST_SYMBOLS: usize = 4 << 20;

/// Whether the bytes start like an ELF file.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// The physical address at which a PVH-capable monitor enters the kernel.
pub fn pvh_entry(elf: &[u8]) -> Result<u64, ElfError> {
    header(elf)?;
    let (offset, size, count) = (le(elf, 32, 8), le(elf, 54, 2), le(elf, 56, 2));
    let mut left = MOST_NOTES;
    for i in 0..count.unwrap_or(0) {
        let at = table_entry(elf, offset, size, i, 56).ok_or(ElfError::Cut {
            what: "program headers",
        })?;
        if le(elf, at, 4) != Some(u64::from(PT_NOTE)) {
            continue;
        }
        let notes = slice(elf, le(elf, at + 8, 8), le(elf, at + 32, 8))
            .ok_or(ElfError::Cut { what: "notes" })?;
        left = left
            .checked_sub(notes.len())
            .ok_or(ElfError::TooMany { what: "notes" })?;
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
    let table = Sections::of(elf)?;
    let strings = le(elf, 62, 2).and_then(|index| table.entry(index));
    let names = strings.and_then(|at| table.bytes(at)).ok_or(CUT)?;
    for i in 0..table.count {
        let at = table.entry(i).ok_or(CUT)?;
        let named = le(elf, at, 4)
            .and_then(|n| names.get(usize::try_from(n).ok()?..))
            .is_some_and(|rest| is_text(rest, name.as_bytes()));
        if named {
            let bytes = table.bytes(at).map(Some);
            return bytes.ok_or(ElfError::Cut { what: "a section" });
        }
    }
    Ok(None)
}

/// Calls `visit` with the rest of the table of names from where each symbol's name begins: linkers let a name be the end
/// of another one, so that only the symbols themselves say which names there are. `false` if there is no table of symbols.
///
/// # Errors
/// The table lies outside of the file, or no kernel has as many.
pub fn for_each_symbol(elf: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, ElfError> {
    let what = "symbols";
    let cut = ElfError::Cut { what };
    let table = Sections::of(elf)?;
    let mut found = None;
    for i in 0..table.count {
        let at = table.entry(i).ok_or(CUT)?;
        if le(elf, at + 4, 4) == Some(SHT_SYMTAB) {
            found = Some(at);
            break;
        }
    }
    let Some(at) = found else {
        return Ok(false);
    };
    let symbols = table.bytes(at).ok_or(cut.clone())?;
    let strings = le(elf, at + 40, 4).and_then(|index| table.entry(index));
    let names = strings.and_then(|at| table.bytes(at)).ok_or(cut)?;
    if symbols.len() / SYMBOL > MOST_SYMBOLS {
        return Err(ElfError::TooMany { what });
    }
    for symbol in symbols.chunks_exact(SYMBOL) {
        let name = le(symbol, 0, 4).and_then(|n| names.get(usize::try_from(n).ok()?..));
        if let Some(name) = name {
            visit(name);
        }
    }
    Ok(true)
}

const CUT: ElfError = ElfError::Cut {
    what: "section headers",
};

/// The table of section headers. Each look-up costs the same whatever stands in it.
struct Sections<'a> {
    elf: &'a [u8],
    offset: Option<u64>,
    size: Option<u64>,
    count: u64,
}

impl<'a> Sections<'a> {
    fn of(elf: &'a [u8]) -> Result<Self, ElfError> {
        header(elf)?;
        Ok(Sections {
            elf,
            offset: le(elf, 40, 8),
            size: le(elf, 58, 2),
            count: le(elf, 60, 2).unwrap_or(0),
        })
    }

    /// Where the header of a section is.
    fn entry(&self, index: u64) -> Option<usize> {
        table_entry(self.elf, self.offset, self.size, index, 64)
    }

    /// The bytes of the section with its header there.
    fn bytes(&self, at: usize) -> Option<&'a [u8]> {
        slice(self.elf, le(self.elf, at + 24, 8), le(self.elf, at + 32, 8))
    }
}

/// Whether a text that ends with NUL is this one; no more of it is read than that takes.
fn is_text(bytes: &[u8], text: &[u8]) -> bool {
    bytes
        .strip_prefix(text)
        .is_some_and(|rest| rest.first().is_none_or(|byte| *byte == 0))
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

    /// A kernel with a table of symbols, the names of which begin at these places in `names`.
    pub(crate) fn with_symbols(names: &[u8], begin: &[u32]) -> Vec<u8> {
        let mut elf = tiny_vmlinux(true);
        elf.resize(elf.len().next_multiple_of(8), 0);
        let names_at = elf.len() as u64;
        elf.extend(names);
        let symbols_at = elf.len() as u64;
        for at in begin {
            elf.extend(at.to_le_bytes());
            elf.extend([0; SYMBOL - 4]);
        }
        let table = elf.len() as u64;
        for (kind, at, len, link) in [
            (0, 0, 0, 0),
            (3, names_at, names.len() as u64, 0),
            (2, symbols_at, (begin.len() * SYMBOL) as u64, 1),
        ] {
            let mut section = [0u8; 64];
            section[4..8].copy_from_slice(&u32::to_le_bytes(kind));
            section[24..32].copy_from_slice(&u64::to_le_bytes(at));
            section[32..40].copy_from_slice(&u64::to_le_bytes(len));
            section[40..44].copy_from_slice(&u32::to_le_bytes(link));
            elf.extend(section);
        }
        elf[40..48].copy_from_slice(&table.to_le_bytes());
        elf[58..60].copy_from_slice(&64u16.to_le_bytes());
        elf[60..62].copy_from_slice(&3u16.to_le_bytes());
        elf[62..64].copy_from_slice(&1u16.to_le_bytes());
        elf
    }

    /// 65 535 headers of which each names the same bytes: what is read does not grow with their product.
    fn headers(at: usize, count: usize, header: &[u8], count_at: usize, body: Vec<u8>) -> Vec<u8> {
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[at..at + 8].copy_from_slice(&(64 + body.len() as u64).to_le_bytes());
        elf[count_at - 2..count_at].copy_from_slice(&(header.len() as u16).to_le_bytes());
        elf[count_at..count_at + 2].copy_from_slice(&(count as u16).to_le_bytes());
        elf.extend(body);
        for _ in 0..count {
            elf.extend(header);
        }
        elf
    }

    #[test]
    fn a_hostile_file_is_refused_at_once() {
        let began = std::time::Instant::now();
        // A table of names of 16 MiB without an end, which 65 535 sections name.
        let mut section_header = [0u8; 64];
        section_header[24..32].copy_from_slice(&64u64.to_le_bytes());
        section_header[32..40].copy_from_slice(&(16u64 << 20).to_le_bytes());
        let endless = headers(40, 65_535, &section_header, 60, vec![b'.'; 16 << 20]);
        assert_eq!(section(&endless, ".modinfo"), Ok(None));
        // 16 MiB of empty notes, which 65 535 segments name.
        let mut segment = [0u8; 56];
        segment[..4].copy_from_slice(&PT_NOTE.to_le_bytes());
        segment[8..16].copy_from_slice(&64u64.to_le_bytes());
        segment[32..40].copy_from_slice(&(16u64 << 20).to_le_bytes());
        let notes = headers(32, 65_535, &segment, 56, vec![0; 16 << 20]);
        assert_eq!(pvh_entry(&notes), Err(ElfError::TooMany { what: "notes" }));
        let small = 96 + (MOST_NOTES as u64 / 100);
        segment[32..40].copy_from_slice(&small.to_le_bytes());
        let notes = headers(32, 65_535, &segment, 56, vec![0; 16 << 20]);
        assert_eq!(pvh_entry(&notes), Err(ElfError::TooMany { what: "notes" }));
        let symbols = with_symbols(b"\0x\0", &vec![1; MOST_SYMBOLS + 1]);
        let many = ElfError::TooMany { what: "symbols" };
        assert_eq!(for_each_symbol(&symbols, &mut |_| {}), Err(many));
        assert!(
            began.elapsed() < std::time::Duration::from_secs(20),
            "{:?}",
            began.elapsed()
        );
    }

    #[test]
    fn symbols_are_named_by_where_their_name_begins() {
        let elf = with_symbols(b"\0__x64_start\0", &[1, 7, 200]);
        let mut seen = Vec::new();
        let table = for_each_symbol(&elf, &mut |name| seen.push(name.to_vec()));
        assert_eq!(table, Ok(true));
        assert_eq!(seen, [b"__x64_start\0".to_vec(), b"start\0".to_vec()]);
        assert_eq!(for_each_symbol(&tiny_vmlinux(true), &mut |_| {}), Ok(false));
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
        let elf = with_symbols(b"\0start_kernel\0", &[1]);
        for at in 0..elf.len() {
            let mut broken = elf.clone();
            broken[at] ^= 0xff;
            let _ = for_each_symbol(&elf[..at], &mut |_| {});
            let _ = for_each_symbol(&broken, &mut |_| {});
        }
    }
}
