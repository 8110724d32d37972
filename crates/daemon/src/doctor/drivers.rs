//! What VMs are run with, and why each driver is or is not chosen.

use super::{Patient, needed};
use crate::image_service::clones;
use crate::vm::preflight;
use crate::vm::scope::{Manager, OUT_OF_REACH, REACH, Scopes};
use banger_config::RootChoice;
use banger_host::linux::device_mapper;
use banger_image::UNSHARED;
use banger_vmm::probe::{self, KvmProbe, OLDEST_QEMU, probe_kvm};
use banger_wire::api::{ApiError, Code, DoctorRow};

/// The VMM, the agent, and how instructions are executed.
pub(super) fn vmm(patient: &Patient) -> Vec<DoctorRow> {
    let kvm = probe_kvm();
    let mut rows = vec![qemu(patient), execution(&kvm)];
    if !kvm.usable() {
        let facts = kvm.explain().into_iter().filter(|fact| !fact.good);
        rows.extend(facts.map(|fact| {
            let out = fact
                .hint
                .unwrap_or("nothing need be done: VMs run under emulation");
            DoctorRow::warn("vmm", fact.what, fact.seen, out)
        }));
    }
    let agent = preflight::agent(&patient.core);
    rows.push(needed(
        "vmm",
        "agent",
        "the guest's half of banger is there".to_owned(),
        agent,
    ));
    rows
}

fn qemu(patient: &Patient) -> DoctorRow {
    let (area, what) = ("vmm", "QEMU");
    let found = patient.core.recipes.qemu();
    let read = found.and_then(|path| {
        let version = probe::qemu_version(&*patient.core.host, &path)?;
        Ok((path, version))
    });
    match read {
        Ok((path, (text, version))) => {
            let seen = format!("{text} at {}", path.display());
            if version >= OLDEST_QEMU {
                DoctorRow::pass(area, what, seen)
            } else {
                let (major, minor) = OLDEST_QEMU;
                DoctorRow::warn(
                    area,
                    what,
                    seen,
                    format!(
                        "install QEMU {major}.{minor} or newer; banger is not tested with older ones"
                    ),
                )
            }
        }
        Err(error) => DoctorRow::fail(
            area,
            what,
            ApiError::of(Code::Precondition, &error).to_string(),
            error.hint().unwrap_or("scripts/install-qemu"),
        ),
    }
}

fn execution(kvm: &KvmProbe) -> DoctorRow {
    let (area, what) = ("vmm", "execution");
    match kvm.obstacle() {
        None => DoctorRow::pass(area, what, "hardware virtualisation (KVM)"),
        Some(why) => DoctorRow::pass(
            area,
            what,
            format!(
                "emulation (TCG), because {why}: a VM is up as fast, and computes 10 to 30 times slower"
            ),
        ),
    }
}

/// Root disk, network and scopes.
pub(super) fn choices(patient: &Patient) -> Vec<DoctorRow> {
    vec![root(patient), network(patient), scopes()]
}

/// The choice, and of each other root driver whether it could be had.
fn root(patient: &Patient) -> DoctorRow {
    let choice = patient.config.drivers.root;
    let dm = device_mapper().map_err(|error| format!("device-mapper cannot be used: {error}"));
    let images = patient.core.recipes.images_dir();
    let clones = clones(&patient.core, &images).map_err(|error| error.to_string());
    root_row(choice, dm, clones)
}

fn root_row(choice: RootChoice, dm: Result<(), String>, clones: Result<(), String>) -> DoctorRow {
    let (area, what) = ("drivers", "root disk");
    let had = |name: &str, note: &str, can: &Result<(), String>| match can {
        Ok(()) => format!("{name} could be had too{note}"),
        Err(why) => format!("{name} could not be had ({why})"),
    };
    let snapshot = had("dm-snapshot", ", and has only the room the image has", &dm);
    let clone = had(
        "reflink",
        ", and each VM reads its own copy into memory",
        &clones,
    );
    let chosen = |seen: String| DoctorRow::pass(area, what, seen);
    let refused = |name: &str, why: String, way_out: &str| {
        DoctorRow::fail(
            area,
            what,
            format!("{name} is configured, and {why}"),
            way_out,
        )
    };
    match (choice, dm, clones) {
        (RootChoice::DmSnapshot, Err(why), _) => refused(
            "dm-snapshot",
            why,
            "load the module dm_snapshot and run the daemon as root, or set drivers.root = \"overlay\"",
        ),
        (RootChoice::DmSnapshot, Ok(()), _) => chosen(format!(
            "dm-snapshot, because drivers.root says so; {clone}"
        )),
        (RootChoice::Reflink, _, Err(why)) => refused("reflink", why, UNSHARED),
        (RootChoice::Reflink, _, Ok(())) => {
            chosen(format!("reflink, because drivers.root says so; {snapshot}"))
        }
        (RootChoice::Overlay, ..) => chosen(format!(
            "overlay, because drivers.root says so; {snapshot}; {clone}"
        )),
        (RootChoice::Auto, ..) => chosen(format!(
            "overlay: works everywhere, and VMs of an image share it in memory; {snapshot}; {clone}"
        )),
    }
}

fn network(patient: &Patient) -> DoctorRow {
    let seen = if patient.config.vm_defaults.nat == Some(true) {
        "user: needs no root; with --nat, the default here, a guest reaches services on this machine's loopback"
    } else {
        "user: needs no root; closed without --nat; with it a guest reaches services on this machine's loopback"
    };
    DoctorRow::pass("drivers", "network", seen)
}

fn scopes() -> DoctorRow {
    let (area, what) = ("drivers", "scopes");
    match Manager::look() {
        Scopes::By(_) => DoctorRow::pass(area, what, "each VMM has a systemd scope of its own"),
        Scopes::NoSystemd => DoctorRow::pass(
            area,
            what,
            "no systemd here: nobody ends VMMs with a session",
        ),
        Scopes::OutOfReach => DoctorRow::warn(area, what, OUT_OF_REACH, REACH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_wire::api::Standing;

    /// R-OPS-1: the choice and why, and of each other driver whether it could be had.
    #[test]
    fn the_root_driver_is_explained() {
        let no = |why: &str| Err(why.to_owned());
        let ext4 = || no("/s is on ext4");
        let row = root_row(RootChoice::Auto, no("no module"), ext4());
        let told =
            "dm-snapshot could not be had (no module); reflink could not be had (/s is on ext4)";
        assert_eq!(row.status, Standing::Pass);
        assert!(
            row.seen.starts_with("overlay: ") && row.seen.ends_with(told),
            "{}",
            row.seen
        );
        let row = root_row(RootChoice::Auto, Ok(()), Ok(()));
        assert_eq!(
            row.seen.matches("could be had too").count(),
            2,
            "{}",
            row.seen
        );
        let row = root_row(RootChoice::Reflink, Ok(()), Ok(()));
        assert!(row.seen.starts_with("reflink, because"), "{}", row.seen);
        let row = root_row(RootChoice::Reflink, Ok(()), ext4());
        assert_eq!(row.status, Standing::Fail);
        assert!(row.seen.contains("/s is on ext4"), "{}", row.seen);
        let row = root_row(RootChoice::DmSnapshot, no("no module"), Ok(()));
        assert_eq!(row.status, Standing::Fail);
    }
}
