//! `vm run`: a VM for a command or a shell.

use super::{create::create_vm, exec::command_of, print_text, pull::with_image};
use crate::{args::RunArgs, connection::Daemon, failure::Failure, stream, stream::Carried};
use banger_wire::{
    api::{Program, VmRun},
    guest::ExecId,
};
use std::process::ExitCode;

/// Creates a VM, runs the command or a shell in it, ends with its status.
pub async fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let program = match (args.entrypoint, args.command.is_empty()) {
        (true, _) => Program::Entrypoint,
        (false, true) => Program::Shell,
        (false, false) => Program::Argv,
    };
    if args.detach && program == Program::Shell {
        let vm = create_vm(&daemon, args.shape.into(), true).await?;
        print_text(&format!("{}\n", vm.name))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut command = command_of(&args.process, args.command)?;
    command.program = program;
    if args.detach {
        command.detach = true;
        command.tty = None;
    }
    let what = Carried {
        tty: command.tty.is_some(),
        id: ExecId::MAIN,
        vm: None,
        removes: args.rm,
        shell: program == Program::Shell,
        left_alone: args.detach,
    };
    let request = VmRun {
        shape: args.shape.into(),
        command,
        rm: args.rm,
    };
    let frames = with_image(&daemon, || daemon.frames(&request)).await?;
    stream::carry(&daemon, frames, what).await
}
