//! What banger needs of a kernel, and whether a kernel has it (R-IMG-7).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::config::KernelConfig;
use super::elf;
use super::modules::name_of;

/// One thing that a kernel should have.
#[derive(Debug)]
pub struct Need {
    /// Options any of which will do; the first is the one to name.
    pub options: &'static [&'static str],
    /// Module that has it, where it may be a module.
    pub module: Option<&'static str>,
    /// A function that only a kernel with it has.
    symbol: Option<&'static str>,
    /// Whether no guest runs without it; else something in a guest does not.
    pub needed: bool,
    /// What for.
    pub why: &'static str,
}

const fn must(
    options: &'static [&'static str],
    module: Option<&'static str>,
    symbol: Option<&'static str>,
    why: &'static str,
) -> Need {
    Need {
        options,
        module,
        symbol,
        needed: true,
        why,
    }
}

const fn good(
    options: &'static [&'static str],
    module: Option<&'static str>,
    symbol: Option<&'static str>,
    why: &'static str,
) -> Need {
    Need {
        options,
        module,
        symbol,
        needed: false,
        why,
    }
}

/// Everything that is asked of a kernel besides its PVH note, which is looked for itself.
#[rustfmt::skip]
pub const NEEDS: &[Need] = &[
    must(&["CONFIG_64BIT"], None, Some("x86_64_start_kernel"), "banger's agent is a 64-bit program"),
    must(&["CONFIG_BINFMT_ELF"], None, Some("init_elf_binfmt"), "the agent, and every other program, is an ELF file"),
    must(&["CONFIG_BLK_DEV_INITRD"], None, Some("populate_rootfs"), "the agent comes in an initramfs"),
    must(&["CONFIG_DEVTMPFS"], None, Some("devtmpfs_init"), "the guest's /dev"),
    must(&["CONFIG_PROC_FS"], None, Some("proc_root_init"), "the guest's /proc"),
    must(&["CONFIG_SYSFS"], None, Some("sysfs_init"), "the guest's /sys, where its disks are found"),
    must(&["CONFIG_TMPFS"], None, Some("shmem_init"), "the guest's /run and /tmp"),
    must(&["CONFIG_SERIAL_8250_CONSOLE"], None, Some("serial8250_console_setup"), "the console, and why a guest ended"),
    must(&["CONFIG_ACPI"], None, Some("acpi_init"), "virtio devices are found by it"),
    must(&["CONFIG_VIRTIO_MMIO"], Some("virtio_mmio"), Some("virtio_mmio_probe"), "the bus of a microVM"),
    must(&["CONFIG_VIRTIO_CONSOLE"], Some("virtio_console"), Some("virtcons_probe"), "the channel to the agent"),
    must(&["CONFIG_VIRTIO_BLK"], Some("virtio_blk"), Some("virtblk_probe"), "the disks"),
    must(&["CONFIG_EXT4_FS"], Some("ext4"), Some("ext4_fill_super"), "the file system of images"),
    must(&["CONFIG_OVERLAY_FS"], Some("overlay"), Some("ovl_fill_super"), "a system that can be written to over an image that cannot"),
    must(&["CONFIG_INET"], None, Some("inet_init"), "TCP/IP"),
    must(&["CONFIG_UNIX"], None, Some("af_unix_init"), "local sockets"),
    must(&["CONFIG_VIRTIO_NET"], Some("virtio_net"), Some("virtnet_probe"), "the network card"),
    good(&["CONFIG_HW_RANDOM_VIRTIO"], Some("virtio_rng"), Some("virtrng_probe"), "random numbers from the host"),
    good(&["CONFIG_UNIX98_PTYS"], None, Some("pty_init"), "terminals in the guest"),
    good(&["CONFIG_CGROUPS"], None, Some("cgroup_init"), "systemd and containers"),
    good(&["CONFIG_MEMCG"], None, Some("mem_cgroup_init"), "limits of containers' memory"),
    good(&["CONFIG_NAMESPACES"], None, Some("copy_namespaces"), "containers"),
    good(&["CONFIG_SECCOMP_FILTER"], None, Some("seccomp_check_filter"), "what docker and systemd keep programs in"),
    good(&["CONFIG_VETH"], Some("veth"), Some("veth_newlink"), "networks of containers"),
    good(&["CONFIG_BRIDGE"], Some("bridge"), Some("br_add_if"), "networks of containers"),
    good(&["CONFIG_NF_TABLES"], Some("nf_tables"), Some("nf_tables_newrule"), "the firewall that docker writes"),
    good(&["CONFIG_TUN"], Some("tun"), Some("tun_chr_open"), "VPNs, and networks of rootless containers"),
    good(&["CONFIG_FUSE_FS"], Some("fuse"), Some("fuse_dev_open"), "file systems of programs"),
    good(&["CONFIG_VIRTIO_VSOCKETS"], Some("vmw_vsock_virtio_transport"), Some("virtio_vsock_probe"), "the channel of Firecracker's VMs"),
    good(&["CONFIG_VMGENID"], Some("vmgenid"), Some("vmgenid_add"), "fresh random numbers in a VM restored from a snapshot"),
];

