//! `events`: what happens, as it happens, over the ends of daemons.

use super::{json_line, print_now};
use crate::{args::EventsArgs, connection::Daemon, failure::Failure, failure::tell, time};
use banger_wire::api::{
    ClientError, ImageNotice, Notice, NoticeStream, OperationNotice, VmChange, VmNotice, What,
};
use std::{process::ExitCode, time::Duration};

/// How often the next daemon is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Prints what happens until nobody reads.
pub async fn events(args: EventsArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let mut stream = daemon.notices().await?;
    let mut again = false;
    loop {
        let mut notice = match stream.next().await {
            Ok(Some(notice)) => notice,
            Ok(None) | Err(ClientError::Lost(_) | ClientError::Cut) => {
                if !args.json {
                    tell("the daemon ended; this goes on with the next one");
                }
                stream = next_daemon(&daemon).await?;
                again = true;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if let (What::Listening { pid }, true) = (&notice.what, again) {
            notice.what = What::Reconnected { pid: *pid };
        }
        let line = match args.json {
            true => json_line(&notice)?,
            false => text(&notice) + "\n",
        };
        if !print_now(&line)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Waits for a daemon without starting one: who ended it may have wanted that, and whatever happens needs one anyway.
async fn next_daemon(daemon: &Daemon) -> Result<NoticeStream, Failure> {
    loop {
        if let Some(stream) = daemon.notices_if_running().await? {
            return Ok(stream);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A notice for a person.
fn text(notice: &Notice) -> String {
    let what = match &notice.what {
        What::Listening { pid } => format!("listening to the daemon (pid {pid})"),
        What::Reconnected { pid } => format!("reconnected: the daemon is another one (pid {pid})"),
        What::Lost { count } => format!("lost {count} events: this reader is too slow"),
        What::Vm(vm) => vm_text(vm),
        What::OperationBegan(op) => format!("operation {} began: {}", op.op_id, op.method),
        What::OperationEnded(op) => ended_text(op),
        What::ImageCreated(image) => image_text(image, "created"),
        What::ImageDeleted(image) => image_text(image, "deleted"),
        What::DaemonStopping { operations: 0 } => "the daemon is stopping".to_owned(),
        What::DaemonStopping { operations } => {
            format!("the daemon is stopping; {operations} operations are under way")
        }
    };
    format!("{}  {what}", time::utc(notice.at_ms))
}

fn vm_text(vm: &VmNotice) -> String {
    let change = match vm.change {
        VmChange::Created => "created",
        VmChange::Starting => "starting",
        VmChange::Running => "running",
        VmChange::Stopping => "stopping",
        VmChange::Stopped => "stopped",
        VmChange::Deleting => "being deleted",
        VmChange::Deleted => "deleted",
        VmChange::Error => "needs help",
        VmChange::Renamed => "renamed",
        VmChange::Paused => "paused",
        VmChange::Resumed => "goes on",
        VmChange::Adopted => "found again",
    };
    let reason = vm.reason.as_ref().map(|r| format!(": {}", r.text));
    let reason = reason.unwrap_or_default();
    format!("vm {} ({}) {change}{reason}", vm.name, vm.id)
}

fn ended_text(op: &OperationNotice) -> String {
    let error = op.error.as_ref().map(|e| format!(": {e}"));
    let error = error.unwrap_or_default();
    format!(
        "operation {} {}: {}{error}",
        op.op_id, op.outcome, op.method
    )
}

fn image_text(image: &ImageNotice, change: &str) -> String {
    match image.names[..] {
        [] => format!("image {} {change}", image.id),
        _ => format!("image {} ({}) {change}", image.names.join(","), image.id),
    }
}
