//! `vm list` and `ps`.

use super::{ports::published, print_each, print_json, print_text};
use crate::{args::ListArgs, connection::Daemon, failure::Failure, filter::is_meant, render};
use banger_wire::api::{VmList, VmView};
use std::process::ExitCode;

/// Lists VMs: all, or those alive.
pub async fn list(args: ListArgs, running: bool) -> Result<ExitCode, Failure> {
    let mut vms = Daemon::of_this_user()?.call(&VmList { running }).await?;
    vms.retain(|vm| is_meant(&args.filters, vm));
    if args.json {
        print_json(&vms)?;
    } else if args.quiet {
        print_each(vms.iter().map(|vm| vm.id))?;
    } else {
        let now = render::now();
        let rows: Vec<_> = vms.iter().map(|vm| row(vm, now)).collect();
        print_text(&render::table(
            &[
                "NAME",
                "ID",
                "STATE",
                "IMAGE",
                "VCPU",
                "MEMORY",
                "CREATED",
                "LAST USED",
                "PORTS",
            ],
            &rows,
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(vm: &VmView, now: u64) -> Vec<String> {
    vec![
        vm.name.to_string(),
        vm.id.to_string(),
        vm.state.to_string(),
        vm.image.clone(),
        vm.vcpus.to_string(),
        vm.memory.to_string(),
        render::age(now, vm.created_at),
        render::age(now, vm.last_used_at),
        vm.ports
            .iter()
            .map(published)
            .collect::<Vec<_>>()
            .join(", "),
    ]
}
