//! `vm wait`: until VMs are as wanted.

use super::{lifecycle::each_then, print_json, print_text};
use crate::{
    args::{WaitArgs, Wanted},
    connection::Daemon,
    failure::{Failure, tell},
    render,
};
use banger_model::Span;
use banger_wire::api::{MAX_WAIT_MS, VmState, VmWait, WaitFor, WaitView};
use std::{process::ExitCode, time::Instant};

/// Exit status when a VM is not as wanted; banger itself did what it was asked.
const NOT_REACHED: u8 = 1;

impl From<Wanted> for WaitFor {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Running => WaitFor::Running,
            Wanted::Stopped => WaitFor::Stopped,
            Wanted::Deleted => WaitFor::Deleted,
            Wanted::Healthy => WaitFor::Healthy,
        }
    }
}

/// Waits for each of the VMs; prints their names in the order given, each as soon as it can be.
pub async fn wait(args: WaitArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let (wanted, began, limit) = (args.wanted.into(), Instant::now(), args.timeout);
    let call = |daemon, vm: String| async move {
        let view = wait_one(daemon, &vm, wanted, began, limit).await?;
        Ok((vm, view))
    };
    let then = |(vm, view): &(String, WaitView)| {
        if !view.reached {
            tell(&not_reached(vm, view, wanted, limit));
        } else if !args.json {
            // A reader that left misses nothing but this.
            let _ = print_text(&format!("{}\n", called(vm, view)));
        }
    };
    let (waited, status) = each_then(&daemon, &args.vms, call, then).await;
    let views: Vec<WaitView> = waited.into_iter().map(|(_, view)| view).collect();
    if args.json {
        print_json(&views)?;
    }
    if status == ExitCode::SUCCESS && views.iter().any(|view| !view.reached) {
        return Ok(ExitCode::from(NOT_REACHED));
    }
    Ok(status)
}

/// Asks again and again: one answer takes a minute at most, and the daemon may be another one each time.
async fn wait_one(
    daemon: Daemon,
    vm: &str,
    wanted: WaitFor,
    began: Instant,
    limit: Option<Span>,
) -> Result<WaitView, Failure> {
    loop {
        let left = limit.map(|limit| limit.duration().saturating_sub(began.elapsed()).as_millis());
        let timeout_ms = left.map_or(MAX_WAIT_MS, |left| {
            u32::try_from(left).unwrap_or(MAX_WAIT_MS).min(MAX_WAIT_MS)
        });
        let request = VmWait {
            vm: vm.to_owned(),
            wanted,
            timeout_ms,
        };
        let mut view = daemon.call(&request).await?;
        if view.name.is_none() {
            // Nobody knows it any more, but by what we were given.
            view.name = vm.parse().ok();
        }
        let over = limit.is_some_and(|limit| began.elapsed() >= limit.duration());
        // Gone, or fenced: neither changes by itself.
        let fenced = view.state == Some(VmState::Error) && wanted != WaitFor::Deleted;
        if view.reached || view.state.is_none() || fenced || over {
            return Ok(view);
        }
    }
}

fn called<'a>(vm: &'a str, view: &'a WaitView) -> &'a str {
    view.name.as_ref().map_or(vm, |name| name.as_str())
}

fn not_reached(vm: &str, view: &WaitView, wanted: WaitFor, limit: Option<Span>) -> String {
    let name = called(vm, view);
    let why = view.reason.as_deref().map(render::plain);
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    match (view.state, limit) {
        (None, _) => format!("banger: VM '{name}' was deleted; it will not be {wanted}"),
        (Some(state), Some(limit)) => {
            format!("banger: VM '{name}' is not {wanted} after {limit}, it is {state}{why}")
        }
        (Some(state), None) => format!("banger: VM '{name}' is not {wanted}, it is {state}{why}"),
    }
}
