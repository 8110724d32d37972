//! kmod's index files (`modules.*.bin`): a radix tree of keys, each with values and their priorities.
//!
//! Format (kmod's `shared/`libkmod-index.h`): magic, version, place of the root; integers big-endian. A place is an
//! offset in the file, whose upper four bits say what the node has: a prefix (bytes, NUL), children (first and last
//! byte, then a place for each byte between, 0 for none), values (count; each a priority and bytes, NUL). Children are
//! written before their parent. A child's key goes on after the byte that leads to it.

use super::super::modules::ModulesError;
use super::super::unpack::Cancelled;

const MAGIC: u32 = 0xb007_f457;
/// 2.1
const VERSION: u32 = 0x0002_0001;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;

/// The longest key that is written; aliases of real devices have 200 bytes or so. The writer is as deep as keys are long.
const LONGEST_KEY: usize = 512;
/// The largest file. The format has 28 bits for a place; the largest of Debian's cloud kernel has 300 kB. Where two keys part
/// in distant bytes, half a kilobyte is written.
const LARGEST: usize = 64 << 20;
/// Entries between two questions whether it is cancelled.
const ASKED_AT: usize = 4096;

/// Keys with their values, to be written.
#[derive(Debug, Default)]
pub struct Entries(Vec<(Vec<u8>, u32, Vec<u8>)>);

impl Entries {
    /// None yet.
    pub fn new() -> Entries {
        Entries::default()
    }

    /// One more value of a key; the reader takes those of lower priority first. What the format cannot say is left out:
    /// a NUL anywhere, a key beyond ASCII. So is a key that nobody asks for because it is too long.
    pub fn add(&mut self, key: &str, priority: u32, value: &str) {
        if key.len() <= LONGEST_KEY
            && key.is_ascii()
            && !key.contains('\0')
            && !value.contains('\0')
        {
            self.0.push((key.into(), priority, value.into()));
        }
    }

    /// The file, of this name.
    ///
    /// # Errors
    /// It would be larger than any kernel's, or it was cancelled.
    pub fn into_bytes(
        mut self,
        file: &'static str,
        cancelled: &Cancelled<'_>,
    ) -> Result<Vec<u8>, ModulesError> {
        self.0.sort();
        self.0.dedup();
        let mut out = Vec::new();
        out.extend(MAGIC.to_be_bytes());
        out.extend(VERSION.to_be_bytes());
        out.extend([0; 4]);
        let mut writer = Writer {
            out,
            file,
            cancelled,
            nodes: 0,
        };
        let root = writer.node(&self.0, 0)?;
        let mut out = writer.out;
        out[8..12].copy_from_slice(&root.to_be_bytes());
        Ok(out)
    }
}

/// Writes nodes, children before their parents.
struct Writer<'a> {
    out: Vec<u8>,
    file: &'static str,
    cancelled: &'a Cancelled<'a>,
    nodes: usize,
}

