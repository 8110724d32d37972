//! `vm stats`: what VMs use: once, again and again for programs, or live on a terminal (`stats_live`).

use super::{
    json_line,
    lifecycle::{each, outcome},
    print_json, print_now, print_text, stats_live,
};
use crate::{args::StatsArgs, connection::Daemon, failure::Failure, render, terminal};
use banger_model::Span;
use banger_wire::api::{StatsView, VmList, VmStats};
use std::{process::ExitCode, time::Duration};

/// Time between two looks when nobody says.
const INTERVAL: Duration = Duration::from_secs(2);

/// The columns of the table. Where there is not room for all, those of the highest number are left out first.
pub const COLUMNS: [(&str, u8); 12] = [
    ("NAME", 0),
    ("CPU", 1),
    ("LOAD", 9),
    ("MEMORY", 2),
    ("SWAP", 11),
    ("DISK /", 5),
    ("DISK /root", 6),
    ("RX / TX", 7),
    ("PROCS", 8),
    ("UPTIME", 10),
    ("VMM CPU", 4),
    ("VMM MEMORY", 3),
];

/// Shows what VMs use.
pub async fn stats(args: StatsArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let again = args.interval.map(Span::duration);
    if !args.json && !args.no_stream && terminal::is_interactive() {
        return stats_live::live(daemon, args.vms, again.unwrap_or(INTERVAL)).await;
    }
    match again {
        Some(interval) => repeat(&daemon, &args, interval).await,
        None => once(&daemon, &args).await,
    }
}

async fn once(daemon: &Daemon, args: &StatsArgs) -> Result<ExitCode, Failure> {
    let (looked, status) = look(daemon, &args.vms, None).await?;
    if args.json {
        print_json(&looked)?;
    } else if !looked.is_empty() || args.vms.is_empty() {
        print_text(&table(&looked))?;
    }
    Ok(status)
}

/// Looks every so often, until nobody reads it or nothing that was named can be looked at.
async fn repeat(
    daemon: &Daemon,
    args: &StatsArgs,
    interval: Duration,
) -> Result<ExitCode, Failure> {
    loop {
        let (looked, status) = look(daemon, &args.vms, Some(interval)).await?;
        if looked.is_empty() {
            if !args.vms.is_empty() {
                return Ok(status);
            }
            // Nothing runs, so nothing took its time.
            tokio::time::sleep(interval).await;
        }
        let text = if args.json {
            looked
                .iter()
                .map(json_line)
                .collect::<Result<String, _>>()?
        } else {
            table(&looked)
        };
        if !print_now(&text)? {
            return Ok(status);
        }
    }
}

/// Looks at these VMs, or at all that run, over this time.
async fn look(
    daemon: &Daemon,
    vms: &[String],
    over: Option<Duration>,
) -> Result<(Vec<StatsView>, ExitCode), Failure> {
    if !vms.is_empty() {
        let call = |daemon, vm| ask(daemon, vm, over);
        return Ok(each(daemon, vms, call).await);
    }
    let asked = of_all(daemon, over).await?;
    // One that has ended since the listing is none that runs.
    let looked: Vec<_> = asked.into_iter().filter_map(Result::ok).collect();
    Ok((looked, ExitCode::SUCCESS))
}

/// Looks at all that run.
pub async fn of_all(
    daemon: &Daemon,
    over: Option<Duration>,
) -> Result<Vec<Result<StatsView, Failure>>, Failure> {
    let running = daemon.call(&VmList { running: true }).await?;
    let ids = running.iter().map(|vm| vm.id.to_string()).collect();
    Ok(of_each(daemon, ids, over).await)
}

/// Looks at each of these at the same time; in their order.
pub async fn of_each(
    daemon: &Daemon,
    vms: Vec<String>,
    over: Option<Duration>,
) -> Vec<Result<StatsView, Failure>> {
    let asked: Vec<_> = vms
        .into_iter()
        .map(|vm| tokio::spawn(ask(daemon.clone(), vm, over)))
        .collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(outcome(answer).await);
    }
    answers
}

async fn ask(daemon: Daemon, vm: String, over: Option<Duration>) -> Result<StatsView, Failure> {
    let interval_ms = over.map(|over| u32::try_from(over.as_millis()).unwrap_or(u32::MAX));
    daemon.call(&VmStats { vm, interval_ms }).await
}

fn table(looked: &[StatsView]) -> String {
    let rows: Vec<_> = looked.iter().map(row).collect();
    render::table(&COLUMNS.map(|(name, _)| name), &rows)
}

/// A VM's cells, one for each of [`COLUMNS`].
pub fn row(vm: &StatsView) -> Vec<String> {
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
