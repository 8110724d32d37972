//! What users type and what labels say: what is accepted is shown as something that means the same.

use banger_model::{ByteSize, Label, MacAddress, OpId, Span, VmId, VmName, parse_publish};
use std::{fmt::Display, str::FromStr};

fn shown<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        let shown = read.to_string();
        let again = shown.parse::<T>();
        assert!(
            again.is_ok_and(|again| again == read),
            "'{text}' is shown as '{shown}', which means something else"
        );
    }
}

/// Names, ids, sizes, times, ports, labels, addresses.
pub fn texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    shown::<VmName>(text);
    shown::<VmId>(text);
    shown::<OpId>(text);
    shown::<Label>(text);
    shown::<MacAddress>(text);
    shown::<Span>(text);
    let _ = parse_publish(text);
    if let Ok(name) = text.parse::<VmName>() {
        assert_eq!(name.as_str(), text, "a name is never rewritten");
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(
            (1..=63).contains(&text.len()) && text.bytes().all(legal),
            "'{text}' is no DNS label"
        );
    }
    if let Ok(size) = text.parse::<ByteSize>() {
        assert!(size.bytes() > 0 && i64::try_from(size.bytes()).is_ok());
        same_magnitude(size);
    }
}

/// A size that is shown with a fraction is rounded to a tenth of its unit (and to what a double holds); any other is exact.
fn same_magnitude(size: ByteSize) {
    let shown = size.to_string();
    let bytes = u128::from(size.bytes());
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (number, unit) = shown.split_once(' ').expect("a number and a unit");
    let power = units.iter().position(|known| *known == unit);
    let scale = 1_u128 << (10 * power.expect("a unit"));
    let (tenths, off) = match number.split_once('.') {
        Some((whole, tenth)) => (format!("{whole}{tenth}"), scale / 20 + 1024),
        None => (format!("{number}0"), 0),
    };
    let tenths: u128 = tenths.parse().expect("digits");
    let told = tenths * scale / 10;
    assert!(
        told.abs_diff(bytes) <= off,
        "{bytes} bytes are shown as {shown}"
    );
}
