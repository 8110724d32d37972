//! What must hold of everything that reads foreign bytes. Each target takes any bytes and panics where something does
//! not hold; `scripts/fuzz` has libFuzzer search for such bytes, the tests give each its seeds and some thousands of
//! random inputs.

mod disks;
mod ext4;
mod files;
mod frames;
mod handshake;
mod images;
mod requests;
mod texts;

/// Takes any bytes; panics where something does not hold.
pub type Target = fn(&[u8]);

/// Every target by name: that of its directory of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("handshake", handshake::handshake),
    ("frames", frames::frames),
    ("guest-frames", frames::guest_frames),
    ("requests", requests::requests),
    ("answers", requests::answers),
    ("handles", files::handles),
    ("vm-json", files::vm_json),
    ("config", files::config),
    ("tar", files::tar),
    ("texts", texts::texts),
    ("ext4-tree", ext4::written_and_read),
    ("ext4-damaged", ext4::damaged),
    ("disks-damaged", disks::damaged),
    ("layers", images::layers),
    ("layer-tar", images::layer_tar),
    ("documents", images::documents),
    ("references", images::references),
];

/// Bytes cut where the first of them says.
fn pieces(data: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let Some((&step, whole)) = data.split_first() else {
        return (Vec::new(), data);
    };
    // 1 to 64, so that cuts meet every field of a header.
    let step = usize::from(step % 64) + 1;
    (whole.chunks(step).collect(), whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("seeds")
            .join(target);
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        entries
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect()
    }

    /// Also with a byte changed, left out or doubled at each place.
    #[test]
    fn every_target_holds_for_its_seeds_and_what_is_near_them() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has no seed");
            for seed in seeds {
                target(&seed);
                for at in 0..seed.len().min(600) {
                    let mut near = seed.clone();
                    near[at] ^= 0x80;
                    target(&near);
                    near[at] = b'0';
                    target(&near);
                    near.remove(at);
                    target(&near);
                    target(&seed[..at]);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn every_target_holds_for_anything(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, target) in TARGETS {
                target(&data);
            }
        }
    }
}
