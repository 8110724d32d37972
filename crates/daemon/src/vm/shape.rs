//! What a new VM will be: request, then configuration, then this host, then built-in defaults (R-CLI-7). Pure.

pub use banger_config::HostSize;
use banger_config::{LEAST_DISK, LEAST_MEMORY, MOST_DISK, MOST_VCPUS, VmDefaults, builtin};
use banger_model::{ByteSize, spec::Origin};
use banger_wire::api::{ApiError, Code, SpecValue, VmShape};

/// The numbers of a new VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sized {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Guest memory.
    pub memory: ByteSize,
    /// Overlay disk.
    pub overlay_size: ByteSize,
    /// Work disk.
    pub disk_size: ByteSize,
    /// Reaches beyond the host.
    pub nat: bool,
    /// Each value with its origin, in the order to print.
    pub told: Vec<SpecValue>,
}

/// Decides the numbers of a VM. Whether anything can be made of them, [`obstacles`] says.
pub fn decide(wanted: &VmShape, defaults: &VmDefaults, host: HostSize) -> Sized {
    let mut told = Vec::new();
    let vcpus = pick(wanted.vcpus, defaults.vcpus, (host.vcpus(), Origin::Host));
    let memory = pick(
        wanted.memory,
        defaults.memory,
        (host.guest_memory(), Origin::Host),
    );
    let overlay = pick(
        wanted.overlay_size,
        defaults.system_overlay_size,
        (builtin::SYSTEM_OVERLAY_SIZE, Origin::Builtin),
    );
    let disk = pick(
        wanted.disk_size,
        defaults.disk_size,
        (builtin::DISK_SIZE, Origin::Builtin),
    );
    let nat = pick(wanted.nat, defaults.nat, (builtin::NAT, Origin::Builtin));
    let mut tell = |key: &str, value: String, origin| {
        told.push(SpecValue {
            key: key.to_owned(),
            value,
            origin,
        });
    };
    tell("vcpus", vcpus.0.to_string(), vcpus.1);
    tell("memory", memory.0.to_string(), memory.1);
    tell("overlay", overlay.0.to_string(), overlay.1);
    tell("disk", disk.0.to_string(), disk.1);
    tell("nat", if nat.0 { "yes" } else { "no" }.to_owned(), nat.1);
    Sized {
        vcpus: vcpus.0,
        memory: memory.0,
        overlay_size: overlay.0,
        disk_size: disk.0,
        nat: nat.0,
        told,
    }
}

fn pick<T>(flag: Option<T>, config: Option<T>, or: (T, Origin)) -> (T, Origin) {
    match (flag, config) {
        (Some(value), _) => (value, Origin::Flag),
        (None, Some(value)) => (value, Origin::Config),
        (None, None) => or,
    }
}

/// Every value that nothing could be made of, each with the flag that mends it.
pub fn obstacles(sized: &Sized) -> Vec<ApiError> {
    let mut found = Vec::new();
    let mut refuse = |text: String, hint: String| {
        found.push(ApiError::new(Code::BadRequest, text).hint(hint));
    };
    if !(1..=MOST_VCPUS).contains(&sized.vcpus) {
        refuse(
            format!(
                "a VM has 1 to {MOST_VCPUS} virtual CPUs, not {}",
                sized.vcpus
            ),
            format!("--vcpu 1 to --vcpu {MOST_VCPUS}"),
        );
    }
    if sized.memory < LEAST_MEMORY {
        refuse(
            format!(
                "a VM needs at least {LEAST_MEMORY} of memory, not {}",
                sized.memory
            ),
            format!("--memory {}M or more", LEAST_MEMORY.as_mib()),
        );
    }
    for (what, flag, size) in [
        ("overlay disk", "--system-overlay-size", sized.overlay_size),
        ("work disk", "--disk-size", sized.disk_size),
    ] {
        if size < LEAST_DISK {
            refuse(
                format!("the {what} has at least {LEAST_DISK}, not {size}"),
                format!("{flag} {}M or more", LEAST_DISK.as_mib()),
            );
        } else if size > MOST_DISK {
            refuse(
                format!("the {what} has at most {MOST_DISK}, not {size}"),
                format!("{flag} {}G or less", MOST_DISK.as_mib() / 1024),
            );
        } else if !size.bytes().is_multiple_of(1 << 20) {
            refuse(
                format!("the {what} has a whole number of MiB, not {size}"),
                format!("{flag} {}M", size.as_mib() + 1),
            );
        }
    }
    found
}

/// Refuses to promise more memory than the host has.
///
/// # Errors
/// It would be more.
pub fn check_memory(wanted: ByteSize, promised: ByteSize, host: HostSize) -> Result<(), ApiError> {
    let sum = ByteSize(promised.bytes().saturating_add(wanted.bytes()));
    if sum <= host.memory {
        return Ok(());
    }
    Err(ApiError::new(
        Code::Precondition,
        format!(
            "{wanted} of memory on top of the {promised} of running VMs is more than this host's {}",
            host.memory
        ),
    )
    .hint("ask for less with --memory, stop a VM, or insist with --force"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostSize = HostSize {
        cpus: 16,
        memory: ByteSize::gib(32),
    };

    fn values(sized: &Sized) -> Vec<(&str, &str, Origin)> {
        sized
            .told
            .iter()
            .map(|v| (v.key.as_str(), v.value.as_str(), v.origin))
            .collect()
    }

    #[test]
    fn flag_then_config_then_host_then_builtin() {
        let wanted = VmShape {
            vcpus: Some(3),
            ..VmShape::default()
        };
        let defaults = VmDefaults {
            disk_size: Some(ByteSize::gib(1)),
            vcpus: Some(7),
            ..VmDefaults::default()
        };
        let sized = decide(&wanted, &defaults, HOST);
        assert_eq!(
            values(&sized),
            [
                ("vcpus", "3", Origin::Flag),
                ("memory", "4 GiB", Origin::Host),
                ("overlay", "8 GiB", Origin::Builtin),
                ("disk", "1 GiB", Origin::Config),
                ("nat", "no", Origin::Builtin),
            ]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |wanted: VmShape| {
            let found = obstacles(&decide(&wanted, &VmDefaults::default(), HOST));
            assert!(found.iter().all(|e| e.hint.is_some()), "{found:?}");
            found.iter().map(|e| e.code).collect::<Vec<_>>()
        };
        assert_eq!(refused(VmShape::default()), []);
        for wanted in [
            VmShape {
                vcpus: Some(0),
                ..VmShape::default()
            },
            VmShape {
                vcpus: Some(65),
                ..VmShape::default()
            },
            VmShape {
                memory: Some(ByteSize::mib(64)),
                ..VmShape::default()
            },
            VmShape {
                disk_size: Some(ByteSize(20_000_001)),
                ..VmShape::default()
            },
            VmShape {
                overlay_size: Some(ByteSize::mib(1)),
                ..VmShape::default()
            },
        ] {
            assert_eq!(refused(wanted), [Code::BadRequest]);
        }
        let all = VmShape {
            vcpus: Some(0),
            memory: Some(ByteSize::mib(64)),
            disk_size: Some(ByteSize::mib(1)),
            overlay_size: Some(ByteSize(20_000_001)),
            ..VmShape::default()
        };
        assert_eq!(refused(all), [Code::BadRequest; 4], "all at once");
    }

    #[test]
    fn memory_is_not_promised_twice() {
        let all = HOST.memory;
        assert!(check_memory(all, ByteSize(0), HOST).is_ok());
        assert!(check_memory(all, ByteSize::mib(1), HOST).is_err());
    }
}
