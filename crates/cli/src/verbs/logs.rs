//! `vm logs`.

use super::print_text;
use crate::{args::LogsArgs, connection, failure::Failure};
use banger_wire::api::{LogKind, VmLogs};
use std::process::ExitCode;

/// Prints the end of a VM's console or VMM log.
pub async fn logs(args: LogsArgs) -> Result<ExitCode, Failure> {
    let log = if args.vmm {
        LogKind::Vmm
    } else {
        LogKind::Console
    };
    let answer = connection::connect()
        .await?
        .call(&VmLogs {
            vm: args.vm,
            log,
            tail: None,
        })
        .await?;
    print_text(&answer.text)?;
    Ok(ExitCode::SUCCESS)
}
