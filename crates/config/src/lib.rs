//! The configuration file (R-OPS-4): TOML, all optional. One table ([`KEYS`]) says which keys there are, what may be
//! written there and what holds where nothing is; an unknown key is refused with a suggestion. The daemon reads it at
//! its start; the command line shows and checks it without one.

pub mod builtin;
mod host;
mod keys;
mod schema;
mod show;

pub use host::HostSize;
pub use keys::{KEYS, Key, Kind, LEAST_DISK, LEAST_MEMORY, MOST_DISK, MOST_VCPUS};
pub use schema::schema;
pub use show::{Setting, settings};

use banger_model::{ByteSize, CatalogPlace, Drivers, RootDriver, Span};
use serde::{Deserialize, Deserializer};
use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

/// What a user may set. What holds where nothing is set, [`builtin`] says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// How much the daemon writes to its log.
    pub log_level: Option<LogLevel>,
    /// The QEMU program, absolute.
    pub qemu_bin: Option<PathBuf>,
    /// Image used when none is named.
    pub default_image_name: Option<String>,
    /// How long a guest may take to power off before its VMM is asked to end (R-HOST-5).
    #[serde(deserialize_with = "typed")]
    pub stop_timeout: Option<Span>,
    /// How long a VMM may take to end before it is killed.
    #[serde(deserialize_with = "typed")]
    pub terminate_timeout: Option<Span>,
    /// From the start of a VMM to the agent's first word before the boot counts as failed.
    #[serde(deserialize_with = "typed")]
    pub boot_timeout: Option<Span>,
    /// VMs that nobody used for so long are stopped; 0: never (R-SVC-7).
    #[serde(deserialize_with = "typed")]
    pub auto_stop_stale_after: Option<Span>,
    /// Shape of VMs whose request leaves it open.
    pub vm_defaults: VmDefaults,
    /// What VMs are made with.
    pub drivers: DriverChoice,
    /// What can be fetched by its name.
    pub catalog: CatalogChoice,
    /// What archives may be that are made into images.
    pub images: ImageLimits,
}

/// `[catalog]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CatalogChoice {
    /// Where `catalog.json` is: an absolute path, or a URL.
    #[serde(deserialize_with = "typed")]
    pub source: Option<CatalogPlace>,
}

/// `[images]` (R-IMG-4).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ImageLimits {
    /// Files, directories, links, devices.
    pub max_entries: Option<u32>,
    /// Bytes when unpacked.
    #[serde(deserialize_with = "typed")]
    pub max_size: Option<ByteSize>,
    /// Entries in one directory.
    pub max_directory_entries: Option<u32>,
    /// Device nodes.
    pub max_devices: Option<u32>,
    /// Bytes unpacked for each byte packed.
    pub max_ratio: Option<u32>,
}

/// `[vm_defaults]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VmDefaults {
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Guest memory.
    #[serde(deserialize_with = "typed")]
    pub memory: Option<ByteSize>,
    /// Size of the overlay disk.
    #[serde(deserialize_with = "typed")]
    pub system_overlay_size: Option<ByteSize>,
    /// Size of the work disk.
    #[serde(deserialize_with = "typed")]
    pub disk_size: Option<ByteSize>,
    /// Whether guests reach beyond the host.
    pub nat: Option<bool>,
}

/// `[drivers]`: a VM keeps those it was made with.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DriverChoice {
    /// How the root disk is provided.
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
    /// A clone of the base that shares its blocks; needs a file system that can (XFS, Btrfs, bcachefs).
    Reflink,
}

impl DriverChoice {
    /// The drivers of a new VM.
    pub fn of_new_vm(&self) -> Drivers {
        let root = match self.root {
            RootChoice::Auto | RootChoice::Overlay => RootDriver::Overlay,
            RootChoice::DmSnapshot => RootDriver::DmSnapshot,
            RootChoice::Reflink => RootDriver::Reflink,
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
    /// Not TOML.
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
    /// A value that its key does not take.
    #[error("the configuration {}: {what}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong, the key named.
        what: String,
    },
}

impl ConfigError {
    /// The way out.
    pub const fn hint(&self) -> &'static str {
        match self {
            ConfigError::Read { .. } => "chmod +r it, or name another file with BANGER_CONFIG",
            ConfigError::Parse { .. }
            | ConfigError::UnknownKey { .. }
            | ConfigError::Value { .. } => "mend the file, then: banger config check",
        }
    }
}

impl Config {
    /// Reads the file; one that is not there is an empty one.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let table = read(path)?.unwrap_or_default();
        Config::of(path, table)
    }

    /// Reads the text of a file; `path` is for what is told.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        Config::of(path, parse(path, text)?)
    }

    fn of(path: &Path, table: toml::Table) -> Result<Config, ConfigError> {
        table
            .try_into()
            .map_err(|source: toml::de::Error| ConfigError::Parse {
                path: path.to_owned(),
                source: Box::new(source),
            })
    }
}

