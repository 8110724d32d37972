//! The configuration file (R-OPS-4): TOML, all optional, unknown keys refused with a suggestion.

use banger_model::{ByteSize, Drivers, RootDriver};
use serde::{Deserialize, Deserializer};
use std::{
    io,
    path::{Path, PathBuf},
};

/// What a user may set.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug`, `trace`; `info` if absent.
    pub log_level: Option<LogLevel>,
    /// The QEMU program, absolute.
    pub qemu_bin: Option<PathBuf>,
    /// Image used when none is named.
    pub default_image_name: Option<String>,
    /// Seconds a guest may take to power off before its VMM is asked to end; 10 if absent (R-HOST-5).
    pub stop_timeout: Option<u64>,
    /// Seconds a VMM may take to end before it is killed; 5 if absent.
    pub terminate_timeout: Option<u64>,
    /// Seconds from the start of a VMM to the agent's first word before the boot counts as failed; 60 if absent.
    pub boot_timeout: Option<u64>,
    /// Shape of VMs whose request leaves it open.
    pub vm_defaults: VmDefaults,
    /// What VMs are made with.
    pub drivers: DriverChoice,
}

/// `[vm_defaults]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VmDefaults {
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Guest memory.
    #[serde(deserialize_with = "size")]
    pub memory: Option<ByteSize>,
    /// Size of the overlay disk.
    #[serde(deserialize_with = "size")]
    pub system_overlay_size: Option<ByteSize>,
    /// Size of the work disk.
    #[serde(deserialize_with = "size")]
    pub disk_size: Option<ByteSize>,
    /// Whether guests reach beyond the host.
    pub nat: Option<bool>,
}

/// `[drivers]`: a VM keeps those it was made with.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DriverChoice {
    /// How the root disk is provided; `auto` if absent.
    pub root: RootChoice,
}

/// `drivers.root`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootChoice {
    /// What works everywhere: `overlay`.
    #[default]
    Auto,
    /// A shared base and a disk of changes, joined in the guest.
    Overlay,
    /// A device-mapper snapshot of the base; needs root and device-mapper.
    DmSnapshot,
}

impl DriverChoice {
    /// The drivers of a new VM.
    pub fn of_new_vm(&self) -> Drivers {
        let root = match self.root {
            RootChoice::Auto | RootChoice::Overlay => RootDriver::Overlay,
            RootChoice::DmSnapshot => RootDriver::DmSnapshot,
        };
        Drivers {
            root,
            ..Drivers::EVERYWHERE
        }
    }
}

/// `log_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And what is odd.
    Warn,
    /// And what was done.
    Info,
    /// And how.
    Debug,
    /// Everything.
    Trace,
}

const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "log_level",
            "qemu_bin",
            "default_image_name",
            "stop_timeout",
            "terminate_timeout",
            "boot_timeout",
            "vm_defaults",
            "drivers",
        ],
    ),
    (
        "vm_defaults",
        &["vcpus", "memory", "system_overlay_size", "disk_size", "nat"],
    ),
    ("drivers", &["root"]),
];

/// Values of `drivers.root`.
const ROOT_DRIVERS: &[&str] = &["auto", "overlay", "dm-snapshot"];

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and cannot be read.
    #[error("cannot read the configuration {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not TOML, or a value of the wrong kind.
    #[error("the configuration {} is wrong", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key nobody knows.
    #[error("the configuration {} has an unknown key '{key}'; {advice}", .path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, with its table.
        key: String,
        /// What is known.
        advice: String,
    },
    /// A relative path or a zero.
    #[error("the configuration {}: {what}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl Config {
    /// Reads the file; one that is not there is an empty one.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(path, &text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
            Err(source) => Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let parse = |source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let table: toml::Table = toml::from_str(text).map_err(parse)?;
        check_keys(path, "", &table)?;
        check_root_driver(path, &table)?;
        let config: Config = toml::from_str(text).map_err(parse)?;
        let value = |what: String| ConfigError::Value {
            path: path.to_owned(),
            what,
        };
        if let Some(qemu) = config.qemu_bin.as_ref().filter(|p| !p.is_absolute()) {
            return Err(value(format!(
                "qemu_bin is not an absolute path: '{}'",
                qemu.display()
            )));
        }
        if config.vm_defaults.vcpus == Some(0) {
            return Err(value("vm_defaults.vcpus is at least 1".to_owned()));
        }
        Ok(config)
    }
}

