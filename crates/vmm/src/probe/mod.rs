//! What this machine can run VMs with, and why: the choice itself and the data that `doctor` explains it by.

mod kvm;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_host::{ToolCall, Tools};
use thiserror::Error;

pub use kvm::{GuestRun, KvmDevice, KvmProbe, probe_kvm};

/// The program's name.
pub const QEMU: &str = "qemu-system-x86_64";

/// Where a private QEMU lies under banger's data directory.
pub const PRIVATE_QEMU: &str = "tools/qemu/usr/bin/qemu-system-x86_64";

/// The oldest QEMU that the arguments are tested with.
pub const OLDEST_QEMU: (u32, u32) = (7, 2);

/// Which way a program was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Named in the configuration.
    Config,
    /// In PATH.
    Path,
    /// banger's own copy.
    Private,
}

/// A QEMU to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuBinary {
    /// Absolute.
    pub path: PathBuf,
    /// Which way it was found.
    pub found: Found,
}

/// Why there is no driver to run VMs with.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Named in the configuration and not to be used.
    #[error("the configured qemu_bin {path} is no program that can be run")]
    ConfiguredQemu {
        /// What the configuration says.
        path: PathBuf,
    },
    /// Nowhere.
    #[error("no {QEMU} in PATH nor at {private}")]
    NoQemu {
        /// Where a private one would be.
        private: PathBuf,
    },
    /// It does not say its version.
    #[error("{path} --version does not work")]
    QemuBroken {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: banger_host::Error,
    },
    /// Its version is not one we know how to read.
    #[error("{path} --version says {said:?}, which is no QEMU version")]
    QemuVersion {
        /// The program.
        path: PathBuf,
        /// Its first line.
        said: String,
    },
    /// KVM is demanded by the configuration.
    #[error("the configuration demands KVM, which is not usable here: {why}")]
    NoKvm {
        /// The first thing that is missing.
        why: String,
    },
}

impl ProbeError {
    /// The way out, where there is one.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            ProbeError::ConfiguredQemu { .. } => {
                Some("correct qemu_bin in the configuration, or remove the line")
            }
            ProbeError::NoQemu { .. } => Some(
                "apt install qemu-system-x86, run scripts/install-qemu, or set qemu_bin in the configuration",
            ),
            ProbeError::QemuBroken { .. } | ProbeError::QemuVersion { .. } => {
                Some("set qemu_bin in the configuration to a QEMU that works")
            }
            ProbeError::NoKvm { .. } => Some("leave it out to run guests by emulation"),
        }
    }
}

/// Finds QEMU: configuration, then PATH, then banger's own copy. Runs nothing.
///
/// # Errors
/// A configured one that cannot be run is an error, never passed over.
pub fn find_qemu(
    configured: Option<&Path>,
    path_var: Option<&OsStr>,
    data_dir: &Path,
) -> Result<QemuBinary, ProbeError> {
    if let Some(path) = configured {
        if path.is_absolute() && is_program(path) {
            return Ok(QemuBinary {
                path: path.to_owned(),
                found: Found::Config,
            });
        }
        return Err(ProbeError::ConfiguredQemu {
            path: path.to_owned(),
        });
    }
    let in_path = path_var
        .into_iter()
        .flat_map(std::env::split_paths)
        .map(|dir| dir.join(QEMU));
    if let Some(path) = in_path.filter(|p| p.is_absolute()).find(|p| is_program(p)) {
        return Ok(QemuBinary {
            path,
            found: Found::Path,
        });
    }
    let private = data_dir.join(PRIVATE_QEMU);
    if is_program(&private) {
        return Ok(QemuBinary {
            path: private,
            found: Found::Private,
        });
    }
    Err(ProbeError::NoQemu { private })
}

