//! Lower-case hexadecimal.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes bytes as lower-case hexadecimal.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len() * 2];
    encode_into(bytes, &mut text).to_owned()
}

/// The same into room for two digits a byte: what ids are written with, many thousand times in the simulation.
pub fn encode_into<'a>(bytes: &[u8], room: &'a mut [u8]) -> &'a str {
    for (byte, digits) in bytes.iter().zip(room.chunks_exact_mut(2)) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
    std::str::from_utf8(room).unwrap_or_default()
}

/// Reads pairs of hexadecimal digits; anything else is `None`.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

/// Reads exactly 32 hexadecimal digits; anything else is `None`.
pub fn decode16(text: &str) -> Option<[u8; 16]> {
    decode(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let bytes: [u8; 16] = std::array::from_fn(|i| (i * 17) as u8);
        assert_eq!(decode16(&encode(&bytes)), Some(bytes));
        assert_eq!(encode(&[0x0f, 0xa0]), "0fa0");
        assert_eq!(decode16("00"), None);
        assert_eq!(decode16(&"g".repeat(32)), None);
        assert_eq!(decode16(&"é".repeat(16)), None);
    }
}
