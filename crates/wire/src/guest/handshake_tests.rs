//! Properties of the scanners: junk, cuts anywhere, repetitions, damage.

use proptest::prelude::*;

use super::*;

const TOKEN: Token = Token([
    0x1f, 0x02, 0xd3, 0x44, 0x85, 0x06, 0xa7, 0x08, 0x99, 0x0a, 0x5b, 0x0c, 0x2d, 0x1f, 0x02, 0xd3,
]);

fn hello(fill: u8) -> Hello {
    Hello::new(Nonce([fill; 16]))
}

fn ack(fill: u8) -> Ack {
    Ack {
        nonce: Nonce([fill; 16]),
        version: 1,
        flags: 0,
        boot_nonce: Nonce([9; 16]),
        agent_version: [1, 2, 3],
    }
}

/// Bytes that love to look like the beginning of a key.
fn junk(key: [u8; 16]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..30),
        (0_usize..16).prop_map(move |len| key[..len].to_vec()),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn chunks<'a>(bytes: &'a [u8], cuts: &'a [usize]) -> Vec<&'a [u8]> {
    let mut out = Vec::new();
    let mut rest = bytes;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (head, tail) = rest.split_at((*cut).min(rest.len()));
        out.push(head);
        rest = tail;
    }
    out
}

/// What one end sees: bytes of each session, in order.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    sessions: Vec<(Hello, Vec<u8>)>,
}

