//! What holds where the file says nothing: what the daemon goes by. The table of keys says the same as it would be written.

use super::LogLevel;
use banger_model::{ByteSize, Span};

/// `log_level`.
pub const LOG_LEVEL: LogLevel = LogLevel::Info;
/// `default_image_name`.
pub const IMAGE: &str = "debian";
/// `stop_timeout`.
pub const STOP_TIMEOUT: Span = Span::seconds(10);
/// `terminate_timeout`.
pub const TERMINATE_TIMEOUT: Span = Span::seconds(5);
/// `boot_timeout`.
pub const BOOT_TIMEOUT: Span = Span::seconds(60);
/// `auto_stop_stale_after`: never.
pub const AUTO_STOP_STALE_AFTER: Span = Span::seconds(0);
/// `vm_defaults.system_overlay_size`.
pub const SYSTEM_OVERLAY_SIZE: ByteSize = ByteSize::gib(8);
/// `vm_defaults.disk_size`.
pub const DISK_SIZE: ByteSize = ByteSize::gib(8);
/// `vm_defaults.nat`.
pub const NAT: bool = false;
/// `images.max_entries`.
pub const IMAGE_ENTRIES: u32 = 4_000_000;
/// `images.max_size`.
pub const IMAGE_SIZE: ByteSize = ByteSize::gib(64);
/// `images.max_directory_entries`.
pub const IMAGE_DIRECTORY_ENTRIES: u32 = 1_000_000;
/// `images.max_devices`.
pub const IMAGE_DEVICES: u32 = 4096;
/// `images.max_ratio`.
pub const IMAGE_RATIO: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CatalogChoice, Config, DriverChoice, ImageLimits, KEYS, Kind, RootChoice, VmDefaults,
    };
    use std::{fmt::Write as _, path::Path};

    /// The file that says what holds without one. Of what has no default here, nothing holds or the host decides.
    #[test]
    fn the_table_of_keys_says_what_holds() {
        let mut text = String::new();
        let mut table = "";
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let (within, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if within != table {
                let _ = writeln!(text, "[{within}]");
                table = within;
            }
            let _ = match key.kind {
                Kind::Flag | Kind::Count { .. } => writeln!(text, "{name} = {}", key.default),
                _ => writeln!(text, "{name} = '{}'", key.default),
            };
        }
        let holds = Config {
            log_level: Some(LOG_LEVEL),
            qemu_bin: None,
            default_image_name: Some(IMAGE.to_owned()),
            stop_timeout: Some(STOP_TIMEOUT),
            terminate_timeout: Some(TERMINATE_TIMEOUT),
            boot_timeout: Some(BOOT_TIMEOUT),
            auto_stop_stale_after: Some(AUTO_STOP_STALE_AFTER),
            vm_defaults: VmDefaults {
                vcpus: None,
                memory: None,
                system_overlay_size: Some(SYSTEM_OVERLAY_SIZE),
                disk_size: Some(DISK_SIZE),
                nat: Some(NAT),
            },
            drivers: DriverChoice {
                root: RootChoice::default(),
            },
            catalog: CatalogChoice::default(),
            images: ImageLimits {
                max_entries: Some(IMAGE_ENTRIES),
                max_size: Some(IMAGE_SIZE),
                max_directory_entries: Some(IMAGE_DIRECTORY_ENTRIES),
                max_devices: Some(IMAGE_DEVICES),
                max_ratio: Some(IMAGE_RATIO),
            },
        };
        assert_eq!(Config::parse(Path::new("/c.toml"), &text).unwrap(), holds);
    }
}