/// The file's content, each key known and each value one that its key takes; `None` if there is no file.
fn read(path: &Path) -> Result<Option<toml::Table>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn parse(path: &Path, text: &str) -> Result<toml::Table, ConfigError> {
    let table: toml::Table = toml::from_str(text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    keys::check(path, "", &table)?;
    Ok(table)
}

/// What a user typed, as a text or as a plain number.
fn typed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    input: D,
) -> Result<Option<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Typed {
        Number(i64),
        Text(String),
    }
    let text = match Typed::deserialize(input)? {
        Typed::Number(n) => n.to_string(),
        Typed::Text(text) => text,
    };
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/c.toml"), text)
    }

    #[test]
    fn sizes_levels_and_times() {
        let text = "log_level = \"debug\"\nstop_timeout = 7\nauto_stop_stale_after = \"2h\"\n\
                    [vm_defaults]\nmemory = \"2G\"\ndisk_size = 512\n";
        let read = config(text).unwrap();
        assert_eq!(read.log_level, Some(LogLevel::Debug));
        assert_eq!(read.vm_defaults.memory, Some(ByteSize::gib(2)));
        assert_eq!(read.vm_defaults.disk_size, Some(ByteSize::mib(512)));
        assert_eq!(read.stop_timeout, Some(Span::seconds(7)));
        assert_eq!(read.auto_stop_stale_after, Some(Span::seconds(7200)));
        assert_eq!(config("").unwrap(), Config::default());
    }

    #[test]
    fn wrong_ones_are_refused_with_advice() {
        let told = |text: &str| config(text).unwrap_err().to_string();
        assert!(told("log_levl = \"info\"").contains("did you mean 'log_level'?"));
        assert!(told("[vm_defaults]\nmemroy = 1").contains("'vm_defaults.memroy'; did you mean"));
        assert!(told("zzz = 1").contains("known here are"));
        assert!(told("[zzz]\na = 1").contains("unknown key 'zzz'"));
        assert!(told("qemu_bin = \"qemu\"").contains("qemu_bin is an absolute path, not 'qemu'"));
        assert!(told("[vm_defaults]\nmemory = \"2X\"").contains("vm_defaults.memory: '2X'"));
        assert!(
            told("[vm_defaults]\ndisk_size = \"100T\"")
                .contains("vm_defaults.disk_size is at most 16383.0 GiB, not 100 TiB")
        );
        assert!(told("[vm_defaults]\nnat = 1").contains("vm_defaults.nat is true or false, not 1"));
        assert!(told("stop_timeout = \"soon\"").contains("stop_timeout: 'soon'"));
        assert!(told("log_level = \"inof\"").contains("did you mean 'info'?"));
        assert!(told("vm_defaults = 3").contains("vm_defaults is a table, not 3"));
        for bad in [
            "log_level = \"loud\"",
            "log_level = 3",
            "[vm_defaults]\nmemory = 0",
            "[vm_defaults]\nmemory = \"-1G\"",
            "[vm_defaults]\nmemory = 1.5",
            "a = ",
            "[vm_defaults]\nvcpus = 0",
            "[vm_defaults]\nvcpus = 65",
            "[vm_defaults]\nmemory = \"64M\"",
            "[vm_defaults]\ndisk_size = \"1M\"",
            "[vm_defaults]\ndisk_size = \"100000K\"",
            "[vm_defaults]\ndisk_size = \"16384G\"",
            "[vm_defaults]\nsystem_overlay_size = \"100T\"",
            "default_image_name = \"Foo Bar/x\"",
            "[vm_defaults]\nvcpus = \"2\"",
            "stop_timeout = -1",
            "boot_timeout = 0",
            "default_image_name = \"\"",
            "[drivers]\nroot = 3",
            "drivers = \"overlay\"",
            "[log_level]\na = 1",
        ] {
            assert!(config(bad).is_err(), "{bad}");
        }
        let most = format!("[vm_defaults]\ndisk_size = {}", MOST_DISK.as_mib());
        assert_eq!(
            config(&most).unwrap().vm_defaults.disk_size,
            Some(MOST_DISK)
        );
    }

    #[test]
    fn root_drivers_by_name_and_a_suggestion_for_others() {
        let root = |text: &str| config(text).unwrap().drivers.of_new_vm().root;
        assert_eq!(root(""), RootDriver::Overlay);
        for (name, driver) in [
            ("auto", RootDriver::Overlay),
            ("overlay", RootDriver::Overlay),
            ("dm-snapshot", RootDriver::DmSnapshot),
            ("reflink", RootDriver::Reflink),
        ] {
            assert_eq!(root(&format!("[drivers]\nroot = \"{name}\"")), driver);
        }
        let told = |text: &str| config(text).unwrap_err().to_string();
        assert!(told("[drivers]\nroot = \"dm_snapshot\"").contains("did you mean 'dm-snapshot'?"));
        assert!(
            told("[drivers]\nroot = \"zfs\"")
                .contains("known here are: auto, overlay, dm-snapshot, reflink")
        );
        assert!(told("[drivers]\nroto = \"auto\"").contains("did you mean 'root'?"));
    }

    /// A key of the table that no field takes would be ignored; a value that its kind lets pass and its field does
    /// not would be refused without its key.
    #[test]
    fn every_key_has_a_field_that_takes_what_its_kind_lets_pass() {
        for key in KEYS {
            for value in key.kind.examples() {
                let text = match key.name.rsplit_once('.') {
                    Some((table, key)) => format!("[{table}]\n{key} = {value}"),
                    None => format!("{} = {value}", key.name),
                };
                let read = config(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
                // `auto` is what holds without the key.
                assert!(
                    read != Config::default() || *value == "'auto'",
                    "{text} is ignored"
                );
            }
        }
    }
}
