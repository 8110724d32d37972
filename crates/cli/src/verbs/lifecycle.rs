//! `vm start|stop|restart|kill|delete`: several VMs at once, good ones proceed, output in the order given.

use super::{Several, print_each, print_json};
use crate::{
    args::{DeleteArgs, ReferencesArgs},
    connection::Daemon,
    failure::Failure,
    progress::until_done,
};
use banger_wire::api::{
    Method, VmDelete, VmKill, VmList, VmRestart, VmShow, VmStart, VmStop, VmView, resolve,
};
use std::{future::Future, process::ExitCode};
use tokio::task::JoinHandle;

/// Calls one method for each VM at the same time; failures are told as they come in the order given.
/// Gives the answers of the good ones, and the exit status of the whole.
///
/// References are resolved from one listing and duplicates dropped (R-CLI-2), so `dev` and its id are
/// one VM; what is not found is left to the daemon to refuse with its own words.
pub async fn each<R, F>(
    daemon: &Daemon,
    references: &[String],
    call: impl Fn(Daemon, String) -> F,
) -> (Vec<R>, ExitCode)
where
    R: Send + 'static,
    F: Future<Output = Result<R, Failure>> + Send + 'static,
{
    each_then(daemon, references, call, |_| {}).await
}

/// Like [`each`], and does something with each answer when it and all before it are there.
pub async fn each_then<R, F>(
    daemon: &Daemon,
    references: &[String],
    call: impl Fn(Daemon, String) -> F,
    then: impl Fn(&R),
) -> (Vec<R>, ExitCode)
where
    R: Send + 'static,
    F: Future<Output = Result<R, Failure>> + Send + 'static,
{
    let listed: Vec<VmView> = match daemon.call(&VmList { running: false }).await {
        Ok(listed) => listed,
        // It would say the same of each.
        Err(failure) => return (Vec::new(), failure.report()),
    };
    let mut wanted: Vec<String> = Vec::new();
    for reference in references {
        let exact = resolve(reference, &listed, |vm| (vm.id, &vm.name))
            .map_or_else(|_| reference.clone(), |vm| vm.id.to_string());
        if !wanted.contains(&exact) {
            wanted.push(exact);
        }
    }
    let calls: Vec<_> = wanted
        .into_iter()
        .map(|vm| tokio::spawn(call(daemon.clone(), vm)))
        .collect();
    let mut answers = Several::new();
    for call in calls {
        if let Some(answer) = answers.add(outcome(call).await) {
            then(answer);
        }
    }
    (answers.good, answers.status)
}

/// What a request came to that was made beside others.
pub async fn outcome<R>(call: JoinHandle<Result<R, Failure>>) -> Result<R, Failure> {
    let given_up = |error| Err(Failure::new("a request was given up").caused_by(&error));
    call.await.unwrap_or_else(given_up)
}

pub fn print_views(vms: &[VmView], json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&vms);
    }
    print_each(vms.iter().map(|vm| &vm.name))
}

/// Boots stopped VMs.
pub async fn start(args: ReferencesArgs) -> Result<ExitCode, Failure> {
    up(args, |vm| VmStart { vm }).await
}

/// Stops VMs in order and boots them.
pub async fn restart(args: ReferencesArgs) -> Result<ExitCode, Failure> {
    up(args, |vm| VmRestart { vm }).await
}

/// Calls a method that boots a VM, and follows it to its end.
async fn up<M>(args: ReferencesArgs, request: fn(String) -> M) -> Result<ExitCode, Failure>
where
    M: Method + Send + Sync + 'static,
{
    let daemon = Daemon::of_this_user()?;
    let call = |daemon: Daemon, vm: String| async move {
        let events = daemon.events(&request(vm.clone())).await?;
        match until_done(events).await? {
            Some(view) => Ok(view),
            None => Ok(daemon.call(&VmShow { vm }).await?.vm),
        }
    };
    let (views, status) = each(&daemon, &args.vms, call).await;
    print_views(&views, args.json)?;
    Ok(status)
}

/// Powers VMs off in order.
pub async fn stop(args: ReferencesArgs) -> Result<ExitCode, Failure> {
    down(args, |vm| VmStop { vm }).await
}

/// Ends VMs at once.
pub async fn kill(args: ReferencesArgs) -> Result<ExitCode, Failure> {
    down(args, |vm| VmKill { vm }).await
}

/// Calls a method that leaves a VM as it shows it then.
async fn down<M>(args: ReferencesArgs, request: fn(String) -> M) -> Result<ExitCode, Failure>
where
    M: Method<Reply = VmView> + Send + Sync + 'static,
{
    let daemon = Daemon::of_this_user()?;
    let call = |daemon: Daemon, vm| async move { daemon.call(&request(vm)).await };
    let (views, status) = each(&daemon, &args.vms, call).await;
    print_views(&views, args.json)?;
    Ok(status)
}

/// Deletes VMs.
pub async fn delete(args: DeleteArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let force = args.force;
    let call = |daemon: Daemon, vm| async move { daemon.call(&VmDelete { vm, force }).await };
    let (deleted, status) = each(&daemon, &args.vms, call).await;
    if args.json {
        print_json(&deleted)?;
    } else {
        print_each(deleted.iter().map(|vm| &vm.name))?;
    }
    Ok(status)
}