fn feed(parts: &[&[u8]]) -> Seen {
    let mut scanner = HelloScanner::idle(TOKEN);
    let mut seen = Seen::default();
    for part in parts {
        let mut input = *part;
        if seen.sessions.is_empty() {
            let Some(hello) = scanner.find(input) else {
                continue;
            };
            seen.sessions.push((hello, Vec::new()));
            input = &[];
        }
        loop {
            let (_, bytes) = seen.sessions.last_mut().unwrap();
            if scanner.passes(input) {
                bytes.extend_from_slice(input);
                break;
            }
            match scanner.session(input, bytes) {
                Some(NextHello(hello)) => seen.sessions.push((hello, Vec::new())),
                None => break,
            }
            input = &[];
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn hello_is_found_in_junk_cut_anywhere(
        before in junk(TOKEN.0),
        after in proptest::collection::vec(any::<u8>(), 0..100),
        cuts in proptest::collection::vec(1_usize..50, 1..20),
    ) {
        // The beginning of the same hello once more waits for its rest; a session begins with other bytes.
        prop_assume!(after.is_empty() || !hello(7).encode(&TOKEN).starts_with(&after));
        let mut bytes = before;
        bytes.extend_from_slice(&hello(7).encode(&TOKEN));
        bytes.extend_from_slice(&after);
        let seen = feed(&chunks(&bytes, &cuts));
        prop_assert_eq!(seen.sessions.len(), 1);
        prop_assert_eq!(seen.sessions[0].0, hello(7));
        prop_assert_eq!(&seen.sessions[0].1, &after);
    }

    #[test]
    fn repeated_hellos_are_swallowed(
        before in junk(TOKEN.0),
        times in 1_usize..6,
        cuts in proptest::collection::vec(1_usize..90, 1..20),
    ) {
        let mut bytes = before;
        for _ in 0..times {
            bytes.extend_from_slice(&hello(7).encode(&TOKEN));
        }
        bytes.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let seen = feed(&chunks(&bytes, &cuts));
        prop_assert_eq!(seen.sessions.len(), 1);
        prop_assert_eq!(&seen.sessions[0].1[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    }

    #[test]
    fn new_hello_ends_a_session_within_a_cut_frame(
        first in proptest::collection::vec(any::<u8>(), 1..300),
        cut_hello in 0_usize..40,
        second in proptest::collection::vec(any::<u8>(), 0..300),
        cuts in proptest::collection::vec(1_usize..120, 1..20),
    ) {
        // The beginning of the same hello once more waits for its rest; a session begins with other bytes.
        prop_assume!(second.is_empty() || !hello(9).encode(&TOKEN).starts_with(&second));
        let start = hello(7).encode(&TOKEN);
        let mut bytes = first.clone();
        // A hello that was cut short, by a client that was killed too.
        bytes.extend_from_slice(&hello(8).encode(&TOKEN)[..cut_hello]);
        bytes.extend_from_slice(&hello(9).encode(&TOKEN));
        bytes.extend_from_slice(&second);
        // On its own: of two hellos read at once outside a session only the last counts.
        let mut parts = vec![&start[..]];
        parts.extend(chunks(&bytes, &cuts));
        let seen = feed(&parts);
        prop_assert_eq!(seen.sessions.len(), 2, "{:?}", seen);
        prop_assert!(seen.sessions[0].1.starts_with(&first));
        prop_assert_eq!(seen.sessions[1].0, hello(9));
        prop_assert_eq!(&seen.sessions[1].1, &second);
    }

    #[test]
    fn damaged_hello_is_no_hello(
        bit in 0_usize..(HELLO_LEN * 8),
        cuts in proptest::collection::vec(1_usize..50, 1..20),
    ) {
        let mut damaged = hello(7).encode(&TOKEN);
        damaged[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(feed(&chunks(&damaged, &cuts)).sessions.is_empty());
        let mut bytes = damaged.to_vec();
        bytes.extend_from_slice(&hello(8).encode(&TOKEN));
        bytes.push(1);
        let seen = feed(&chunks(&bytes, &cuts));
        prop_assert_eq!(seen.sessions, vec![(hello(8), vec![1])]);
    }

    #[test]
    fn nothing_of_a_session_is_held_back_without_a_whole_token(
        data in junk(TOKEN.0),
        cuts in proptest::collection::vec(1_usize..50, 1..20),
    ) {
        let start = hello(7).encode(&TOKEN);
        // "P" is what HTTP/2 begins with; the first byte opens the session.
        let mut bytes = vec![b'P'];
        bytes.extend_from_slice(&data);
        let mut parts = vec![&start[..]];
        parts.extend(chunks(&bytes, &cuts));
        prop_assume!(memmem::find(&bytes, &TOKEN.0).is_none());
        prop_assert_eq!(feed(&parts).sessions, vec![(hello(7), bytes.clone())]);
    }

    #[test]
    fn token_without_a_hello_is_data(
        after in proptest::collection::vec(any::<u8>(), 24..80),
        cuts in proptest::collection::vec(1_usize..50, 1..20),
    ) {
        let mut data = vec![b'P'];
        data.extend_from_slice(&TOKEN.0);
        data.extend_from_slice(&after);
        let mut bytes = hello(7).encode(&TOKEN).to_vec();
        bytes.extend_from_slice(&data);
        prop_assert_eq!(feed(&chunks(&bytes, &cuts)).sessions, vec![(hello(7), data)]);
    }

    #[test]
    fn ack_is_found_in_junk_cut_anywhere(
        before in junk(ACK_MAGIC),
        after in proptest::collection::vec(any::<u8>(), 0..100),
        cuts in proptest::collection::vec(1_usize..90, 1..20),
    ) {
        let mut bytes = before;
        bytes.extend_from_slice(&ack(1).encode());
        let mut damaged = ack(2).encode();
        damaged[30] ^= 4;
        bytes.extend_from_slice(&damaged);
        bytes.extend_from_slice(&ack(2).encode());
        bytes.extend_from_slice(&after);
        let mut scanner = AckScanner::new(Nonce([2; 16]));
        let mut found = None;
        let mut rest = Vec::new();
        for part in chunks(&bytes, &cuts) {
            match found {
                None => if let Some((ack, tail)) = scanner.push(part) {
                    found = Some(ack);
                    rest = tail;
                },
                Some(_) => rest.extend_from_slice(part),
            }
        }
        prop_assert_eq!(found, Some(ack(2)));
        prop_assert_eq!(rest, after);
    }
}

#[test]
fn the_last_hello_wins_outside_a_session() {
    let mut bytes = hello(1).encode(&TOKEN).to_vec();
    bytes.extend_from_slice(b"what the first client sent");
    bytes.extend_from_slice(&hello(2).encode(&TOKEN));
    let mut scanner = HelloScanner::idle(TOKEN);
    assert_eq!(scanner.find(&bytes), Some(hello(2)));
}

#[test]
fn layout_is_the_documented_one() {
    let bytes = hello(3).encode(&TOKEN);
    assert_eq!(bytes[..16], TOKEN.0);
    assert_eq!(bytes[16..36], [&[3_u8; 16][..], &[0, 2, 0, 0]].concat());
    assert_eq!(bytes[36..], crc32fast::hash(&bytes[..36]).to_be_bytes());
    assert_eq!(format!("{TOKEN:?}"), "Token(…)");
}
