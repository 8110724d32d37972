//! `vm prune`: what nobody uses goes, after a question.

use super::{print_json, print_text, report_all};
use crate::{
    args::PruneArgs,
    connection::Daemon,
    failure::{Failure, tell},
    render,
};
use banger_wire::api::{Pruned, PrunedFile, VmPrune};
use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
};

/// Says what is there to go, asks, removes it, and says what went.
pub async fn prune(args: PruneArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let mut request = VmPrune {
        older_than: args.older_than.map(|span| span.duration().as_secs()),
        vms: None,
        dry_run: true,
    };
    if args.dry_run {
        return told(&daemon.call(&request).await?, args.json);
    }
    if !args.force {
        somebody_is_there("banger vm prune --force; --dry-run says what would go")?;
        let found = daemon.call(&request).await?;
        if !is_empty(&found) && !agreed(&listed(&found), found.bytes)? {
            tell("nothing was removed");
            return Ok(ExitCode::SUCCESS);
        }
        // What has come to a stop meanwhile was not agreed to.
        request.vms = Some(found.vms.iter().map(|vm| vm.id).collect());
    }
    request.dry_run = false;
    told(&daemon.call(&request).await?, args.json)
}

fn is_empty(found: &Pruned) -> bool {
    found.vms.is_empty() && found.failed_logs.is_empty() && found.cache.is_empty()
}

/// Refuses to ask where nobody answers; `hint` says how to do without.
pub(super) fn somebody_is_there(hint: &str) -> Result<(), Failure> {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return Ok(());
    }
    let why = "nobody is there to say yes: stdin and stderr are not a terminal";
    Err(Failure::new(why).hint(hint))
}

/// Shows what would go and asks; only a yes is one.
pub(super) fn agreed(listed: &str, bytes: u64) -> Result<bool, Failure> {
    let size = render::size(bytes);
    let mut err = io::stderr();
    let mut line = String::new();
    write!(err, "{listed}remove all of it, {size}? [y/N] ")
        .and_then(|()| err.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut line))
        .map_err(|e| Failure::new("the terminal cannot be asked").caused_by(&e))?;
    Ok(matches!(
        line.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

fn told(answer: &Pruned, json: bool) -> Result<ExitCode, Failure> {
    if json {
        print_json(answer)?;
    } else {
        let size = render::size(answer.bytes);
        let sum = if answer.dry_run {
            "would free"
        } else {
            "freed"
        };
        print_text(&format!("{}{sum} {size}\n", listed(answer)))?;
    }
    let failures = answer.failures.iter().cloned();
    Ok(report_all(failures.map(Failure::from)))
}

fn listed(found: &Pruned) -> String {
    if is_empty(found) {
        return String::new();
    }
    let now = render::now();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for vm in &found.vms {
        rows.push(vec![
            "vm".to_owned(),
            vm.name.to_string(),
            render::size(vm.bytes),
            render::age(now, vm.last_used_at),
        ]);
    }
    let files = |kind: &'static str, files: &[PrunedFile]| -> Vec<Vec<String>> {
        let row = |file: &PrunedFile| {
            vec![
                kind.to_owned(),
                file.path.display().to_string(),
                render::size(file.bytes),
            ]
        };
        files.iter().map(row).collect()
    };
    rows.extend(files("logs", &found.failed_logs));
    rows.extend(files("cache", &found.cache));
    render::table(&["KIND", "NAME", "SIZE", "LAST USED"], &rows)
}
