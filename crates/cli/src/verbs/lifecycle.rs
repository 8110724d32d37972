//! `vm start|stop|kill|delete`: several VMs at once, good ones proceed, output in the order given.

use super::{print_json, print_text};
use crate::{
    args::{DeleteArgs, ReferencesArgs},
    connection,
    failure::{BANGER_FAILED, Failure},
    progress::Progress,
};
use banger_wire::api::{
    Client, ClientError, Event, VmDelete, VmKill, VmList, VmStart, VmStop, VmView, resolve,
};
use std::{future::Future, process::ExitCode};

/// Calls one method for each VM at the same time; failures are told as they come in the order given.
/// Gives the answers of the good ones, and the exit status of the whole.
///
/// References are resolved from one listing and duplicates dropped (R-CLI-2), so `dev` and its id are
/// one VM; what is not found is left to the daemon to refuse with its own words.
pub async fn each<R, F>(
    client: &Client,
    references: &[String],
    call: impl Fn(Client, String) -> F,
) -> (Vec<R>, ExitCode)
where
    R: Send + 'static,
    F: Future<Output = Result<R, ClientError>> + Send + 'static,
{
    let listed: Vec<VmView> = client
        .call(&VmList { running: false })
        .await
        .unwrap_or_default();
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
        .map(|vm| tokio::spawn(call(client.clone(), vm)))
        .collect();
    let (mut answers, mut status) = (Vec::new(), ExitCode::SUCCESS);
    for call in calls {
        match call.await {
            Ok(Ok(answer)) => answers.push(answer),
            Ok(Err(error)) => {
                Failure::from(error).report();
                status = ExitCode::from(BANGER_FAILED);
            }
            Err(error) => {
                Failure::new("a request was given up")
                    .caused_by(&error)
                    .report();
                status = ExitCode::from(BANGER_FAILED);
            }
        }
    }
    (answers, status)
}

fn print_views(vms: &[VmView], json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&vms);
    }
    print_text(
        &vms.iter()
            .map(|vm| format!("{}\n", vm.name))
            .collect::<String>(),
    )
}

/// Boots stopped VMs.
pub async fn start(args: ReferencesArgs) -> Result<ExitCode, Failure> {
    let client = connection::connect().await?;
    let (started, status) = each(&client, &args.vms, start_one).await;
    print_views(&started, args.json)?;
    Ok(status)
}

async fn start_one(client: Client, vm: String) -> Result<VmView, ClientError> {
    let mut events = client.events(&VmStart { vm: vm.clone() }).await?;
    let mut progress = Progress::default();
    while let Some(event) = events.next().await? {
        match event {
            Event::Done { vm: Some(vm) } => return Ok(*vm),
            other => progress.event(&other),
        }
    }
    Ok(client.call(&banger_wire::api::VmShow { vm }).await?.vm)
}

/// Powers VMs off in order.
pub async fn stop(args: ReferencesArgs) -> Result<ExitCode, Failure> {
    let client = connection::connect().await?;
    let (stopped, status) = each(&client, &args.vms, |client, vm| async move {
        client.call(&VmStop { vm }).await
    })
    .await;
    print_views(&stopped, args.json)?;
    Ok(status)
}

/// Ends VMs at once.
pub async fn kill(args: ReferencesArgs) -> Result<ExitCode, Failure> {
    let client = connection::connect().await?;
    let (killed, status) = each(&client, &args.vms, |client, vm| async move {
        client.call(&VmKill { vm }).await
    })
    .await;
    print_views(&killed, args.json)?;
    Ok(status)
}

/// Deletes VMs.
pub async fn delete(args: DeleteArgs) -> Result<ExitCode, Failure> {
    let client = connection::connect().await?;
    let force = args.force;
    let call = |client: Client, vm| async move { client.call(&VmDelete { vm, force }).await };
    let (deleted, status) = each(&client, &args.vms, call).await;
    print_text(
        &deleted
            .iter()
            .map(|vm| format!("{}\n", vm.name))
            .collect::<String>(),
    )?;
    Ok(status)
}
