//! What is written is read back; what is damaged is refused and never panics.

use std::io::BufReader;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(1..=255_u8, 1..30), vec(1..=255_u8, 90..300)].prop_map(|name| {
        name.into_iter()
            .map(|b| if b == b'/' { b'x' } else { b })
            .collect()
    })
}

/// Ascending pieces, and the size of a file that holds them.
fn pieces() -> impl Strategy<Value = (Vec<Extent>, u64)> {
    (vec((0..5000_u64, 1..3000_u64), 0..12), 0..4000_u64).prop_map(|(gaps, tail)| {
        let mut end = 0;
        let mut extents = Vec::new();
        for (gap, length) in gaps {
            extents.push(Extent {
                offset: end + gap,
                length,
            });
            end += gap + length;
        }
        (extents, end + tail)
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (0..3000_u64).prop_map(|size| Kind::File { size, data: None }),
        pieces().prop_map(|(extents, size)| Kind::File {
            size,
            data: Some(extents)
        }),
        Just(Kind::Directory),
        name().prop_map(|target| Kind::Symlink { target }),
        name().prop_map(|target| Kind::HardLink { target }),
    ]
}

prop_compose! {
    fn entry()(
        path in name(),
        kind in kind(),
        mode in 0..=0o7777_u32,
        uid in any::<u32>(),
        gid in 0..=0o10_000_000_u32,
        seconds in -5_000_000_000..20_000_000_000_i64,
        nanoseconds in prop_oneof![Just(0), 0..1_000_000_000_u32],
    ) -> Entry {
        Entry {
            path,
            kind,
            mode,
            uid: u64::from(uid),
            gid: u64::from(gid),
            mtime: Time { seconds, nanoseconds },
        }
    }
}

fn data_of(entry: &Entry) -> Vec<u8> {
    let length = match &entry.kind {
        Kind::File { size, data: None } => *size,
        Kind::File {
            data: Some(extents),
            ..
        } => extents.iter().map(|e| e.length).sum(),
        _ => 0,
    };
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn stream(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let data = data_of(entry);
        bytes.extend_from_slice(&header(entry));
        bytes.extend_from_slice(&data);
        bytes.resize(bytes.len() + padding(data.len() as u64), 0);
    }
    bytes.extend_from_slice(&END);
    bytes
}

/// All entries with their data; the pieces of nothing that end a map are the format's.
fn read(bytes: &[u8], step: usize) -> Result<Vec<(Entry, Vec<u8>)>, crate::Error> {
    let mut reader = Reader::new(BufReader::with_capacity(step, bytes));
    let mut entries = Vec::new();
    while let Some(mut entry) = reader.next_entry()? {
        if let Kind::File {
            data: Some(extents),
            ..
        } = &mut entry.kind
        {
            extents.retain(|e| e.length > 0);
        }
        let mut data = Vec::new();
        loop {
            let part = reader.data(u64::MAX)?;
            if part.is_empty() {
                break;
            }
            let count = part.len();
            data.extend_from_slice(part);
            reader.consume(count);
        }
        entries.push((entry, data));
    }
    reader.finish()?;
    Ok(entries)
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in vec(entry(), 0..6), step in 1..2000_usize) {
        let bytes = stream(&entries);
        prop_assert_eq!(bytes.len() % BLOCK, 0);
        let expected: Vec<_> = entries
            .into_iter()
            .map(|entry| {
                let data = data_of(&entry);
                (entry, data)
            })
            .collect();
        prop_assert_eq!(read(&bytes, step).unwrap(), expected);
    }

    #[test]
    fn a_cut_stream_is_refused(entries in vec(entry(), 1..4), cut in any::<prop::sample::Index>()) {
        let bytes = stream(&entries);
        let end = bytes.len() - END.len() + 1;
        prop_assert!(read(&bytes[..cut.index(end)], 512).is_err());
    }

    #[test]
    fn damage_never_panics(
        entries in vec(entry(), 1..4),
        hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = stream(&entries);
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = read(&bytes, 512);
    }

    #[test]
    fn junk_is_no_tar(junk in vec(1..=255_u8, 512..2000)) {
        prop_assert!(read(&junk, 512).is_err());
    }
}

