//! What holds, and where it comes from.

use super::{ConfigError, HostSize, KEYS, Key, read};
use banger_model::spec::Origin;
use serde::Serialize;
use std::path::Path;

/// One key with the value that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// With its table.
    pub key: &'static str,
    /// As it would be written; empty where nothing holds.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Every key with the value that holds, for this file on this host.
///
/// # Errors
/// The file cannot be used.
pub fn settings(path: &Path, host: HostSize) -> Result<Vec<Setting>, ConfigError> {
    let table = read(path)?.unwrap_or_default();
    Ok(KEYS.iter().map(|key| setting(key, &table, host)).collect())
}

fn setting(key: &Key, table: &toml::Table, host: HostSize) -> Setting {
    let (value, origin) = match (written(key.name, table), key.name) {
        (Some(value), _) => (value, Origin::Config),
        (None, "vm_defaults.vcpus") => (host.vcpus().to_string(), Origin::Host),
        (None, "vm_defaults.memory") => (host.guest_memory().to_string(), Origin::Host),
        (None, _) => (key.default.to_owned(), Origin::Builtin),
    };
    Setting {
        key: key.name,
        value,
        origin,
    }
}

fn written(name: &str, table: &toml::Table) -> Option<String> {
    let (first, rest) = name.split_once('.').unwrap_or((name, ""));
    match (table.get(first)?, rest) {
        (toml::Value::Table(inner), rest) => written(rest, inner),
        (toml::Value::String(text), _) => Some(text.clone()),
        (other, _) => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::ByteSize;

    #[test]
    fn each_key_is_shown_once_with_its_origin() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let host = HostSize {
            cpus: 16,
            memory: ByteSize::gib(32),
        };
        let of = |key: &str| {
            let all = settings(&path, host).unwrap();
            assert_eq!(all.len(), KEYS.len());
            let found = all.into_iter().find(|s| s.key == key).unwrap();
            (found.value, found.origin)
        };
        assert_eq!(of("log_level"), ("info".into(), Origin::Builtin));
        assert_eq!(of("vm_defaults.vcpus"), ("4".into(), Origin::Host));
        assert_eq!(of("qemu_bin"), (String::new(), Origin::Builtin));
        std::fs::write(
            &path,
            "stop_timeout = 3\n[vm_defaults]\nmemory = '1G'\nnat = true\n",
        )
        .unwrap();
        assert_eq!(of("vm_defaults.memory"), ("1G".into(), Origin::Config));
        assert_eq!(of("vm_defaults.nat"), ("true".into(), Origin::Config));
        assert_eq!(of("stop_timeout"), ("3".into(), Origin::Config));
        std::fs::write(&path, "nonsense = 1").unwrap();
        assert!(settings(&path, host).is_err());
    }
}
