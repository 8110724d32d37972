//! Records of pax headers: `length key=value\n`, the length including itself.

use super::{Extent, MAX_EXTENTS, Time};

/// What pax headers say about an entry.
#[derive(Debug, Clone, Default)]
pub struct Pax {
    path: Option<Vec<u8>>,
    /// The true name of a sparse file; its `path` is for programs that do not know such files.
    sparse_name: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    /// The map of a sparse file in format 0.0 or 0.1; in 1.0 it is with the data.
    pub map: Option<Vec<Extent>>,
    /// The size of a sparse file with its holes.
    pub real_size: Option<u64>,
    /// Whether the data begins with a map (sparse format 1.0).
    pub map_in_data: bool,
    /// A number of format 0.0 that waits for its other half.
    offset: Option<u64>,
}

impl Pax {
    /// Takes the records of a header; `None` if they are none.
    pub fn read(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let blank = records.iter().take(20).position(|b| *b == b' ')?;
            let length = usize::try_from(decimal(&records[..blank])?).ok()?;
            let record = records.get(blank + 1..length)?;
            let (key, value) = split(record.strip_suffix(b"\n")?)?;
            self.set(key, value)?;
            records = &records[length..];
        }
        Some(())
    }

    /// The entry's name, if the headers tell it.
    pub fn name(&self) -> Option<Vec<u8>> {
        self.sparse_name.as_ref().or(self.path.as_ref()).cloned()
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_owned()),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_owned()),
            b"linkpath" => self.link = Some(value.to_owned()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.real_size = Some(decimal(value)?);
            }
            b"GNU.sparse.major" => self.map_in_data = decimal(value)? == 1,
            b"GNU.sparse.map" => {
                let mut map = Vec::new();
                let mut numbers = value.split(|b| *b == b',').filter(|n| !n.is_empty());
                while let Some(offset) = numbers.next() {
                    let length = decimal(numbers.next()?)?;
                    push(&mut map, decimal(offset)?, length)?;
                }
                self.map = Some(map);
            }
            b"GNU.sparse.offset" => self.offset = Some(decimal(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self.offset.take()?;
                push(self.map.get_or_insert_default(), offset, decimal(value)?)?;
            }
            _ => {}
        }
        Some(())
    }
}

fn push(map: &mut Vec<Extent>, offset: u64, length: u64) -> Option<()> {
    map.push(Extent { offset, length });
    (map.len() <= MAX_EXTENTS).then_some(())
}

fn split(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..]))
}

/// A decimal number without a sign.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds with a fraction, before 1970 with a minus sign.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = value.iter().position(|b| *b == b'.').unwrap_or(value.len());
    let seconds = i64::try_from(decimal(&value[..dot])?).ok()?;
    let mut nanoseconds = 0;
    let mut unit = 100_000_000;
    for digit in value.get(dot + 1..).unwrap_or_default() {
        nanoseconds += u32::from(digit.checked_sub(b'0').filter(|d| *d < 10)?) * unit;
        unit /= 10;
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Time {
            seconds,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds,
        },
        (true, _) => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

/// Appends a record.
pub fn record(to: &mut Vec<u8>, key: &str, value: &[u8]) {
    // The length counts its own digits.
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length += 1;
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key.as_bytes());
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

/// A moment as a record's value.
pub fn time_text(time: Time) -> String {
    let Time {
        seconds,
        nanoseconds,
    } = time;
    match (seconds < 0, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (false, _) => format!("{seconds}.{nanoseconds:09}"),
        (true, _) => {
            let (whole, fraction) = (seconds.unsigned_abs() - 1, 1_000_000_000 - nanoseconds);
            format!("-{whole}.{fraction:09}")
        }
    }
}
