//! `internal reference|man`: the command line described, made from what it is parsed with.

use super::print_text;
use crate::{args::Cli, failure::Failure};
use clap::{Command, CommandFactory};
use std::{fmt::Write as _, fs, path::Path, process::ExitCode};

/// Width of the help texts in the reference, whatever terminal it is made on.
const WIDTH: usize = 100;

/// Prints the reference of all verbs in Markdown.
pub fn reference() -> Result<ExitCode, Failure> {
    print_text(&markdown())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a man page for each verb.
pub fn man(dir: &Path) -> Result<ExitCode, Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(format!("man pages cannot be written to {}", dir.display())).caused_by(&e)
    };
    fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

fn markdown() -> String {
    let mut root = Cli::command().term_width(WIDTH);
    root.build();
    let mut text = String::from(
        "# The command line\n\n\
         Made by `cargo xtask generate` from the definitions that the arguments are parsed with: every verb and what its\n\
         `--help` says.\n",
    );
    let all = commands(&root);
    for command in &all {
        let name = name(command);
        let _ = writeln!(text, "\n- [{name}](#{})", name.replace(' ', "-"));
        // One list, not one for each entry.
        text.truncate(text.len() - 1);
    }
    text.push('\n');
    for mut command in all {
        let help = command.render_help().to_string();
        let _ = writeln!(text, "\n## {}\n", name(&command));
        let _ = writeln!(text, "```text\n{}\n```", help.trim_end());
    }
    text
}

/// A command and everything below it that is shown.
fn commands(command: &Command) -> Vec<Command> {
    let below = command.get_subcommands().filter(|c| !c.is_hide_set());
    let below = below.flat_map(commands);
    std::iter::once(command.clone()).chain(below).collect()
}

fn name(command: &Command) -> String {
    command
        .get_bin_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verbs() -> Vec<Command> {
        let mut root = Cli::command();
        root.build();
        let all = commands(&root).into_iter();
        all.filter(|c| !c.has_subcommands()).collect()
    }

    /// The definitions contradict nowhere.
    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    /// R-CLI-2: whoever asks for help sees how a verb is used.
    #[test]
    fn every_verb_has_examples() {
        let verbs = verbs();
        assert!(verbs.len() > 25, "{}", verbs.len());
        for verb in verbs {
            let help = verb.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let example = name(&verb);
            let short = example.replace("banger vm run", "banger run");
            assert!(
                help.starts_with("Example")
                    && (help.contains(&example)
                        || help.contains(&short)
                        || help.contains(&example.replace("banger run", "banger vm run"))),
                "{}: {help}",
                name(&verb)
            );
        }
    }

    #[test]
    fn the_reference_has_every_verb_and_nothing_hidden() {
        let text = markdown();
        for verb in verbs() {
            assert!(
                text.contains(&format!("\n## {}\n", name(&verb))),
                "{}",
                name(&verb)
            );
        }
        assert!(!text.contains("internal") && !text.contains("--volume"));
        assert!(text.lines().all(|line| line.chars().count() <= 120));
    }
}