fn check_keys(path: &Path, inside: &str, table: &toml::Table) -> Result<(), ConfigError> {
    let known = KEYS
        .iter()
        .find(|(t, _)| *t == inside)
        .map_or(&[][..], |(_, keys)| *keys);
    for (key, value) in table {
        let full = if inside.is_empty() {
            key.clone()
        } else {
            format!("{inside}.{key}")
        };
        if !known.contains(&key.as_str()) {
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                key: full,
                advice: advice(key, known),
            });
        }
        if let toml::Value::Table(inner) = value {
            check_keys(path, &full, inner)?;
        }
    }
    Ok(())
}

/// Refuses a name of a driver nobody knows; another kind of value is the parser's to refuse.
fn check_root_driver(path: &Path, table: &toml::Table) -> Result<(), ConfigError> {
    let root = table.get("drivers").and_then(|d| d.get("root"));
    match root.and_then(toml::Value::as_str) {
        Some(name) if !ROOT_DRIVERS.contains(&name) => Err(ConfigError::Value {
            path: path.to_owned(),
            what: format!(
                "drivers.root is no driver: '{name}'; {}",
                advice(name, ROOT_DRIVERS)
            ),
        }),
        _ => Ok(()),
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

/// A size as users type it; a plain number is MiB.
fn size<'de, D: Deserializer<'de>>(input: D) -> Result<Option<ByteSize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i64),
        Text(String),
    }
    let text = match Written::deserialize(input)? {
        Written::Number(n) => n.to_string(),
        Written::Text(text) => text,
    };
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/c.toml"), text)
    }

    #[test]
    fn sizes_and_levels() {
        let text = "log_level = \"debug\"\n[vm_defaults]\nmemory = \"2G\"\ndisk_size = 512\n";
        let config = parse(text).unwrap();
        assert_eq!(config.log_level, Some(LogLevel::Debug));
        assert_eq!(config.vm_defaults.memory, Some(ByteSize::gib(2)));
        assert_eq!(config.vm_defaults.disk_size, Some(ByteSize::mib(512)));
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn wrong_ones_are_refused_with_advice() {
        let told = |text: &str| parse(text).unwrap_err().to_string();
        assert!(told("log_levl = \"info\"").contains("did you mean 'log_level'?"));
        assert!(told("[vm_defaults]\nmemroy = 1").contains("'vm_defaults.memroy'; did you mean"));
        assert!(told("zzz = 1").contains("known here are"));
        assert!(told("qemu_bin = \"qemu\"").contains("absolute"));
        for bad in [
            "log_level = \"loud\"",
            "[vm_defaults]\nmemory = 0",
            "[vm_defaults]\nmemory = \"-1G\"",
            "a = ",
            "vm_defaults = 3",
            "[vm_defaults]\nvcpus = 0",
            "[drivers]\nroot = 3",
            "drivers = \"overlay\"",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn root_drivers_by_name_and_a_suggestion_for_others() {
        let root = |text: &str| parse(text).unwrap().drivers.of_new_vm().root;
        assert_eq!(root(""), RootDriver::Overlay);
        for (name, driver) in [
            ("auto", RootDriver::Overlay),
            ("overlay", RootDriver::Overlay),
            ("dm-snapshot", RootDriver::DmSnapshot),
        ] {
            assert!(ROOT_DRIVERS.contains(&name));
            assert_eq!(root(&format!("[drivers]\nroot = \"{name}\"")), driver);
        }
        let told = |text: &str| parse(text).unwrap_err().to_string();
        assert!(told("[drivers]\nroot = \"dm_snapshot\"").contains("did you mean 'dm-snapshot'?"));
        assert!(
            told("[drivers]\nroot = \"zfs\"")
                .contains("'zfs'; known here are: auto, overlay, dm-snapshot")
        );
        assert!(told("[drivers]\nroto = \"auto\"").contains("did you mean 'root'?"));
    }

    #[test]
    fn every_listed_key_is_a_field() {
        // A key in the list that no field takes would be silently ignored by serde.
        let text = "log_level='info'\nqemu_bin='/q'\ndefault_image_name='x'\nstop_timeout=1\n\
                    terminate_timeout=1\nboot_timeout=1\n[vm_defaults]\nvcpus=1\nmemory=1\n\
                    system_overlay_size=1\ndisk_size=1\nnat=true\n[drivers]\nroot='dm-snapshot'\n";
        let config = parse(text).unwrap();
        let table: toml::Table = toml::from_str(text).unwrap();
        assert_eq!(table.len(), KEYS[0].1.len());
        assert!(config.qemu_bin.is_some() && config.default_image_name.is_some());
        assert!(config.stop_timeout.is_some() && config.terminate_timeout.is_some());
        assert!(config.boot_timeout.is_some() && config.vm_defaults.nat.is_some());
        assert_eq!(config.drivers.root, RootChoice::DmSnapshot);
    }
}
