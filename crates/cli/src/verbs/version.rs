//! `version`: what is installed, without starting anything.

use super::{print_json, print_text};
use crate::{args::JsonArgs, connection::Daemon, failure::Failure};
use banger_wire::api::{GetVersion, Version, Versions};
use std::process::ExitCode;

/// Prints the version of the command line and of a running daemon.
pub async fn version(args: JsonArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?
        .call_if_running(&GetVersion {})
        .await?;
    let versions = Versions {
        client: Version::current(),
        daemon,
    };
    if args.json {
        print_json(&versions)?;
    } else {
        let client = &versions.client;
        let mut text = format!("banger  {} (api {})\n", client.version, client.api);
        text.push_str(&match &versions.daemon {
            Some(daemon) => format!("bangerd {} (api {})\n", daemon.version, daemon.api),
            None => "bangerd not running\n".to_owned(),
        });
        print_text(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}