/// What a kernel's options were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckedBy {
    /// Its configuration.
    Config,
    /// `modules.builtin` and its modules: options that cannot be modules are not told by them.
    Modules,
    /// Its table of symbols.
    Symbols,
    /// Nothing that it came with tells.
    Nothing,
}

/// What a kernel has of [`NEEDS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCheck {
    /// What was looked at.
    pub by: CheckedBy,
    /// Options that it lacks, by their first name.
    pub missing: Vec<String>,
    /// Options of which nothing is known.
    pub unknown: Vec<String>,
}

impl KernelCheck {
    /// What is missing, as the table has it.
    pub fn missing(&self) -> impl Iterator<Item = &'static Need> {
        NEEDS
            .iter()
            .filter(|need| self.missing.iter().any(|m| m == need.options[0]))
    }

    /// What no guest runs without, each with its reason; empty if banger can use the kernel as far as is known.
    pub fn lacks(&self) -> Vec<String> {
        let needed = self.missing().filter(|need| need.needed);
        needed
            .map(|need| format!("{} ({})", need.options[0], need.why))
            .collect()
    }
}

/// What is known of a kernel.
#[derive(Debug, Default)]
pub struct Evidence<'a> {
    /// Its configuration.
    pub config: Option<&'a KernelConfig>,
    /// `modules.builtin`, where it came with one.
    pub builtin: Option<&'a str>,
    /// Names of its modules.
    pub modules: BTreeSet<String>,
    /// Which of the functions that [`NEEDS`] names it has; see [`symbols`].
    pub symbols: Option<BTreeSet<&'static str>>,
}

/// The functions of [`NEEDS`] that a kernel which was not stripped has; `None` if its table tells nothing.
pub fn symbols(vmlinux: &[u8]) -> Option<BTreeSet<&'static str>> {
    // A table without what every kernel has is no kernel's.
    const EVERY: &str = "start_kernel";
    let wanted: BTreeSet<&str> = NEEDS
        .iter()
        .filter_map(|need| need.symbol)
        .chain([EVERY])
        .collect();
    let longest = wanted.iter().map(|name| name.len()).max().unwrap_or(0);
    let mut there = BTreeSet::new();
    let table = elf::for_each_symbol(vmlinux, &mut |rest| {
        let start = &rest[..rest.len().min(longest + 1)];
        // Compilers name a part or a variant of a function after it: `virtblk_probe.cold`, `inet_init.llvm.123`.
        let name = start.split(|b| matches!(b, 0 | b'.')).next();
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        there.extend(name.and_then(|name| wanted.get(name)));
    });
    let told = table.is_ok_and(|table| table) && there.contains(EVERY);
    told.then_some(there)
}

#[derive(Debug, PartialEq, Eq)]
enum Known {
    There,
    Missing,
    Unknown,
}

/// Compares a kernel with what banger needs.
pub fn check(evidence: &Evidence<'_>) -> KernelCheck {
    let by = match evidence {
        Evidence {
            config: Some(_), ..
        } => CheckedBy::Config,
        Evidence {
            symbols: Some(_), ..
        } => CheckedBy::Symbols,
        Evidence {
            builtin: Some(_), ..
        } => CheckedBy::Modules,
        _ => CheckedBy::Nothing,
    };
    let all = |wanted: Known| {
        let such = NEEDS.iter().filter(|need| known(need, evidence) == wanted);
        such.map(|need| need.options[0].to_owned()).collect()
    };
    KernelCheck {
        by,
        missing: all(Known::Missing),
        unknown: all(Known::Unknown),
    }
}

