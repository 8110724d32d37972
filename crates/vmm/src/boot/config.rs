//! What a kernel was built with: its `.config`, from a file beside it or from the kernel itself (`CONFIG_IKCONFIG`).
//!
//! Formats: scripts/kconfig (`CONFIG_X=y`, `# CONFIG_X is not set`); kernel/configs.c: gzip between the marks `IKCFG_ST`
//! and `IKCFG_ED`.

use std::collections::BTreeMap;

use super::unpack::{Packing, unpack};

/// No configuration is longer; Debian's largest has 300 kB.
pub const LARGEST_CONFIG: usize = 8 << 20;

const START: &[u8] = b"IKCFG_ST";
const END: &[u8] = b"IKCFG_ED";

/// Options that are set, with their values.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct KernelConfig(BTreeMap<String, String>);

impl KernelConfig {
    /// Reads a `.config`; `None` if it says nothing of any option, so that it is none.
    pub fn parse(text: &str) -> Option<KernelConfig> {
        let mut options = BTreeMap::new();
        let mut said = false;
        for line in text.lines() {
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("# CONFIG_") {
                said |= rest.ends_with(" is not set");
            } else if line.starts_with("CONFIG_")
                && let Some((name, value)) = line.split_once('=')
            {
                said = true;
                options.insert(name.to_owned(), value.trim_matches('"').to_owned());
            }
        }
        said.then_some(KernelConfig(options))
    }

    /// The text of the configuration that a kernel carries in itself.
    pub fn text_in(vmlinux: &[u8]) -> Option<String> {
        let start = find(vmlinux, START)? + START.len();
        let rest = vmlinux.get(start..)?;
        let packed = rest.get(..find(rest, END)?)?;
        let text = unpack(Packing::of(packed)?, packed, LARGEST_CONFIG).ok()?;
        String::from_utf8(text).ok()
    }

    /// The value of an option, `y` or `m` most often.
    pub fn get(&self, option: &str) -> Option<&str> {
        self.0.get(option).map(String::as_str)
    }
}

/// Where a pattern first is.
pub(super) fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    let first = *pattern.first()?;
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|b| *b == first)?;
        if bytes.get(at..)?.starts_with(pattern) {
            return Some(at);
        }
        at += 1;
    }
}

/// The release that a kernel says of itself (`uname -r`).
pub(super) fn release_in(vmlinux: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = vmlinux;
    loop {
        rest = rest.get(find(rest, BANNER)? + BANNER.len()..)?;
        let word: Vec<u8> = rest
            .iter()
            .take(65)
            .copied()
            .take_while(|b| !b" \0\n(".contains(b))
            .collect();
        let word = String::from_utf8(word).unwrap_or_default();
        // Messages with the same beginning (`Linux version %s`) are no banner.
        if is_release(&word) {
            return Some(word);
        }
    }
}

/// Whether a text is a kernel's release, and so a name that a directory may have.
pub(super) fn is_release(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b".-+_~".contains(&b);
    text.starts_with(|c: char| c.is_ascii_digit()) && text.len() <= 64 && text.bytes().all(legal)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    /// What a kernel with `CONFIG_IKCONFIG` has in it.
    pub(crate) fn ikconfig(text: &str) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(text.as_bytes()).unwrap();
        [START, &gz.finish().unwrap(), END].concat()
    }

    #[test]
    fn options_are_read_and_what_is_no_configuration_is_none() {
        let text =
            "# x\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_LOCALVERSION=\"-b\"\n";
        let config = KernelConfig::parse(text).unwrap();
        assert_eq!(config.get("CONFIG_A"), Some("y"));
        assert_eq!(config.get("CONFIG_B"), Some("m"));
        assert_eq!(config.get("CONFIG_C"), None);
        assert_eq!(config.get("CONFIG_LOCALVERSION"), Some("-b"));
        assert!(KernelConfig::parse("# CONFIG_C is not set\n").is_some());
        assert_eq!(KernelConfig::parse("hello = 1\n"), None);
    }

    #[test]
    fn a_kernel_tells_its_configuration_and_its_release() {
        let mut kernel = b"IKCFG\0Linux version %s\0".to_vec();
        kernel.extend(ikconfig("CONFIG_PVH=y\n"));
        kernel.extend(b"xxLinux version 6.1.172-banger (banger@banger) #1\0");
        let text = KernelConfig::text_in(&kernel).unwrap();
        assert_eq!(text, "CONFIG_PVH=y\n");
        assert_eq!(release_in(&kernel).as_deref(), Some("6.1.172-banger"));
        for at in 0..kernel.len() {
            let _ = (
                KernelConfig::text_in(&kernel[..at]),
                release_in(&kernel[..at]),
            );
            let mut broken = kernel.clone();
            broken[at] ^= 0x80;
            let _ = (KernelConfig::text_in(&broken), release_in(&broken));
        }
        assert_eq!(KernelConfig::text_in(b"none"), None);
        assert_eq!(release_in(b"Linux version ../../etc x"), None);
    }

    #[test]
    fn a_configuration_that_unfolds_without_an_end_is_none() {
        let bomb = ikconfig(&"CONFIG_A=y\n".repeat(LARGEST_CONFIG / 8));
        assert_eq!(KernelConfig::text_in(&bomb), None);
    }
}
