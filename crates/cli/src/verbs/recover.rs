//! `recover`: the database anew from the VM directories.

use super::{print_json, print_text, report_all};
use crate::{args::JsonArgs, connection::Daemon, failure::Failure};
use banger_wire::api::{Recover, RecoverView};
use std::process::ExitCode;

/// Rebuilds the database and says what came back.
pub async fn recover(args: JsonArgs) -> Result<ExitCode, Failure> {
    let answer = Daemon::of_this_user()?.call(&Recover {}).await?;
    if args.json {
        print_json(&answer)?;
    } else {
        print_text(&text(&answer))?;
    }
    Ok(report(&answer))
}

/// What came back, for a person.
pub fn text(answer: &RecoverView) -> String {
    let mut text = format!("{} VMs adopted\n", answer.adopted.len());
    if let Some(kept) = &answer.kept_database {
        text.push_str(&format!(
            "the damaged database is kept at {}\n",
            kept.display()
        ));
    }
    text
}

/// Tells what could not be adopted; the exit status of having tried.
pub fn report(answer: &RecoverView) -> ExitCode {
    report_all(answer.failed.iter().map(|failed| {
        let directory = failed.directory.display();
        Failure::new(format!("{directory} could not be adopted"))
            .because(&failed.message)
            .hint(format!(
                "mend it, or move {directory} away; then: banger recover"
            ))
    }))
}
