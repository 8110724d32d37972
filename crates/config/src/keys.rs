//! Which keys there are, and what each takes.

use super::{ConfigError, builtin};
use banger_model::{ByteSize, CatalogPlace, ImageReference, Span};
use std::path::Path;

/// One key of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// With its table: `vm_defaults.memory`.
    pub name: &'static str,
    /// What may be written there.
    pub kind: Kind,
    /// What holds where nothing is written, as it would be written; empty: nothing, or what the host has.
    pub default: &'static str,
    /// What it is for, one sentence.
    pub about: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Of a file, absolute.
    Path,
    /// Seconds, or with a unit; zero only where that means *never*.
    Span {
        /// Zero is a value.
        zero: bool,
    },
    /// Bytes with a unit, or MiB: whole MiB, no fewer and no more than these.
    Size {
        /// The smallest.
        least: ByteSize,
        /// The largest, if there is one.
        most: Option<ByteSize>,
    },
    /// 1 to this.
    Count {
        /// The largest.
        most: u32,
    },
    /// Of an image, or its id.
    Image,
    /// An absolute path, or a URL of the web.
    Place,
    /// `true` or `false`.
    Flag,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        about,
    }
}

/// Every key, in the order to print.
pub const KEYS: &[Key] = &[
    key(
        "log_level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "How much the daemon writes to its log.",
    ),
    key(
        "qemu_bin",
        Kind::Path,
        "",
        "The QEMU program; without it the first in PATH, then banger's own copy.",
    ),
    key(
        "default_image_name",
        Kind::Image,
        builtin::IMAGE,
        "Image of a VM whose request names none.",
    ),
    key(
        "stop_timeout",
        Kind::Span { zero: false },
        "10s",
        "How long a guest may take to power off before its VMM is asked to end.",
    ),
    key(
        "terminate_timeout",
        Kind::Span { zero: false },
        "5s",
        "How long a VMM that was asked to end may take before it is killed.",
    ),
    key(
        "boot_timeout",
        Kind::Span { zero: false },
        "60s",
        "How long a guest may take to its first word before the boot counts as failed.",
    ),
    key(
        "auto_stop_stale_after",
        Kind::Span { zero: true },
        "0",
        "VMs that nobody used for so long are stopped; 0: never.",
    ),
    key(
        "vm_defaults.vcpus",
        Kind::Count { most: MOST_VCPUS },
        "",
        "Virtual CPUs; without it a quarter of the host's, 1 to 4.",
    ),
    key(
        "vm_defaults.memory",
        Kind::Size {
            least: LEAST_MEMORY,
            most: None,
        },
        "",
        "Guest memory; without it an eighth of the host's, 512M to 8G.",
    ),
    key(
        "vm_defaults.system_overlay_size",
        DISK,
        "8G",
        "Room for changes to the system.",
    ),
    key(
        "vm_defaults.disk_size",
        DISK,
        "8G",
        "Size of the work disk at /root.",
    ),
    key(
        "vm_defaults.nat",
        Kind::Flag,
        "false",
        "Whether guests reach beyond the host.",
    ),
    key(
        "drivers.root",
        Kind::Choice(&["auto", "overlay", "dm-snapshot", "reflink"]),
        "auto",
        "How the root disk of a new VM is provided.",
    ),
    key(
        "catalog.source",
        Kind::Place,
        "",
        "The catalog.json of images and kernels that can be fetched by their names: a file or a URL.",
    ),
    key(
        "images.max_entries",
        Kind::Count { most: MOST_ENTRIES },
        "4000000",
        "Files, directories, links and devices of an archive that is made into an image; one with more is refused.",
    ),
    key(
        "images.max_size",
        DISK,
        "64G",
        "Bytes that such an archive may unpack to.",
    ),
    key(
        "images.max_directory_entries",
        Kind::Count { most: MOST_ENTRIES },
        "1000000",
        "Entries of one directory in it.",
    ),
    key(
        "images.max_devices",
        Kind::Count { most: MOST_ENTRIES },
        "4096",
        "Device nodes in it.",
    ),
    key(
        "images.max_ratio",
        Kind::Count { most: MOST_ENTRIES },
        "1000",
        "Bytes that each byte of it may unpack to, when it unpacks to more than 1 GiB.",
    ),
];

/// The most virtual CPUs QEMU's microvm is asked for.
pub const MOST_VCPUS: u32 = 64;
/// Less does not boot Debian's kernel with its initramfs.
pub const LEAST_MEMORY: ByteSize = ByteSize::mib(128);
/// Less holds no ext4 with a journal.
pub const LEAST_DISK: ByteSize = ByteSize::mib(16);
/// More is no file on ext4 with blocks of 4 KiB, which most hosts keep their files on.
pub const MOST_DISK: ByteSize = ByteSize::gib(16 * 1024 - 1);

/// The table of inodes alone would be 20 GB of memory.
pub const MOST_ENTRIES: u32 = 100_000_000;

const DISK: Kind = Kind::Size {
    least: LEAST_DISK,
    most: Some(MOST_DISK),
};

/// Whether an image can be called so.
fn is_image(name: &str) -> bool {
    if name.parse::<ImageReference>().is_ok() {
        return true;
    }
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=63).contains(&name.len()) && name.bytes().all(legal)
}

