//! `vm show`.

use super::{image::run_as, lifecycle::each, ports::published, print_json, print_text};
use crate::{args::ReferencesArgs, connection::Daemon, failure::Failure};
use banger_wire::api::{VmDetail, VmShow};
use std::process::ExitCode;

/// Shows everything about VMs.
pub async fn show(args: ReferencesArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let (shown, status) = each(&daemon, &args.vms, |daemon, vm| async move {
        daemon.call(&VmShow { vm }).await
    })
    .await;
    if args.json {
        print_json(&shown)?;
    } else {
        for vm in &shown {
            print_text(&text(vm))?;
        }
    }
    Ok(status)
}

fn text(detail: &VmDetail) -> String {
    let vm = &detail.vm;
    let mut lines = vec![
        ("name", vm.name.to_string()),
        ("id", vm.id.to_string()),
        ("state", vm.state.to_string()),
    ];
    lines.extend(vm.reason.as_ref().map(|r| ("reason", r.text.clone())));
    lines.extend(vm.ports.iter().map(|port| ("published", published(port))));
    lines.extend([
        ("image", format!("{} ({})", vm.image, detail.image_id)),
        ("kernel", vm.kernel.clone()),
        ("init", vm.init.to_string()),
        ("vcpus", vm.vcpus.to_string()),
        ("memory", vm.memory.to_string()),
        ("disk at /root", vm.disk_size.to_string()),
        ("system disk", vm.overlay_size.to_string()),
        ("address", detail.lease.ip.to_string()),
        ("directory", detail.runtime.vm_dir.display().to_string()),
        ("console", detail.runtime.log_path.display().to_string()),
    ]);
    lines.extend(
        detail
            .last_error
            .as_ref()
            .map(|e| ("last error", e.clone())),
    );
    if let Some(agent) = &detail.agent {
        lines.push(("agent", agent.version.clone()));
        lines.extend(agent.warnings.iter().map(|w| ("guest warning", w.clone())));
    }
    let mut text: String = lines
        .into_iter()
        .map(|(key, value)| format!("{key:<14} {value}\n"))
        .collect();
    let of_image = detail.image_config.as_ref().map(run_as);
    for (key, value) in of_image.unwrap_or_default() {
        text.push_str(&format!("{:<17} {value}\n", format!("image {key}")));
    }
    text
}
