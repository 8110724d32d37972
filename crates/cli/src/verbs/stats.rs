//! `vm stats`: what VMs use, once.

use super::{lifecycle::each, print_json, print_text};
use crate::{args::ReferencesArgs, connection::Daemon, failure::Failure, render};
use banger_wire::api::{StatsView, VmStats};
use std::{process::ExitCode, time::Duration};

/// Shows what VMs use.
pub async fn stats(args: ReferencesArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let (looked, status) = each(&daemon, &args.vms, |daemon, vm| async move {
        let request = VmStats {
            vm,
            interval_ms: None,
        };
        daemon.call(&request).await
    })
    .await;
    if args.json {
        if status == ExitCode::SUCCESS || !looked.is_empty() {
            print_json(&looked)?;
        }
    } else if !looked.is_empty() {
        let rows: Vec<_> = looked.iter().map(row).collect();
        print_text(&render::table(
            &[
                "NAME",
                "CPU",
                "LOAD",
                "MEMORY",
                "SWAP",
                "DISK /",
                "DISK /root",
                "RX / TX",
                "PROCS",
                "UPTIME",
                "VMM CPU",
                "VMM MEMORY",
            ],
            &rows,
        ))?;
    }
    Ok(status)
}

fn row(vm: &StatsView) -> Vec<String> {
    let guest = &vm.guest;
    let of = |used, total| format!("{} / {}", render::size(used), render::size(total));
    let disk = |path: &str| {
        let disk = guest.disks.iter().find(|disk| disk.path == path);
        disk.map_or_else(|| "-".to_owned(), |disk| of(disk.used, disk.total))
    };
    let sum = |count: fn(&banger_wire::guest::NetworkUse) -> u64| {
        render::size(guest.network.iter().map(count).fold(0, u64::saturating_add))
    };
    let mut row = vec![
        vm.name.to_string(),
        format!("{:.1}%", vm.cpu_percent),
        vm.load.map(|load| format!("{load:.2}")).join(" "),
        of(vm.memory_used, guest.memory_total),
        match guest.swap_total {
            0 => "-".to_owned(),
            total => of(guest.swap_used, total),
        },
        disk("/"),
        disk("/root"),
        format!("{} / {}", sum(|n| n.rx_bytes), sum(|n| n.tx_bytes)),
        guest.processes.to_string(),
        render::duration(Duration::from_millis(guest.uptime_ms)),
    ];
    match &vm.vmm {
        Some(vmm) => row.extend([format!("{:.1}%", vmm.cpu_percent), render::size(vmm.memory)]),
        None => row.extend(["-".to_owned(), "-".to_owned()]),
    }
    row
}
