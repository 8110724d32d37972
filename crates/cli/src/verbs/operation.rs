//! `operation list|show|watch|cancel`.

use super::{Several, json_line, print_each, print_json, print_now, print_text};
use crate::{
    args::{JsonArgs, OperationWatchArgs, OperationsArgs},
    connection::Daemon,
    failure::Failure,
    progress::Progress,
    render,
};
use banger_model::OpId;
use banger_wire::api::{
    Event, MIN_PREFIX, Method, OperationCancel, OperationList, OperationShow, OperationView,
    OperationWatch,
};
use std::process::ExitCode;

/// Lists operations.
pub async fn list(args: JsonArgs) -> Result<ExitCode, Failure> {
    let all = Daemon::of_this_user()?.call(&OperationList {}).await?;
    if args.json {
        print_json(&all)?;
    } else {
        let now = render::now();
        let rows: Vec<_> = all.iter().map(|op| row(op, now)).collect();
        let header = ["ID", "METHOD", "VM", "OUTCOME", "STAGE", "STARTED", "TOOK"];
        print_text(&render::table(&header, &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(op: &OperationView, now: u64) -> Vec<String> {
    vec![
        op.id.to_string(),
        op.method.clone(),
        vm(op),
        op.outcome.to_string(),
        op.stage.clone(),
        render::age(now, op.started_at),
        render::age(op.ended_at.unwrap_or(now), op.started_at),
    ]
}

fn vm(op: &OperationView) -> String {
    match (&op.name, &op.vm) {
        (Some(name), _) => name.to_string(),
        (None, Some(id)) => id.to_string(),
        (None, None) => "-".to_owned(),
    }
}

/// The operations that are meant, each once; those that are not there are told.
async fn resolve(daemon: &Daemon, references: &[String]) -> Result<Several<OpId>, Failure> {
    let all = daemon.call(&OperationList {}).await?;
    let mut found = Several::new();
    for reference in references {
        match meant(reference, &all) {
            Ok(id) if found.good.contains(&id) => {}
            answer => {
                found.add(answer);
            }
        }
    }
    Ok(found)
}

/// Asks the same of each operation that is meant.
async fn each<M: Method<Reply = OperationView>>(
    references: &[String],
    request: fn(OpId) -> M,
) -> Result<Several<OperationView>, Failure> {
    let daemon = Daemon::of_this_user()?;
    let found = resolve(&daemon, references).await?;
    let mut answers = Several {
        good: Vec::new(),
        status: found.status,
    };
    for id in found.good {
        answers.add(daemon.call(&request(id)).await);
    }
    Ok(answers)
}

fn meant(reference: &str, all: &[OperationView]) -> Result<OpId, Failure> {
    if let Ok(id) = reference.parse() {
        return Ok(id);
    }
    let begins = |op: &&OperationView| op.id.to_string().starts_with(reference);
    let long = reference.len() >= MIN_PREFIX;
    let found: Vec<&OperationView> = all.iter().filter(begins).filter(|_| long).collect();
    match found[..] {
        [op] => Ok(op.id),
        [] => Err(Failure::new(format!(
            "no operation has an id that begins with '{reference}'"
        ))
        .hint("banger operation list")),
        _ => {
            let ids: Vec<String> = found.iter().map(|op| op.id.to_string()).collect();
            let message = format!("'{reference}' could be any of {}", ids.join(", "));
            Err(Failure::new(message).hint("more digits of it; banger operation list has them"))
        }
    }
}

/// Shows operations.
pub async fn show(args: OperationsArgs) -> Result<ExitCode, Failure> {
    let shown = each(&args.operations, |id| OperationShow { id }).await?;
    if args.json {
        print_json(&shown.good)?;
    } else {
        let now = render::now();
        let texts: Vec<String> = shown.good.iter().map(|op| text(op, now)).collect();
        print_text(&texts.join("\n"))?;
    }
    Ok(shown.status)
}

fn text(op: &OperationView, now: u64) -> String {
    let mut rows = vec![
        ("id", op.id.to_string()),
        ("method", op.method.clone()),
        ("vm", vm(op)),
        ("outcome", op.outcome.to_string()),
        ("stage", op.stage.clone()),
        ("detail", op.detail.clone()),
        (
            "started",
            format!("{} ago", render::age(now, op.started_at)),
        ),
        (
            "took",
            render::age(op.ended_at.unwrap_or(now), op.started_at),
        ),
    ];
    rows.extend(op.key.clone().map(|key| ("key", key)));
    if let Some(error) = &op.error {
        rows.push(("error", error.to_string()));
        rows.extend(error.hint.clone().map(|hint| ("hint", hint)));
    }
    rows.push(("log", format!("banger daemon logs --operation {}", op.id)));
    let line = |(key, value): &(&str, String)| format!("{key:<8} {value}\n");
    rows.iter().map(line).collect()
}

/// Follows an operation to its end.
pub async fn watch(args: OperationWatchArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let all = daemon.call(&OperationList {}).await?;
    let id = meant(&args.operation, &all)?;
    let mut events = daemon.events(&OperationWatch { id }).await?;
    let mut progress = Progress::default();
    loop {
        match events.next().await {
            Ok(Some(event)) if args.json => {
                if !print_now(&json_line(&event)?)? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Ok(Some(event)) => progress.event(&event),
            Ok(None) => return Ok(ExitCode::SUCCESS),
            Err(error) => {
                if let (true, banger_wire::api::ClientError::Api(error)) = (args.json, &error) {
                    let error = error.clone();
                    print_now(&json_line(&Event::Failed { error })?)?;
                }
                return Err(error.into());
            }
        }
    }
}

/// Asks operations to end.
pub async fn cancel(args: OperationsArgs) -> Result<ExitCode, Failure> {
    let asked = each(&args.operations, |id| OperationCancel { id }).await?;
    if args.json {
        print_json(&asked.good)?;
    } else {
        print_each(asked.good.iter().map(|op| op.id))?;
    }
    Ok(asked.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_meant_by_id_or_unique_beginning() {
        let view = |id: &str| {
            let text = format!(
                r#"{{"id":"{id}","method":"vm.start","stage":"boot","detail":"","outcome":"running","started_at":1}}"#
            );
            serde_json::from_str::<OperationView>(&text).unwrap()
        };
        let all = [view("00ab12cd34ef"), view("00ab99999999")];
        let find = |text: &str| meant(text, &all).ok().map(|id| id.to_string());
        assert_eq!(find("00ab1").as_deref(), Some("00ab12cd34ef"));
        // One that the daemon has forgotten is for it to refuse.
        assert_eq!(find("ffffffffffff").as_deref(), Some("ffffffffffff"));
        for bad in ["00ab", "00", "", "xyz"] {
            assert_eq!(find(bad), None, "{bad}");
            let told = meant(bad, &all).unwrap_err().text();
            assert!(told.contains("\nhint: "), "{told}");
        }
    }
}
