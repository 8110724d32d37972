//! The hash of a name that directories are sorted by: half of MD4 over the bytes as they are (unsigned), started from the
//! superblock's seed (`fs/ext4/hash.c`, `Documentation/filesystems/ext4/directory.rst`).

/// `s_def_hash_version`, and the root's of every tree: half MD4.
pub const HALF_MD4: u8 = 1;

/// The last hash there is means the end of a directory in a position, so no name has it.
const END: u32 = 0x7fff_ffff << 1;

/// What hashes start from when the superblock's seed is all zeros: MD4's own.
const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// Where a name sorts: by `major`, equal ones by `minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameHash {
    /// What the tree keeps; its lowest bit is free and 0.
    pub major: u32,
    /// What orders names of one `major` when the kernel lists them.
    pub minor: u32,
}

/// The hash of a name.
pub fn name_hash(name: &[u8], seed: &[u8; 16]) -> NameHash {
    let mut state = START;
    if seed.iter().any(|&byte| byte != 0) {
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }
    let mut rest = name;
    while !rest.is_empty() {
        half_md4(&mut state, &words(rest));
        rest = &rest[rest.len().min(32)..];
    }
    let major = match state[1] & !1 {
        END => END - 2,
        major => major,
    };
    NameHash {
        major,
        minor: state[2],
    }
}

/// The next 32 bytes as eight words, highest byte first, filled up with the length of what is left.
fn words(rest: &[u8]) -> [u32; 8] {
    let length = u32::try_from(rest.len()).unwrap_or(u32::MAX) & 0xff;
    let pad = length * 0x0101_0101;
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        for &byte in bytes {
            *word = (*word << 8).wrapping_add(u32::from(byte));
        }
    }
    words
}

/// One round of the cut-down MD4.
fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    const K2: u32 = 0x5a82_7999;
    const K3: u32 = 0x6ed9_eba1;
    fn select(x: u32, y: u32, z: u32) -> u32 {
        z ^ (x & (y ^ z))
    }
    fn majority(x: u32, y: u32, z: u32) -> u32 {
        (x & y).wrapping_add((x ^ y) & z)
    }
    fn parity(x: u32, y: u32, z: u32) -> u32 {
        x ^ y ^ z
    }
    type Mix = fn(u32, u32, u32) -> u32;
    const ROUNDS: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (select, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (majority, K2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (parity, K3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    // The four words take turns: a, d, c, b.
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, turns) in ROUNDS {
        for (step, &word) in order.iter().enumerate() {
            let sum = a
                .wrapping_add(mix(b, c, d))
                .wrapping_add(input[word].wrapping_add(constant))
                .rotate_left(turns[step % 4]);
            (a, b, c, d) = (d, sum, b, c);
        }
    }
    for (word, value) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(value);
    }
}
