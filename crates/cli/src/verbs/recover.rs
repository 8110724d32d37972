//! `recover`: the database anew from the VM directories.

use super::{print_json, print_text};
use crate::{
    args::JsonArgs,
    connection::Daemon,
    failure::{Failure, tell},
};
use banger_wire::api::Recover;
use std::process::ExitCode;

/// Rebuilds the database and says what came back.
pub async fn recover(args: JsonArgs) -> Result<ExitCode, Failure> {
    let answer = Daemon::of_this_user()?.call(&Recover {}).await?;
    if args.json {
        print_json(&answer)?;
    } else {
        print_text(&format!("{} VMs adopted\n", answer.adopted.len()))?;
        if let Some(kept) = &answer.kept_database {
            print_text(&format!(
                "the damaged database is kept at {}\n",
                kept.display()
            ))?;
        }
    }
    for failure in &answer.failed {
        tell(&format!(
            "banger: {} could not be adopted: {}",
            failure.directory.display(),
            failure.message
        ));
    }
    Ok(if answer.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(crate::failure::BANGER_FAILED)
    })
}
