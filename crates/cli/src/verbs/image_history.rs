//! `image history`.

use super::{print_json, print_text};
use crate::{args::ImageHistoryArgs, connection::Daemon, failure::Failure, render};
use banger_wire::api::{HistoryView, ImageHistory};
use std::process::ExitCode;

/// Characters of a command that a line has room for; as docker has it.
const COMMAND_MAX: usize = 45;

/// Shows how an image was built, the newest step first.
pub async fn history(args: ImageHistoryArgs) -> Result<ExitCode, Failure> {
    let image = args.image;
    let steps = Daemon::of_this_user()?
        .call(&ImageHistory { image })
        .await?;
    if args.json {
        print_json(&steps)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = steps.iter().map(|step| row(step, args.no_trunc)).collect();
    let header = ["CREATED", "CREATED BY", "SIZE", "LAYER", "COMMENT"];
    print_text(&render::table(&header, &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn row(view: &HistoryView, whole: bool) -> Vec<String> {
    let text = |text: &Option<String>| line(text.as_deref().unwrap_or("-"));
    let layer = view.layer.as_ref();
    let layer = layer.and_then(|layer| layer.sha256.get(..12).map(str::to_owned));
    let command = text(&view.step.created_by);
    vec![
        text(&view.step.created),
        if whole { command } else { cut(&command) },
        render::size(view.size),
        layer.unwrap_or_else(|| "-".to_owned()),
        text(&view.step.comment),
    ]
}

/// On one line: it is a builder's text, and may have anything in it.
fn line(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cut(text: &str) -> String {
    if text.chars().count() <= COMMAND_MAX {
        return text.to_owned();
    }
    let kept: String = text.chars().take(COMMAND_MAX - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_one_short_line() {
        let long = format!("/bin/sh -c \x1b[31mapt-get\n\tinstall {}", "x".repeat(99));
        let shown = cut(&line(&long));
        assert_eq!(shown.chars().count(), COMMAND_MAX);
        assert!(
            shown.starts_with("/bin/sh -c [31mapt-get install xx"),
            "{shown}"
        );
        assert_eq!(cut(&line("short")), "short");
    }
}
