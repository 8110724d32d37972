//! `vm set`: another shape for stopped VMs.

use super::lifecycle::{each, print_views};
use crate::args::SetArgs;
use crate::connection::Daemon;
use crate::failure::{Failure, tell};
use banger_wire::api::VmSet;
use std::process::ExitCode;

/// Gives stopped VMs another shape.
pub async fn set(args: SetArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let wanted = VmSet {
        vm: String::new(),
        vcpus: args.vcpu,
        memory: args.memory,
        overlay_size: args.system_overlay_size,
        disk_size: args.disk_size,
        nat: args.nat.then_some(true).or(args.no_nat.then_some(false)),
        force: args.force,
    };
    let call = |daemon: Daemon, vm| {
        let request = VmSet {
            vm,
            ..wanted.clone()
        };
        async move { daemon.call(&request).await }
    };
    let (views, status) = each(&daemon, &args.vms, call).await;
    if args.nat && !views.is_empty() {
        tell(
            "banger: with --nat guests also reach services on this machine's loopback, at 10.0.2.2",
        );
    }
    print_views(&views, args.json)?;
    Ok(status)
}
