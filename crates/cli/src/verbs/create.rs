//! `vm create`: a VM to keep.

use super::{print_json, print_text, pull::with_image};
use crate::{
    args::{CreateArgs, ShapeArgs},
    connection::Daemon,
    failure::Failure,
    progress::until_done,
};
use banger_wire::api::{VmCreate, VmShape, VmView};
use std::process::ExitCode;

impl From<ShapeArgs> for VmShape {
    fn from(args: ShapeArgs) -> Self {
        VmShape {
            name: args.name,
            image: args.image,
            kernel: args.kernel,
            vcpus: args.vcpu,
            memory: args.memory,
            overlay_size: args.system_overlay_size,
            disk_size: args.disk_size,
            nat: args.nat.then_some(true),
            ports: args.publish.into_iter().flat_map(|p| p.0).collect(),
            init: args.init,
            force: args.force,
        }
    }
}

/// Creates and boots a VM; prints its name.
pub async fn create(args: CreateArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let vm = create_vm(&daemon, args.shape.into(), false).await?;
    if args.json {
        print_json(&vm)?;
    } else {
        print_text(&format!("{}\n", vm.name))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates and boots a VM with progress on stderr.
pub async fn create_vm(daemon: &Daemon, shape: VmShape, detached: bool) -> Result<VmView, Failure> {
    let request = VmCreate { shape, detached };
    with_image(daemon, || async {
        let events = daemon.events(&request).await?;
        until_done(events).await?.ok_or_else(|| {
            Failure::new("the daemon did not say which VM it made").hint("banger vm list")
        })
    })
    .await
}
