//! What VMs are made of: image, kernel, disks, and the numbers of a VM that nobody gives.

use super::{Database, Patient};
use crate::kernels::default_kernel;
use crate::vm::{preflight, shape};
use banger_config::builtin;
use banger_model::{ByteSize, RootDriver, spec::Origin};
use banger_wire::api::{ApiError, DoctorRow, VmShape};

const AREA: &str = "images";

/// The image and the kernel of a VM whose request names none, and images that are damaged.
pub(super) fn images(patient: &Patient) -> Vec<DoctorRow> {
    let Ok(catalogue) = patient.peers.catalogue() else {
        return Vec::new();
    };
    let configured = patient.config.default_image_name.as_deref();
    let image = configured.unwrap_or(builtin::IMAGE);
    let there = |name: &str| catalogue.find(name).ok().map(|found| found.id);
    let kernel = |name: &str| {
        patient
            .core
            .recipes
            .kernel(name)
            .ok()
            .map(|found| found.manifest.release)
    };
    let default = default_kernel(&patient.core);
    let sized = sized(patient);
    let mut rows = vec![
        supply(
            "default image",
            image,
            there(image),
            patient.images.image_obstacles(image),
        ),
        supply(
            "default kernel",
            default,
            kernel(default),
            patient.images.kernel_obstacles(default),
        ),
    ];
    let mut disks = match patient.config.drivers.of_new_vm().root {
        RootDriver::Overlay => patient.images.overlay_obstacles(sized.overlay_size),
        RootDriver::Reflink => patient.images.root_obstacles(image, sized.overlay_size),
        RootDriver::DmSnapshot => Vec::new(),
    };
    disks.extend(patient.images.work_obstacles(image, sized.disk_size));
    disks.dedup();
    rows.push(match ApiError::all(disks) {
        Ok(()) => DoctorRow::pass(AREA, "disks", "templates are there or can be made"),
        Err(error) => failed("disks", &error),
    });
    rows.extend(
        catalogue
            .store()
            .damaged()
            .unwrap_or_default()
            .into_iter()
            .map(|(id, error)| {
                DoctorRow::warn(
                    AREA,
                    "damaged image",
                    format!("{id}: {error}"),
                    format!("banger image delete {id}, and import it again"),
                )
            }),
    );
    rows
}

/// A row for something that is there, or is made on first use if nothing stands in the way.
fn supply(what: &str, name: &str, there: Option<String>, obstacles: Vec<ApiError>) -> DoctorRow {
    match (there, ApiError::all(obstacles)) {
        (Some(which), Ok(())) => DoctorRow::pass(AREA, what, format!("{name} ({which})")),
        (None, Ok(())) => DoctorRow::pass(
            AREA,
            what,
            format!("{name}: not there yet; made when it is first needed"),
        ),
        (_, Err(error)) => failed(what, &error),
    }
}

fn failed(what: &str, error: &ApiError) -> DoctorRow {
    let all: Vec<_> = std::iter::once(error).chain(&error.also).collect();
    let seen: Vec<_> = all.iter().map(|e| e.to_string()).collect();
    let mut hints: Vec<_> = all.iter().filter_map(|e| e.hint.clone()).collect();
    hints.dedup();
    DoctorRow::fail(AREA, what, seen.join("; "), hints.join("; "))
}

fn sized(patient: &Patient) -> shape::Sized {
    let host = shape::HostSize::of_this_machine();
    shape::decide(&VmShape::default(), &patient.config.vm_defaults, host)
}

/// The numbers of a VM whose request gives none, and whether the host has the memory for one.
pub(super) fn defaults(patient: &Patient) -> Vec<DoctorRow> {
    let sized = sized(patient);
    let told: Vec<_> = sized
        .told
        .iter()
        .map(|v| {
            let origin = match v.origin {
                Origin::Flag | Origin::Config => "config",
                Origin::Image => "image",
                Origin::Host => "host",
                Origin::Builtin => "builtin",
            };
            format!("{} {} ({origin})", v.key, v.value)
        })
        .collect();
    let (area, what) = ("defaults", "a new VM");
    let mut rows = vec![match ApiError::all(shape::obstacles(&sized)) {
        Ok(()) => DoctorRow::pass(area, what, told.join(", ")),
        Err(error) => DoctorRow::fail(
            area,
            what,
            error.to_string(),
            "mend [vm_defaults] in the configuration: banger config show",
        ),
    }];
    if matches!(patient.database, Database::Open) {
        rows.push(memory(patient, sized.memory));
    }
    rows
}

fn memory(patient: &Patient, wanted: ByteSize) -> DoctorRow {
    let host = shape::HostSize::of_this_machine();
    match preflight::unpromised(&patient.core, wanted, host) {
        Ok(()) => DoctorRow::pass(
            "defaults",
            "memory",
            format!(
                "{wanted} more can be promised of this host's {}",
                host.memory
            ),
        ),
        Err(error) => {
            let hint = error.hint.clone().unwrap_or_default();
            DoctorRow::warn("defaults", "memory", error.to_string(), hint)
        }
    }
}
