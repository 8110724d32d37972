//! What systemd must know of a VM, in `/run`: the image is not changed but for its machine id.
//!
//! Runtime files come before those of the vendor and after those of the administrator, as everywhere in systemd.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use banger_wire::guest::{BootFacts, Network, hex};
use rustix::rand::{GetRandomFlags, getrandom};

use super::fstab;
use crate::boot::network;

const UNITS: &str = "/run/systemd/system";
/// Units that wait for something a VM does not have, or do again what is done.
const MASKED: &[&str] = &[
    // A login prompt on the console: nobody types there, its device may never be announced, its log is for people.
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    // Asks on the console.
    "systemd-firstboot.service",
    // The root is writable, and an overlay takes no options of ext4.
    "systemd-remount-fs.service",
    // Looks for the cloud that the image was made for.
    "cloud-init.target",
];
/// Asks the image's kmod for device nodes as soon as there are modules, which here do not come with the image.
const STATIC_NODES: &str = "kmod-static-nodes.service";
/// Needs a kernel module.
const AUTOMOUNT: &str = "proc-sys-fs-binfmt_misc.automount";
const FSTAB: &str = "/run/banger/fstab";
const GENERATOR: &str = "/run/systemd/system-generators/systemd-fstab-generator";
/// Takes the place of the generator of the same name, and runs it with our table.
const GENERATOR_SCRIPT: &str = "#!/bin/sh
export SYSTEMD_FSTAB=/run/banger/fstab
for lib in /usr/lib /lib; do
    generator=$lib/systemd/system-generators/systemd-fstab-generator
    [ ! -x $generator ] || exec $generator \"$@\"
done
";
const MACHINE_ID: &str = "/etc/machine-id";

/// Writes it; gives a sentence for each thing that failed.
pub fn prepare(facts: &BootFacts) -> Vec<String> {
    let tasks: [(&str, io::Result<()>); 4] = [
        ("units that would wait", mask()),
        ("the network", describe_network(&facts.network)),
        ("the file systems", restrict_fstab()),
        ("the machine id", make_machine_id()),
    ];
    let failed = |(what, done): (&str, io::Result<()>)| {
        let error = done.err()?;
        Some(format!("systemd cannot be told about {what}: {error}"))
    };
    tasks.into_iter().filter_map(failed).collect()
}

fn mask() -> io::Result<()> {
    fs::create_dir_all(UNITS)?;
    let mut units = MASKED.to_vec();
    if !has_automounts() {
        units.push(AUTOMOUNT);
    }
    if !["/bin/kmod", "/usr/bin/kmod"]
        .iter()
        .any(|kmod| Path::new(kmod).exists())
    {
        units.push(STATIC_NODES);
    }
    for unit in units {
        symlink("/dev/null", Path::new(UNITS).join(unit))?;
    }
    Ok(())
}

/// Whether the kernel has automounts, or could load them.
fn has_automounts() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let release = rustix::system::uname();
    let modules = Path::new("/lib/modules").join(release.release().to_string_lossy().as_ref());
    known.lines().any(|line| line.ends_with("\tautofs")) || modules.is_dir()
}

/// The address is set; a service that manages interfaces is told the same, or to leave this one alone.
fn describe_network(network: &Network) -> io::Result<()> {
    let Network::Static(wanted) = network else {
        return Ok(());
    };
    let Some(name) = network::interface(wanted.mac.as_deref()) else {
        return Ok(());
    };
    let mut text = format!(
        "[Match]\nName={name}\n\n[Network]\nAddress={}/{}\n",
        wanted.address, wanted.prefix
    );
    if let Some(gateway) = &wanted.gateway {
        text.push_str(&format!("Gateway={gateway}\n"));
    }
    for server in &wanted.dns {
        text.push_str(&format!("DNS={server}\n"));
    }
    write("/run/systemd/network/00-banger.network", &text)?;
    // The name stays: the interface is up.
    let link = format!("[Match]\nOriginalName={name}\n\n[Link]\nNamePolicy=keep\n");
    write("/run/systemd/network/00-banger.link", &link)?;
    let unmanaged = format!("[keyfile]\nunmanaged-devices=interface-name:{name}\n");
    write("/run/NetworkManager/conf.d/00-banger.conf", &unmanaged)
}

fn restrict_fstab() -> io::Result<()> {
    let table = match fs::read_to_string("/etc/fstab") {
        Ok(table) => table,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(kept) = fstab::without_absent(&table, |device| Path::new(device).exists()) else {
        return Ok(());
    };
    write(FSTAB, &kept)?;
    write(GENERATOR, GENERATOR_SCRIPT)?;
    fs::set_permissions(GENERATOR, fs::Permissions::from_mode(0o755))
}

/// An image without an id would take each boot of each VM for its first, with questions and presets.
fn make_machine_id() -> io::Result<()> {
    let known = fs::read_to_string(MACHINE_ID).unwrap_or_default();
    if hex::decode16(known.trim()).is_some() {
        return Ok(());
    }
    let mut id = [0_u8; 16];
    // The kernel may not have gathered entropy yet, and an id is no secret.
    getrandom(&mut id[..], GetRandomFlags::INSECURE)?;
    // A random UUID, as machine-id(5) has it.
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    fs::write(MACHINE_ID, format!("{}\n", hex::encode(&id)))
}

fn write(path: &str, text: &str) -> io::Result<()> {
    if let Some(directory) = Path::new(path).parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, text)
}