fn known(need: &Need, evidence: &Evidence<'_>) -> Known {
    let there = |there| match there {
        true => Known::There,
        false => Known::Missing,
    };
    if need
        .module
        .is_some_and(|module| evidence.modules.contains(module))
    {
        return Known::There;
    }
    if let Some(config) = evidence.config {
        // A module that did not come with the kernel cannot be loaded.
        return there(need.options.iter().any(|o| config.get(o) == Some("y")));
    }
    if let (Some(names), Some(symbol)) = (&evidence.symbols, need.symbol) {
        return there(names.contains(symbol));
    }
    match (evidence.builtin, need.module) {
        (Some(builtin), Some(module)) => {
            there(builtin.lines().any(|line| name_of(line.trim()) == module))
        }
        _ => Known::Unknown,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::boot::elf::tests::with_symbols;

    /// A configuration with everything but one option.
    pub(crate) fn config_without(option: &str) -> String {
        let options = NEEDS.iter().flat_map(|need| need.options);
        options
            .map(|o| match *o == option {
                true => format!("# {o} is not set\n"),
                false => format!("{o}=y\n"),
            })
            .collect()
    }

    /// R-IMG-7: each option that is missing is named, and no other.
    #[test]
    fn each_option_that_a_configuration_lacks_is_named() {
        for need in NEEDS {
            let config = KernelConfig::parse(&config_without(need.options[0])).unwrap();
            let checked = check(&Evidence {
                config: Some(&config),
                ..Evidence::default()
            });
            assert_eq!(checked.by, CheckedBy::Config);
            let missing: &[&str] = match need.options {
                [only] => &[*only],
                _ => &[], // the other one is there
            };
            assert_eq!(checked.missing, missing);
            let lacks = checked.lacks().join(", ");
            assert_eq!(
                lacks.contains(need.options[0]),
                need.needed && !missing.is_empty(),
                "{lacks}"
            );
        }
    }

    #[test]
    fn a_module_counts_only_if_it_came_along() {
        let text = config_without("CONFIG_VIRTIO_BLK") + "CONFIG_VIRTIO_BLK=m\n";
        let config = KernelConfig::parse(&text).unwrap();
        let mut evidence = Evidence {
            config: Some(&config),
            ..Evidence::default()
        };
        assert_eq!(check(&evidence).lacks(), ["CONFIG_VIRTIO_BLK (the disks)"]);
        evidence.modules.insert("virtio_blk".to_owned());
        assert!(check(&evidence).missing.is_empty());
    }

    #[test]
    fn without_a_configuration_what_can_be_told_is_told() {
        let nothing = check(&Evidence::default());
        assert_eq!(nothing.by, CheckedBy::Nothing);
        assert!(nothing.missing.is_empty() && nothing.unknown.len() == NEEDS.len());

        let list = "kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio-mmio.ko\n";
        let by_list = check(&Evidence {
            builtin: Some(list),
            ..Evidence::default()
        });
        assert_eq!(by_list.by, CheckedBy::Modules);
        assert!(by_list.missing.contains(&"CONFIG_VIRTIO_BLK".to_owned()));
        assert!(!by_list.missing.contains(&"CONFIG_EXT4_FS".to_owned()));
        assert!(!by_list.missing.contains(&"CONFIG_VIRTIO_MMIO".to_owned()));
        assert!(by_list.unknown.contains(&"CONFIG_PROC_FS".to_owned()));

        let names = b"\0start_kernel\0virtblk_probe_not\0ext4_fill_super\0";
        let vmlinux = with_symbols(names, &[1, 14, 32]);
        let by_names = check(&Evidence {
            symbols: symbols(&vmlinux),
            ..Evidence::default()
        });
        assert!(by_names.missing.contains(&"CONFIG_VIRTIO_BLK".to_owned()));
        assert!(!by_names.missing.contains(&"CONFIG_EXT4_FS".to_owned()));
    }

    /// GNU ld keeps one text for names of which one is the end of the other: there is no NUL before the shorter one.
    #[test]
    fn a_name_that_is_the_end_of_another_one_is_found() {
        let names =
            b"\0__pfx_start_kernel\0__pfx_virtblk_probe\0ext4_fill_super.cold\0__pfx_acpi_init\0";
        let found = symbols(&with_symbols(names, &[1, 7, 20, 26, 40, 61])).unwrap();
        let expected = ["ext4_fill_super", "start_kernel", "virtblk_probe"];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
        let stripped = with_symbols(b"\0virtblk_probe\0", &[1]);
        assert_eq!(symbols(&stripped), None, "no kernel's table");
    }

    /// What our own kernel is built from has all of it.
    #[test]
    fn the_fragment_of_our_own_kernel_has_everything() {
        let config = KernelConfig::parse(include_str!("guest.config")).unwrap();
        let checked = check(&Evidence {
            config: Some(&config),
            ..Evidence::default()
        });
        assert!(checked.missing.is_empty(), "{:?}", checked.missing);
    }
}