/// A file that may be executed.
pub fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The version that QEMU says, as text and as (major, minor). Runs it; for `doctor`, not for every boot.
///
/// # Errors
/// It does not run, or says something else.
pub fn qemu_version<T: Tools>(tools: &T, qemu: &Path) -> Result<(String, (u32, u32)), ProbeError> {
    let call = ToolCall {
        program: qemu.to_owned(),
        args: vec!["--version".into()],
        env: Default::default(),
        cwd: "/".into(),
        stdin: Vec::new(),
        timeout: Duration::from_secs(20),
    };
    let output = tools
        .run_tool(&call, &mut |_| {}, &|| false)
        .map_err(|source| ProbeError::QemuBroken {
            path: qemu.to_owned(),
            source,
        })?;
    let said = String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    parse_version(&said).ok_or(ProbeError::QemuVersion {
        path: qemu.to_owned(),
        said,
    })
}

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)` → `7.2.22`, (7, 2).
fn parse_version(line: &str) -> Option<(String, (u32, u32))> {
    let text = line
        .strip_prefix("QEMU emulator version ")?
        .split_whitespace()
        .next()?;
    let mut parts = text.split('.').map(str::parse);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some((text.to_owned(), (major, minor)))
}

/// What the configuration says about acceleration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccelWish {
    /// KVM where it is really usable, else emulation.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

/// How instructions will be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccelKind {
    /// Hardware virtualisation.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Chooses by wish and probe.
///
/// # Errors
/// KVM is demanded and not usable.
pub fn choose_accel(wish: AccelWish, kvm: &KvmProbe) -> Result<AccelKind, ProbeError> {
    match (wish, kvm.obstacle()) {
        (AccelWish::Tcg, _) | (AccelWish::Auto, Some(_)) => Ok(AccelKind::Tcg),
        (AccelWish::Auto | AccelWish::Kvm, None) => Ok(AccelKind::Kvm),
        (AccelWish::Kvm, Some(why)) => Err(ProbeError::NoKvm { why }),
    }
}

/// One row for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// What was looked at.
    pub what: &'static str,
    /// Whether it is as the best driver wants it.
    pub good: bool,
    /// What was seen.
    pub seen: String,
    /// The way out, where there is one.
    pub hint: Option<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_one_then_path_then_our_own() {
        let dir = tempfile::tempdir().unwrap();
        let program = |path: &Path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let (bin, data) = (dir.path().join("bin"), dir.path().join("data"));
        let path_var = bin.as_os_str();
        let find = |configured: Option<&Path>| find_qemu(configured, Some(path_var), &data);

        let none = find(None).unwrap_err().to_string();
        assert!(
            none.contains("in PATH") && none.contains("tools/qemu"),
            "{none}"
        );
        program(&data.join(PRIVATE_QEMU));
        assert_eq!(find(None).unwrap().found, Found::Private);
        program(&bin.join(QEMU));
        assert_eq!(
            find(None).unwrap(),
            QemuBinary {
                path: bin.join(QEMU),
                found: Found::Path
            }
        );
        let own = dir.path().join("own-qemu");
        assert!(
            matches!(find(Some(&own)), Err(ProbeError::ConfiguredQemu { .. })),
            "never passed over"
        );
        fs::write(&own, "not executable").unwrap();
        assert!(find(Some(&own)).is_err());
        program(&own);
        assert_eq!(find(Some(&own)).unwrap().found, Found::Config);
    }

    #[test]
    fn versions_as_distributions_write_them() {
        let read = |line| parse_version(line).map(|(_, v)| v);
        assert_eq!(
            read("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)"),
            Some((7, 2))
        );
        assert_eq!(read("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(read("qemu-img version 7.2"), None);
    }

    #[test]
    fn a_wish_is_obeyed_or_refused_never_bent() {
        let bad = KvmProbe {
            cpu_flag: None,
            device: KvmDevice::Opens { api: 12 },
            guest: GuestRun::NotTried,
        };
        let good = KvmProbe {
            cpu_flag: Some("svm"),
            device: KvmDevice::Opens { api: 12 },
            guest: GuestRun::Ran,
        };
        assert_eq!(choose_accel(AccelWish::Auto, &bad).unwrap(), AccelKind::Tcg);
        assert_eq!(
            choose_accel(AccelWish::Auto, &good).unwrap(),
            AccelKind::Kvm
        );
        assert_eq!(choose_accel(AccelWish::Tcg, &good).unwrap(), AccelKind::Tcg);
        let refused = choose_accel(AccelWish::Kvm, &bad).unwrap_err().to_string();
        assert!(refused.contains("neither vmx nor svm"), "{refused}");
    }
}
