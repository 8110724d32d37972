//! `vm health`: are they well, and if not, why.

use super::{lifecycle::each, print_json, print_text};
use crate::{args::ReferencesArgs, connection::Daemon, failure::Failure, failure::tell, render};
use banger_wire::api::{HealthView, VmHealth};
use std::{process::ExitCode, time::Duration};

/// Exit status when a VM is not healthy; banger itself did what it was asked.
const NOT_HEALTHY: u8 = 1;

/// Asks VMs how they are.
pub async fn health(args: ReferencesArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let (asked, status) = each(&daemon, &args.vms, |daemon, vm| async move {
        daemon.call(&VmHealth { vm }).await
    })
    .await;
    if args.json {
        print_json(&asked)?;
    } else if !asked.is_empty() {
        let rows: Vec<_> = asked.iter().map(row).collect();
        print_text(&render::table(
            &[
                "NAME", "HEALTH", "STATE", "AGENT", "PROTOCOL", "UPTIME", "BOOT", "RTT", "CLOCK",
            ],
            &rows,
        ))?;
    }
    for vm in &asked {
        if let Some(reason) = &vm.reason {
            tell(&format!(
                "banger: VM '{}' is not healthy: {}",
                vm.name,
                render::plain(reason)
            ));
        }
        for warning in &vm.warnings {
            tell(&format!(
                "warning: VM '{}': {}",
                vm.name,
                render::plain(warning)
            ));
        }
    }
    if status == ExitCode::SUCCESS && asked.iter().any(|vm| !vm.healthy) {
        return Ok(ExitCode::from(NOT_HEALTHY));
    }
    Ok(status)
}

fn row(vm: &HealthView) -> Vec<String> {
    let mut row = vec![
        vm.name.to_string(),
        if vm.healthy { "healthy" } else { "unhealthy" }.to_owned(),
        vm.state.to_string(),
    ];
    match &vm.agent {
        Some(agent) => row.extend([
            render::plain(&agent.version),
            agent.protocol.to_string(),
            render::duration(Duration::from_millis(agent.uptime_ms)),
            // Enough to see that it is another one; all of it is in the JSON.
            render::plain(&agent.boot_nonce).chars().take(8).collect(),
            render::milliseconds(agent.round_trip_ms),
            match agent.clock_offset_ms {
                Some(offset) => format!("{offset:+.1} ms"),
                None => "-".to_owned(),
            },
        ]),
        None => row.extend(std::iter::repeat_n("-".to_owned(), 6)),
    }
    row
}
