//! The machine, the directories, the database, and what is left over.

use super::{Database, Patient};
use banger_converge::whole;
use banger_host::Files;
use banger_model::ByteSize;
use banger_plan::check::{Acknowledged, Finding, check};
use banger_plan::pressure::{Pressure, pressure};
use banger_wire::api::{ApiError, Code, DoctorRow};
use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

const AREA: &str = "state";

/// The oldest kernel whose `openat2` (5.6) keeps copies out of a guest below their destination.
const OLDEST_KERNEL: (u32, u32) = (5, 6);

/// Architecture and kernel.
pub(super) fn machine() -> Vec<DoctorRow> {
    let seen = rustix::system::uname();
    let (machine, release) = (
        seen.machine().to_string_lossy(),
        seen.release().to_string_lossy(),
    );
    let area = "machine";
    let architecture = if machine == "x86_64" {
        DoctorRow::pass(area, "architecture", machine)
    } else {
        DoctorRow::fail(
            area,
            "architecture",
            machine,
            "use an x86-64 machine: guests are x86-64 for now",
        )
    };
    let kernel = if version(&release) >= OLDEST_KERNEL {
        DoctorRow::pass(area, "kernel", release)
    } else {
        let (major, minor) = OLDEST_KERNEL;
        DoctorRow::fail(
            area,
            "kernel",
            release,
            format!("boot Linux {major}.{minor} or newer"),
        )
    };
    vec![architecture, kernel]
}

/// `6.1.0-56-amd64` → (6, 1); what cannot be read counts as new.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (u32::MAX, 0),
    }
}

/// The directories of this instance, and the room they have.
pub(super) fn places(patient: &Patient) -> Vec<DoctorRow> {
    let paths = &patient.paths;
    vec![
        directory("state directory", &paths.state_dir, "BANGER_STATE_DIR"),
        directory(
            "runtime directory",
            &paths.runtime_dir,
            "BANGER_RUNTIME_DIR",
        ),
        room(patient),
    ]
}

fn directory(what: &str, path: &Path, variable: &str) -> DoctorRow {
    let shown = path.display();
    let elsewhere = format!("remove it, or set {variable} to a directory that only you can enter");
    let Ok(seen) = std::fs::symlink_metadata(path) else {
        let seen = format!("{shown}: made when it is first needed");
        return DoctorRow::pass(AREA, what, seen);
    };
    if !seen.is_dir() {
        return DoctorRow::fail(AREA, what, format!("{shown} is no directory"), elsewhere);
    }
    if seen.uid() != rustix::process::geteuid().as_raw() {
        return DoctorRow::fail(
            AREA,
            what,
            format!("{shown} belongs to another user"),
            elsewhere,
        );
    }
    match seen.permissions().mode() & 0o777 {
        0o700 => DoctorRow::pass(AREA, what, shown.to_string()),
        mode => DoctorRow::warn(
            AREA,
            what,
            format!("{shown} may be entered by others (mode {mode:o})"),
            format!("chmod 700 {shown}"),
        ),
    }
}

fn room(patient: &Patient) -> DoctorRow {
    let (what, mut dir) = ("disk space", patient.core.site.vms_dir());
    while !dir.exists() && dir.pop() {}
    let shown = dir.display();
    let out = "banger vm list, then banger vm delete NAME; or BANGER_STATE_DIR on a larger disk";
    match patient.core.host.disk_space(&dir) {
        Ok((free, total)) => {
            let seen = format!("{} free of {} at {shown}", ByteSize(free), ByteSize(total));
            match pressure(free, total) {
                Pressure::Enough => DoctorRow::pass(AREA, what, seen),
                Pressure::Full => DoctorRow::fail(
                    AREA,
                    what,
                    format!("{seen}: too little, creates are refused and VMs held still"),
                    out,
                ),
            }
        }
        Err(error) => DoctorRow::fail(
            AREA,
            what,
            ApiError::of(Code::OperationFailed, &error).to_string(),
            out,
        ),
    }
}

/// The database.
pub(super) fn database(patient: &Patient) -> Vec<DoctorRow> {
    let what = "database";
    let row = match &patient.database {
        Database::Fresh => DoctorRow::pass(AREA, what, "made when it is first needed"),
        Database::Older => DoctorRow::pass(
            AREA,
            what,
            "of an older format; the daemon brings it up to date when it starts",
        ),
        Database::Unusable(why) => DoctorRow::fail(AREA, what, why, "banger recover"),
        Database::Open => match banger_converge::Ledger::vms(&patient.core.ledger) {
            Ok(vms) => DoctorRow::pass(AREA, what, format!("{} VMs", vms.len())),
            Err(error) => DoctorRow::fail(
                AREA,
                what,
                ApiError::of(Code::Unavailable, &error).to_string(),
                "banger recover",
            ),
        },
    };
    vec![row]
}

/// What the oracle says of the whole: nothing on this host without an owner, nothing missing.
pub(super) fn left_over(patient: &Patient) -> Vec<DoctorRow> {
    let what = "leaks";
    if !matches!(patient.database, Database::Open) {
        return Vec::new(); // whose things are whose, only the rows say
    }
    match whole(&patient.core.env(), BTreeMap::new()) {
        Ok(whole) => {
            let findings = check(&whole, &Acknowledged::default());
            // The zone is the daemon's, which is not asked.
            let told: Vec<_> = findings
                .iter()
                .filter(|f| !matches!(f, Finding::ZoneListsDead(_)))
                .map(of_finding)
                .collect();
            if told.is_empty() {
                let seen = "nothing of banger's is left on this machine without its VM";
                vec![DoctorRow::pass(AREA, what, seen)]
            } else {
                told
            }
        }
        Err(error) => vec![DoctorRow::warn(
            AREA,
            what,
            ApiError::of(Code::OperationFailed, &error).to_string(),
            "banger doctor --fix",
        )],
    }
}

fn of_finding(finding: &Finding) -> DoctorRow {
    let seen = finding.to_string();
    match finding {
        Finding::LostDisk { vm, .. } => DoctorRow::warn(
            AREA,
            "disks",
            seen,
            format!("put the file back, or banger vm delete {vm}"),
        ),
        Finding::LostDir(_) | Finding::LostVm(_) => DoctorRow::warn(
            AREA,
            "lost VMs",
            seen,
            "banger doctor --fix, or banger recover",
        ),
        Finding::Unsettled { .. } => DoctorRow::warn(
            AREA,
            "leaks",
            seen,
            "nothing, if a command is at work on it; else banger doctor --fix",
        ),
        _ => DoctorRow::warn(AREA, "leaks", seen, "banger doctor --fix"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_wire::api::Standing;

    #[test]
    fn releases_as_kernels_write_them() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), (6, 1));
        assert_eq!(version("5.4"), (5, 4));
        assert!(version("unknown") > OLDEST_KERNEL);
    }

    #[test]
    fn a_directory_is_ours_alone_or_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let look = |name: &str| directory("x", &at(name), "V");
        assert_eq!(look("absent").status, Standing::Pass);
        std::fs::create_dir(at("own")).unwrap();
        let mode = |m| std::fs::set_permissions(at("own"), PermissionsExt::from_mode(m)).unwrap();
        mode(0o755);
        assert_eq!(look("own").status, Standing::Warn);
        mode(0o700);
        assert_eq!(look("own").status, Standing::Pass);
        std::os::unix::fs::symlink(at("own"), at("link")).unwrap();
        assert_eq!(look("link").status, Standing::Fail);
    }
}