impl Writer<'_> {
    /// Writes the node of these sorted entries, whose keys are the same up to `depth`, and gives its place.
    fn node(
        &mut self,
        entries: &[(Vec<u8>, u32, Vec<u8>)],
        depth: usize,
    ) -> Result<u32, ModulesError> {
        if self.nodes.is_multiple_of(ASKED_AT) && (self.cancelled)() {
            return Err(ModulesError::Cancelled);
        }
        self.nodes += 1;
        let (first, last) = match entries {
            [first, .., last] => (&first.0, &last.0),
            [only] => (&only.0, &only.0),
            [] => return self.place(),
        };
        let same = first[depth..].iter().zip(&last[depth..]);
        let prefix = same.take_while(|(a, b)| a == b).count();
        let end = depth + prefix;
        // Sorted: the values of this very key stand before all longer keys.
        let (here, below) = entries.split_at(entries.partition_point(|e| e.0.len() == end));
        let children = below
            .chunk_by(|a, b| a.0[end] == b.0[end])
            .map(|child| Ok((child[0].0[end], self.node(child, end + 1)?)))
            .collect::<Result<Vec<(u8, u32)>, ModulesError>>()?;

        let mut place = self.place()?;
        if prefix > 0 {
            place |= HAS_PREFIX;
            self.out.extend(&first[depth..end]);
            self.out.push(0);
        }
        if let [(low, _), ..] = children[..]
            && let [.., (high, _)] = children[..]
        {
            place |= HAS_CHILDREN;
            self.out.extend([low, high]);
            for byte in low..=high {
                let child = children.iter().find(|(b, _)| *b == byte);
                let place = child.map_or(0, |(_, place)| *place);
                self.out.extend(place.to_be_bytes());
            }
        }
        if !here.is_empty() {
            place |= HAS_VALUES;
            let count = u32::try_from(here.len()).unwrap_or(u32::MAX);
            self.out.extend(count.to_be_bytes());
            for (_, priority, value) in here {
                self.out.extend(priority.to_be_bytes());
                self.out.extend(value);
                self.out.push(0);
            }
        }
        Ok(place)
    }

    /// Where the next byte goes.
    fn place(&self) -> Result<u32, ModulesError> {
        let at = self.out.len();
        match u32::try_from(at) {
            Ok(place) if at <= LARGEST => Ok(place),
            _ => Err(ModulesError::TooLarge { file: self.file }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// A reader as kmod's `index_search` is one.
    fn look_up(file: &[u8], key: &[u8]) -> Vec<(u32, String)> {
        let word = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
        let text = |at: usize| {
            let len = file[at..].iter().position(|b| *b == 0).unwrap();
            String::from_utf8(file[at..at + len].to_vec()).unwrap()
        };
        let (mut place, mut rest) = (word(8), key);
        loop {
            let mut at = (place & 0x0fff_ffff) as usize;
            if place & HAS_PREFIX != 0 {
                let prefix = text(at);
                let Some(after) = rest.strip_prefix(prefix.as_bytes()) else {
                    return Vec::new();
                };
                (rest, at) = (after, at + prefix.len() + 1);
            }
            let mut next = 0;
            if place & HAS_CHILDREN != 0 {
                let (low, high) = (file[at], file[at + 1]);
                if let Some(byte) = rest.first().filter(|b| (low..=high).contains(b)) {
                    next = word(at + 2 + usize::from(byte - low) * 4);
                }
                at += 2 + (usize::from(high - low) + 1) * 4;
            }
            if rest.is_empty() {
                let mut values = Vec::new();
                if place & HAS_VALUES != 0 {
                    let count = word(at);
                    at += 4;
                    for _ in 0..count {
                        values.push((word(at), text(at + 4)));
                        at += 4 + text(at + 4).len() + 1;
                    }
                }
                return values;
            }
            if next == 0 {
                return Vec::new();
            }
            (place, rest) = (next, &rest[1..]);
        }
    }

    #[test]
    fn the_bytes_are_depmods() {
        let mut entries = Entries::new();
        for key in ["fun", "fuse", "fu", "x_y"] {
            entries.add(key, 0, "");
        }
        let hex: String = entries
            .into_bytes("x", &|| false)
            .unwrap()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        // modules.builtin.bin as depmod of kmod 30 writes it for these four.
        let depmods = [
            "b007f4570002000120000051000000010000000000650000",
            "000001000000000075006e734000000c0000000000000000",
            "0000000000000000c00000150000000100000000005f7900",
            "0000000100000000006678e0000020000000000000000000",
            "000000000000000000000000000000000000000000000000",
            "000000000000000000000000000000000000000000000000",
            "0000000000000000000000c0000045",
        ];
        assert_eq!(hex, depmods.concat());
    }

    #[test]
    fn keys_without_end_take_no_stack() {
        let mut entries = Entries::new();
        let long = "a".repeat(20_000);
        for end in (1..=long.len()).step_by(2) {
            entries.add(&long[..end], 0, "m");
        }
        let file = entries.into_bytes("x", &|| false).unwrap();
        assert_eq!(look_up(&file, b"aaa"), [(0, "m".to_owned())]);
        assert_eq!(look_up(&file, &long.as_bytes()[..LONGEST_KEY + 1]), []);
    }

    /// Keys that part in two distant bytes again and again: small to say, and each parting takes half a kilobyte.
    #[test]
    fn keys_that_unfold_to_a_huge_file_are_refused() {
        let unfolded = |keys: u32| {
            let mut entries = Entries::new();
            for i in 0..keys {
                let bits = (0..20).map(|bit| match i >> bit & 1 {
                    0 => '\x01',
                    _ => '\x7f',
                });
                entries.add(&bits.collect::<String>(), 0, "");
            }
            entries.into_bytes("modules.alias.bin", &|| false)
        };
        let small = unfolded(1000).unwrap().len();
        assert!(small > 500 * 1000, "{small}");
        let told = unfolded(200_000).unwrap_err().to_string();
        assert!(told.contains("modules.alias.bin larger"), "{told}");
    }

    proptest! {
        #[test]
        fn what_was_added_is_found_and_nothing_else(
            added in proptest::collection::vec(("[a-c]{0,5}", 0u32..9, "[a-z]{0,3}"), 0..60),
            other in "[a-d]{0,6}",
        ) {
            let mut entries = Entries::new();
            let mut expected: BTreeMap<String, BTreeSet<(u32, String)>> = BTreeMap::new();
            for (key, priority, value) in added {
                entries.add(&key, priority, &value);
                expected.entry(key).or_default().insert((priority, value));
            }
            let file = entries.into_bytes("x", &|| false).unwrap();
            for (key, values) in &expected {
                let values: Vec<_> = values.iter().cloned().collect();
                prop_assert_eq!(look_up(&file, key.as_bytes()), values);
            }
            if !expected.contains_key(&other) {
                prop_assert_eq!(look_up(&file, other.as_bytes()), []);
            }
        }
    }
}
