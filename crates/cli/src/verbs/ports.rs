//! `vm ports`: what listens in a VM.

use super::{print_json, print_text};
use crate::{args::PortsArgs, connection::Daemon, failure::Failure, failure::tell, render};
use banger_wire::{api::VmPorts, guest::ListeningSocket};
use std::process::ExitCode;

/// Lists the sockets in a VM that wait for others.
pub async fn ports(args: PortsArgs) -> Result<ExitCode, Failure> {
    let answer = Daemon::of_this_user()?
        .call(&VmPorts { vm: args.vm })
        .await?;
    if args.json {
        print_json(&answer.ports)?;
    } else {
        let rows: Vec<_> = answer.ports.iter().map(row).collect();
        let header = ["PROTO", "ADDRESS", "PORT", "PROCESS", "PID", "UID"];
        print_text(&render::table(&header, &rows))?;
    }
    if answer.truncated {
        tell(
            "banger: there is more in the guest than was looked at: sockets or owners may be missing",
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn row(socket: &ListeningSocket) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        socket.protocol.to_string(),
        socket.address.clone(),
        socket.port.to_string(),
        or_dash(socket.process.as_deref().map(render::plain)),
        or_dash(socket.pid.map(|pid| pid.to_string())),
        socket.uid.to_string(),
    ]
}
