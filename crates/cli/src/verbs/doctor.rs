//! `doctor`: how this machine stands (R-OPS-1). The daemon's program looks, without a daemon; we tell.

use super::{print_json, print_text, recover};
use crate::{
    args::DoctorArgs,
    connection::{self, Daemon},
    failure::{Failure, tell},
    render, spawn,
};
use banger_wire::api::{DaemonStatus, DoctorRow, Recover, Standing, Version};
use std::process::ExitCode;

const PROGRAMS: &str = "programs";

/// Looks, mends if asked to and looks again, and tells.
pub async fn doctor(args: DoctorArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let mended = match args.fix {
        true => fix(&daemon).await?,
        false => ExitCode::SUCCESS,
    };
    let mut rows = programs(&daemon).await?;
    rows.extend(machine()?);
    if args.json {
        print_json(&rows)?;
    } else {
        print_text(&text(&rows))?;
    }
    if mended != ExitCode::SUCCESS {
        return Ok(mended);
    }
    let failed = rows.iter().any(|row| row.status == Standing::Fail);
    Ok(ExitCode::from(u8::from(failed)))
}

/// A daemon takes away what is left over when it starts; one that runs is asked to look again. Told as `recover` tells it,
/// but beside the rows, which stdout is for.
async fn fix(daemon: &Daemon) -> Result<ExitCode, Failure> {
    let done = daemon.call(&Recover {}).await?;
    tell(recover::text(&done).trim_end());
    Ok(recover::report(&done))
}

/// The programs, and the daemon if one runs.
async fn programs(daemon: &Daemon) -> Result<Vec<DoctorRow>, Failure> {
    let ours = Version::current();
    let mut rows = vec![DoctorRow::pass(
        PROGRAMS,
        "banger",
        format!("{} (api {})", ours.version, ours.api),
    )];
    rows.push(match spawn::daemon_binary() {
        Some(path) => DoctorRow::pass(PROGRAMS, "bangerd", path.display().to_string()),
        None => DoctorRow::fail(
            PROGRAMS,
            "bangerd",
            "neither beside banger nor in PATH",
            "./quickstart builds it; keep the programs in one directory",
        ),
    });
    let socket = connection::paths()?.socket();
    rows.push(match daemon.call_if_running(&DaemonStatus {}).await {
        Ok(None) => DoctorRow::pass(
            PROGRAMS,
            "daemon",
            "does not run; the next command starts it",
        ),
        Ok(Some(view)) => {
            let seen = format!("runs, pid {}, version {}", view.pid, view.version.version);
            match view.read_only {
                None => DoctorRow::pass(PROGRAMS, "daemon", seen),
                Some(why) => DoctorRow::fail(
                    PROGRAMS,
                    "daemon",
                    format!("{seen}, read-only: {why}"),
                    "banger recover",
                ),
            }
        }
        Err(error) => DoctorRow::fail(
            PROGRAMS,
            "daemon",
            format!("does not answer at {}: {}", socket.display(), error.text()),
            "banger daemon logs",
        ),
    });
    rows.push(ssh());
    Ok(rows)
}

/// The user's own `ssh`.
fn ssh() -> DoctorRow {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join("ssh").is_file()) {
        let seen = "no ssh in PATH: `banger vm ssh` cannot be used, `banger vm exec` can";
        return DoctorRow::warn(PROGRAMS, "ssh", seen, "apt install openssh-client");
    }
    let seen = if super::ssh::included() {
        "`ssh NAME.vm` and `banger vm ssh` work"
    } else {
        "`banger vm ssh` works; `ssh NAME.vm` too after banger ssh-config --install"
    };
    DoctorRow::pass(PROGRAMS, "ssh", seen)
}

/// What the daemon's program sees.
fn machine() -> Result<Vec<DoctorRow>, Failure> {
    let Some(binary) = spawn::daemon_binary() else {
        return Ok(Vec::new()); // told already
    };
    let cannot = || {
        Failure::new(format!("{} cannot look at this machine", binary.display()))
            .hint("./quickstart builds the programs anew; keep them in one directory")
    };
    let output = spawn::look_at_machine(&binary).map_err(|e| cannot().caused_by(&e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(match said.trim() {
            "" => cannot().because(&output.status.to_string()),
            said => cannot().because(said),
        });
    }
    serde_json::from_slice(&output.stdout).map_err(|e| cannot().caused_by(&e))
}

fn text(rows: &[DoctorRow]) -> String {
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let status = match row.status {
                Standing::Pass => "PASS",
                Standing::Warn => "WARN",
                Standing::Fail => "FAIL",
            };
            vec![
                status.to_owned(),
                row.area.clone(),
                row.what.clone(),
                render::plain(&row.seen),
            ]
        })
        .collect();
    let mut text = render::table(&["STATUS", "AREA", "CHECK", "SEEN"], &cells);
    let hints = rows
        .iter()
        .filter_map(|row| Some((row, row.hint.as_ref()?)));
    for (row, hint) in hints {
        text.push_str(&format!("hint: {}: {hint}\n", row.what));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_that_does_not_pass_has_its_way_out_told() {
        let rows = [
            DoctorRow::pass("vmm", "QEMU", "7.2"),
            DoctorRow::warn("vmm", "/dev/kvm", "absent", "load the module"),
        ];
        assert_eq!(
            text(&rows),
            "STATUS  AREA  CHECK     SEEN\n\
             PASS    vmm   QEMU      7.2\n\
             WARN    vmm   /dev/kvm  absent\n\
             hint: /dev/kvm: load the module\n"
        );
    }
}