/// Refuses keys that nobody knows and values that their key does not take.
pub(super) fn check(path: &Path, inside: &str, table: &toml::Table) -> Result<(), ConfigError> {
    let refused = |what: String| {
        Err(ConfigError::Value {
            path: path.to_owned(),
            what,
        })
    };
    for (name, value) in table {
        let full = format!("{inside}{name}");
        let within = format!("{full}.");
        if let Some(key) = KEYS.iter().find(|k| k.name == full) {
            if let Some(what) = key.refusal(value) {
                return refused(what);
            }
        } else if KEYS.iter().any(|k| k.name.starts_with(&within)) {
            match value {
                toml::Value::Table(inner) => check(path, &within, inner)?,
                other => return refused(format!("{full} is a table, not {other}")),
            }
        } else {
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                key: full,
                advice: advice(name, &known(inside)),
            });
        }
    }
    Ok(())
}

/// Names of the keys and tables directly inside this table.
fn known(inside: &str) -> Vec<&'static str> {
    let inner = KEYS.iter().filter_map(|k| k.name.strip_prefix(inside));
    let mut names: Vec<_> = inner.filter_map(|rest| rest.split('.').next()).collect();
    names.dedup();
    names
}

impl Key {
    /// Why this value is none for this key.
    fn refusal(&self, value: &toml::Value) -> Option<String> {
        use toml::Value::{Boolean, Integer, String};
        let name = self.name;
        let text = match value {
            String(text) => text.clone(),
            other => other.to_string(),
        };
        match (self.kind, value) {
            (Kind::Choice(words), String(word)) => (!words.contains(&word.as_str()))
                .then(|| format!("{name} cannot be '{word}'; {}", advice(word, words))),
            (Kind::Choice(words), _) => {
                Some(format!("{name} is one of {}, not {text}", words.join(", ")))
            }
            (Kind::Path, String(p)) if Path::new(p).is_absolute() => None,
            (Kind::Path, _) => Some(format!("{name} is an absolute path, not '{text}'")),
            (Kind::Image, String(said)) if is_image(said) => None,
            (Kind::Image, _) => Some(format!(
                "{name} is the name of an image (a-z, 0-9, '.', '_', '-'), its id, or a reference to a registry, not '{text}'"
            )),
            (Kind::Place, String(place)) if place.parse::<CatalogPlace>().is_ok() => None,
            (Kind::Place, _) => Some(format!(
                "{name} is an absolute path or an http or https URL, not '{text}'"
            )),
            (Kind::Span { zero }, String(_) | Integer(_)) => match text.parse::<Span>() {
                Ok(span) if span.is_zero() && !zero => Some(format!("{name} is longer than 0")),
                Ok(_) => None,
                Err(error) => Some(format!("{name}: {error}")),
            },
            (Kind::Span { .. }, _) => Some(format!(
                "{name} is a time like 90, \"90s\" or \"5m\", not {text}"
            )),
            (Kind::Size { least, most }, String(_) | Integer(_)) => match text.parse() {
                Ok(size) => unfit(size, least, most).map(|why| format!("{name} is {why}")),
                Err(error) => Some(format!("{name}: {error}")),
            },
            (Kind::Size { .. }, _) => Some(format!(
                "{name} is a size like \"512M\" or \"4G\", not {text}"
            )),
            (Kind::Count { most }, Integer(n))
                if u32::try_from(*n).is_ok_and(|n| (1..=most).contains(&n)) =>
            {
                None
            }
            (Kind::Count { most }, _) => Some(format!(
                "{name} is a whole number of 1 to {most}, not {text}"
            )),
            (Kind::Flag, Boolean(_)) => None,
            (Kind::Flag, _) => Some(format!("{name} is true or false, not {text}")),
        }
    }
}

/// What a size is to be that is none of these.
fn unfit(size: ByteSize, least: ByteSize, most: Option<ByteSize>) -> Option<String> {
    if size < least {
        return Some(format!("at least {least}, not {size}"));
    }
    if let Some(most) = most.filter(|most| size > *most) {
        return Some(format!("at most {most}, not {size}"));
    }
    let whole = size.bytes().is_multiple_of(1 << 20);
    (!whole).then(|| format!("a whole number of MiB, not {size}"))
}

#[cfg(test)]
impl Kind {
    /// Values that it lets pass, as TOML writes them, each other than any default.
    pub(super) const fn examples(self) -> &'static [&'static str] {
        match self {
            Kind::Choice(words) if words.len() == 5 => &["'error'", "'warn'", "'trace'"],
            Kind::Choice(_) => &["'auto'", "'dm-snapshot'"],
            Kind::Path => &["'/opt/qemu'"],
            Kind::Place => &["'/srv/catalog.json'", "'https://example.org/catalog.json'"],
            Kind::Image => &["'box'"],
            Kind::Span { .. } => &["3", "'3'", "'3s'", "'2d'"],
            Kind::Size { .. } => &["300", "'300'", "'3G'", "'300 MiB'"],
            Kind::Count { .. } => &["3"],
            Kind::Flag => &["true"],
        }
    }
}

/// What may have been meant.
fn advice(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("known here are: {}", known.join(", ")),
    }
}

/// The known key that is at most a third of its letters away.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (distance(key, k), *k))
        .min()
        .filter(|(d, k)| *d <= k.len().div_ceil(3))
        .map(|(_, k)| k)
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