#[test]
fn a_map_that_overlaps_or_leaves_the_file_is_refused() {
    let file = |extents: &[(u64, u64)], size| Entry {
        path: b"a".to_vec(),
        kind: Kind::File {
            size,
            data: Some(
                extents
                    .iter()
                    .map(|(offset, length)| Extent {
                        offset: *offset,
                        length: *length,
                    })
                    .collect(),
            ),
        },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
    };
    assert!(read(&stream(&[file(&[(0, 10), (20, 10)], 40)]), 512).is_ok());
    for (extents, size) in [
        (&[(0, 10), (5, 10)][..], 40),
        (&[(20, 10), (0, 10)], 40),
        (&[(0, 50)], 40),
        (&[(0, 10)], u64::MAX),
    ] {
        let bytes = stream(&[file(extents, size)]);
        assert!(read(&bytes, 512).is_err(), "{extents:?} {size}");
    }
}

#[test]
fn numbers_in_octal_and_binary() {
    for (text, value) in [
        (&b"0000644\0"[..], Some(0o644)),
        (b"   17 \0\0", Some(0o17)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"8", None),
        (&[0x80, 0, 0, 0, 0, 0, 1, 0], Some(256)),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], Some(-2)),
        (&[0x80, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], None),
    ] {
        assert_eq!(fields::number(text), value, "{text:?}");
    }
}

#[test]
fn compressed_streams_are_told_so() {
    let mut gzip = vec![0x1f, 0x8b, 8];
    gzip.resize(1024, 7);
    assert!(
        read(&gzip, 512)
            .unwrap_err()
            .to_string()
            .contains("gzip -dc")
    );
}

/// A header of this type that tells this size, and pax headers in front: type and records of each.
fn made(kind: u8, size: u64, extensions: &[(u8, &str, &str)]) -> Vec<u8> {
    let block = |kind: u8, size: u64| {
        let file = Entry {
            path: b"plain".to_vec(),
            kind: Kind::File { size, data: None },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
        };
        let mut bytes = header(&file);
        bytes[fields::TYPE] = kind;
        let (at, length) = fields::CHECKSUM;
        bytes[at..at + length].fill(b' ');
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        bytes[at..at + length].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes
    };
    let mut bytes = Vec::new();
    for (kind, key, value) in extensions {
        let mut records = Vec::new();
        pax::record(&mut records, key, value.as_bytes());
        bytes.extend_from_slice(&block(*kind, records.len() as u64));
        records.resize(records.len() + padding(records.len() as u64), 0);
        bytes.extend_from_slice(&records);
    }
    bytes.extend_from_slice(&block(kind, size));
    bytes
}

/// POSIX: what a directory, a device or a fifo tells as its size is not followed by data.
#[test]
fn what_has_no_data_is_not_skipped_by_its_size() {
    for kind in *b"123456" {
        let mut bytes = made(kind, 4096, &[]);
        bytes.extend_from_slice(&made(b'0', 0, &[]));
        bytes.extend_from_slice(&END);
        let entries = read(&bytes, 512).unwrap();
        assert_eq!(entries.len(), 2, "{}", char::from(kind));
    }
}

#[test]
fn the_last_name_counts() {
    let mut bytes = made(b'0', 0, &[(b'g', "path", "global"), (b'x', "path", "own")]);
    bytes.extend_from_slice(&made(b'0', 0, &[]));
    bytes.extend_from_slice(&END);
    let names: Vec<_> = read(&bytes, 512)
        .unwrap()
        .into_iter()
        .map(|(entry, _)| entry.path)
        .collect();
    assert_eq!(names, [&b"own"[..], b"global"]);
}

#[test]
fn sizes_beyond_any_file_are_damage() {
    for kind in *b"07SDZ" {
        for size in [u64::MAX, u64::MAX - 511, i64::MAX as u64 + 1] {
            let size = size.to_string();
            let mut bytes = made(kind, 0, &[(b'x', "size", &size)]);
            bytes.extend_from_slice(&END);
            let error = Reader::new(&bytes[..])
                .next_entry()
                .expect_err(&format!("{} of {size}", char::from(kind)))
                .to_string();
            assert!(error.contains("damaged"), "{error}");
        }
    }
}
