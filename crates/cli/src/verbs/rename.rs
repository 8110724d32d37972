//! `vm rename`.

use super::{print_json, print_text};
use crate::{
    args::RenameArgs,
    connection::Daemon,
    failure::{Failure, tell},
};
use banger_wire::api::{VmRename, VmState};
use std::process::ExitCode;

/// Gives a VM another name; prints it.
pub async fn rename(args: RenameArgs) -> Result<ExitCode, Failure> {
    let request = VmRename {
        vm: args.vm,
        name: args.name,
    };
    let vm = Daemon::of_this_user()?.call(&request).await?;
    if args.json {
        print_json(&vm)?;
    } else {
        print_text(&format!("{}\n", vm.name))?;
    }
    if vm.state == VmState::Running {
        tell("banger: it runs; its guest calls itself by the new name from its next start on");
    }
    Ok(ExitCode::SUCCESS)
}
