//! How answers look: aligned columns on stdout, and ages and sizes for people.

use banger_model::spec::Origin;
use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

/// Lays rows out in columns two blanks apart; no trailing blanks.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(out, "{cell:<width$}  ");
        }
        text.push_str(out.trim_end());
        text.push('\n');
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Unix time in seconds.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Time since `then` in the largest fitting unit: `5s`, `3m`, `2h`, `4d`.
pub fn age(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

/// A length of time in its largest fitting unit, as [`age`] has it.
pub fn duration(length: std::time::Duration) -> String {
    age(length.as_secs(), 0)
}

/// Where a value comes from, in a word.
pub const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Flag => "flag",
        Origin::Config => "config",
        Origin::Image => "image",
        Origin::Host => "host",
        Origin::Builtin => "builtin",
    }
}

/// Milliseconds with what matters of their fraction.
pub fn milliseconds(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// Bytes in the largest unit that they fill: `512 B`, `1.5 KiB`, `20 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut whole, mut rest, mut unit) = (bytes, 0, 0);
    while whole >= 1024 {
        (whole, rest) = (whole / 1024, whole % 1024);
        unit += 1;
    }
    match unit {
        1.. if whole < 10 => format!("{whole}.{} {}", rest * 10 / 1024, UNITS[unit]),
        _ => format!("{whole} {}", UNITS[unit]),
    }
}

/// A text from a guest as a cell of a table: nothing that would move a terminal's cursor.
pub fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(shown).collect()
}

/// Lines for stderr, of which a part may be a stranger's: as they are but for what would move the cursor.
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_end_clean() {
        let rows = vec![
            vec!["dev".into(), "running".into()],
            vec!["longer-name".into(), String::new()],
        ];
        assert_eq!(
            table(&["NAME", "STATE"], &rows),
            "NAME         STATE\ndev          running\nlonger-name\n"
        );
    }

    #[test]
    fn sizes_use_the_largest_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 * 1024 + 1023, "10 KiB"),
            (9 * (1 << 30) + (1 << 30) - 1, "9.9 GiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn texts_of_a_guest_stay_in_their_cell() {
        assert_eq!(plain("ngi\x1b[2Jnx\n"), "ngi?[2Jnx?");
    }

    #[test]
    fn ages_use_the_largest_unit() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7199, "1h"),
            (200_000, "2d"),
        ] {
            assert_eq!(age(1_000_000 + seconds, 1_000_000), text);
        }
        assert_eq!(age(0, 5), "0s", "a clock stepped back is no error");
    }
}
