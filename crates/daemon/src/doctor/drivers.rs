//! What VMs are run with, and why each driver is or is not chosen.

use super::{Patient, needed};
use crate::vm::preflight;
use crate::vm::scope::{Manager, OUT_OF_REACH, REACH, Scopes};
use banger_host::linux::device_mapper;
use banger_model::RootDriver;
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

fn root(patient: &Patient) -> DoctorRow {
    let (area, what) = ("drivers", "root disk");
    let dm = device_mapper();
    match (patient.config.drivers.of_new_vm().root, dm) {
        (RootDriver::DmSnapshot, Err(error)) => DoctorRow::fail(
            area,
            what,
            format!("dm-snapshot is configured, and device-mapper cannot be used: {error}"),
            "load the module dm_snapshot and run the daemon as root, or set drivers.root = \"overlay\"",
        ),
        (RootDriver::DmSnapshot, Ok(())) => {
            DoctorRow::pass(area, what, "dm-snapshot, because drivers.root says so")
        }
        (_, Ok(())) => DoctorRow::pass(
            area,
            what,
            "overlay: works everywhere; dm-snapshot could be had too, and has only the room the image has",
        ),
        (_, Err(error)) => DoctorRow::pass(
            area,
            what,
            format!("overlay: works everywhere; dm-snapshot could not be had ({error})"),
        ),
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
