//! `vm run`: a VM for a command or a shell.

use super::{create::create_vm, exec::command_of, print_text};
use crate::{args::RunArgs, connection::Daemon, failure::Failure, stream, stream::Carried};
use banger_wire::{api::VmRun, guest::ExecId};
use std::process::ExitCode;

/// Creates a VM, runs the command or a shell in it, ends with its status.
pub async fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    if args.detach {
        let vm = create_vm(&daemon, args.shape.into(), true).await?;
        print_text(&format!("{}\n", vm.name))?;
        return Ok(ExitCode::SUCCESS);
    }
    let argv = if args.command.is_empty() {
        login_shell()
    } else {
        args.command
    };
    let command = command_of(&args.process, argv)?;
    let tty = command.tty.is_some();
    let request = VmRun {
        shape: args.shape.into(),
        command,
        rm: args.rm,
    };
    let what = Carried {
        tty,
        id: ExecId::MAIN,
        vm: None,
        removes: args.rm,
    };
    stream::carry(&daemon, daemon.frames(&request).await?, what).await
}

/// The best shell the image has, as a login shell.
fn login_shell() -> Vec<String> {
    let find = "if [ -x /bin/bash ]; then exec /bin/bash -l; else exec /bin/sh -l; fi";
    ["/bin/sh", "-c", find].map(str::to_owned).to_vec()
}
