//! `vm logs`.

use super::print_text;
use crate::{args::LogsArgs, connection::Daemon, failure::Failure};
use banger_wire::api::{LogKind, VmLogs};
use std::process::ExitCode;

/// Prints the end of a VM's console or VMM log.
pub async fn logs(args: LogsArgs) -> Result<ExitCode, Failure> {
    let log = if args.vmm {
        LogKind::Vmm
    } else {
        LogKind::Console
    };
    let answer = Daemon::of_this_user()?
        .call(&VmLogs {
            vm: args.vm,
            log,
            tail: None,
        })
        .await?;
    print_text(&answer.text)?;
    Ok(ExitCode::SUCCESS)
}
