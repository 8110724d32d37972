//! Random trees: e2fsck has nothing to say of any, and two readers, ours and an independent one, find the tree again.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::disallowed_methods, reason = "the judges are programs")]

mod common;

use banger_ext4::{Extent, Inode, InodeId, Kind, Layout, Meta, Options, Time, Xattr};
use common::{Builder, Image, acl, options, xattr};
use proptest::collection::vec;
use proptest::prelude::*;

fn names() -> impl Strategy<Value = Vec<u8>> + Clone {
    let byte = prop_oneof![4 => b'a'..=b'f', 1 => 1..=255u8];
    let length = prop_oneof![4 => 1..12usize, 1 => 1..=255usize];
    length
        .prop_flat_map(move |length| vec(byte.clone(), length))
        .prop_map(|name| {
            name.into_iter()
                .map(|b| if b == b'/' { b'-' } else { b })
                .collect()
        })
        .prop_filter("names that every directory has", |name: &Vec<u8>| {
            name != b"." && name != b".." && name != b"lost+found"
        })
}

fn times() -> impl Strategy<Value = Time> {
    let seconds = prop_oneof![-2_147_483_648..=15_032_385_535i64, any::<i64>()];
    (seconds, 0..1_000_000_000u32).prop_map(|(seconds, nanos)| Time { seconds, nanos })
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    let prefix = prop_oneof![Just("user."), Just("trusted."), Just("security.x")];
    let value = prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 0..1500)];
    let one = (prefix, "[a-z\u{e4}]{1,20}", value)
        .prop_map(|(prefix, name, value)| xattr(format!("{prefix}{name}"), value));
    let few = prop_oneof![6 => Just(0..1usize), 2 => Just(1..3), 1 => Just(3..5)];
    (
        few.prop_flat_map(move |few| vec(one.clone(), few)),
        any::<bool>(),
    )
        .prop_map(|(mut all, more)| {
            all.sort();
            all.dedup_by(|one, other| one.name == other.name);
            let mut size = 0;
            all.retain(|xattr| {
                size += 16 + xattr.name.len() + xattr.value.len() + 8;
                size < 3800
            });
            if more && !all.is_empty() {
                let entries = [(1, 6, 0), (2, 7, 1234), (4, 4, 0), (16, 7, 0), (32, 0, 0)];
                all.push(xattr("system.posix_acl_access", acl(&entries)));
            }
            all
        })
}

fn metas() -> impl Strategy<Value = Meta> {
    (0..0o10000u16, any::<u32>(), any::<u32>(), times(), xattrs()).prop_map(
        |(mode, uid, gid, mtime, xattrs)| Meta {
            mode,
            uid,
            gid,
            mtime,
            xattrs,
        },
    )
}

fn files() -> impl Strategy<Value = Kind> {
    let step = prop_oneof![0..3u64, 0..10_000u64, 0..200_000u64];
    let count = prop_oneof![3 => 0..2usize, 2 => 2..8usize, 1 => 8..400usize];
    let steps = count.prop_flat_map(move |count| vec((step.clone(), 1..9000u64), count));
    (
        steps,
        prop_oneof![Just(0u64), 0..100_000u64, 0..(1u64 << 40)],
    )
        .prop_map(|(steps, after)| {
            let mut size = 0;
            let mut data = Vec::new();
            for (gap, len) in steps {
                let offset = size + gap;
                data.push(Extent { offset, len });
                size = offset + len;
            }
            let size = size + after;
            Kind::File { size, data }
        })
}

fn kinds() -> impl Strategy<Value = Kind> {
    let device = (0..=0xfffu32, 0..=0xf_ffffu32);
    let target = prop_oneof![3 => 1..100usize, 1 => 1..=4095usize];
    prop_oneof![
        4 => Just(Kind::Directory(vec![])),
        6 => files(),
        2 => target.prop_map(|length| Kind::Symlink(vec![b't'; length].into())),
        1 => device.clone().prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        1 => device.prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Socket),
    ]
}

/// An inode, in which of the directories before it, under which name; and another such name if it can have one.
type Step = (
    Meta,
    Kind,
    (prop::sample::Index, Vec<u8>),
    Option<(prop::sample::Index, Vec<u8>)>,
);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = (any::<prop::sample::Index>(), names());
    let another = prop::option::weighted(0.2, place.clone());
    vec((metas(), kinds(), place, another), 0..120)
}

fn grown(steps: Vec<Step>) -> Builder {
    let mut tree = Builder::new();
    let mut directories = vec![InodeId::ROOT];
    let mut taken = std::collections::HashSet::new();
    for (meta, kind, (at, name), another) in steps {
        let parent = *at.get(&directories);
        if !taken.insert((parent, name.clone())) {
            continue;
        }
        let directory = matches!(kind, Kind::Directory(_));
        let id = tree.add(parent, name, Inode { meta, kind });
        if directory {
            directories.push(id);
        } else if let Some((at, name)) = another
            && taken.insert((*at.get(&directories), name.clone()))
        {
            tree.link(*at.get(&directories), name, id);
        }
    }
    tree
}

fn taken() -> impl Strategy<Value = Options> {
    let sizes = prop_oneof![2 => Just(None), 2 => (1u64..2 << 30).prop_map(Some)];
    let grow_to = prop_oneof![Just(0), Just(1u64 << 40), any::<u64>()];
    let per_inode = prop_oneof![Just(0), Just(16_384), 2048..1_000_000u32];
    (
        sizes,
        grow_to,
        per_inode,
        0..50_000u32,
        any::<(bool, [u8; 16])>(),
    )
        .prop_map(
            |(size, grow_to, bytes_per_inode, spare_inodes, (journal, seed))| Options {
                size,
                grow_to,
                bytes_per_inode,
                spare_inodes,
                journal,
                hash_seed: seed,
                ..options()
            },
        )
}

/// Leaves away what the other reader refuses: times whose low half has its highest bit, and parts of targets of more than 255
/// bytes.
fn make_plain(inode: &mut Inode) {
    inode.meta.mtime.seconds &= 0x7fff_ffff;
    if let Kind::Symlink(target) = &mut inode.kind {
        target.iter_mut().step_by(200).for_each(|byte| *byte = b'/');
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_a_whole_file_system(steps in steps(), mut options in taken(), plain: bool) {
        let mut tree = grown(steps).0;
        if plain {
            tree.inodes.iter_mut().for_each(make_plain);
        }
        // A size that is too small is told, with one that is not.
        if let Err(refused) = Layout::new(&tree, &options) {
            let banger_ext4::Error::TooSmall { needed, .. } = refused else {
                panic!("{refused}");
            };
            options.size = Some(needed);
        }
        let image = Image::new(&tree, &options);
        image.check();
        common::reread::assert_equals(&tree, &image);
        if plain {
            common::viewed::assert_equals(&tree, &image);
        }
    }
}
