//! How an image is run.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What asks a program to end where its image says nothing else: SIGTERM.
const TERM: u8 = 15;
/// The first real-time signal of a program, as C libraries count.
const RTMIN: u8 = 34;
/// The last one.
const RTMAX: u8 = 64;
/// Linux's signals from 1 on, without `SIG`.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// How an image is to be run, as its builder said it (OCI image specification, "Image Configuration").
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageConfig {
    /// Program that every command is an argument of.
    pub entrypoint: Vec<String>,
    /// Command, or arguments of the entrypoint.
    pub cmd: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Directory it begins in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// User, by name or number, perhaps with `:group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Signal that asks it to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Ports it listens on, `80/tcp`.
    pub exposed_ports: Vec<String>,
}

impl ImageConfig {
    /// The program and its arguments; `args`, if there are any, in place of the image's command. `None` if nothing
    /// names a program.
    pub fn program(&self, args: Vec<String>) -> Option<Vec<String>> {
        let args = match args.is_empty() {
            true => self.cmd.clone(),
            false => args,
        };
        let words: Vec<_> = self.entrypoint.iter().cloned().chain(args).collect();
        (!words.is_empty()).then_some(words)
    }

    /// The environment by name; of two entries the last counts, and what names no variable is left out.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let pairs = self.env.iter().filter_map(|entry| entry.split_once('='));
        pairs
            .filter(|(name, value)| {
                !name.is_empty() && ![name, value].iter().any(|t| t.contains('\0'))
            })
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The directory it begins in, from `/` on.
    pub fn directory(&self) -> Option<String> {
        let workdir = self.workdir.as_ref()?;
        Some(match workdir.starts_with('/') {
            true => workdir.clone(),
            false => format!("/{workdir}"),
        })
    }

    /// The number of the signal that asks it to end: `SIGQUIT`, `quit`, `3`, `SIGRTMIN+3`; SIGTERM if it says none
    /// that there is.
    pub fn stop_signal_number(&self) -> u8 {
        self.stop_signal.as_deref().and_then(signal).unwrap_or(TERM)
    }
}

fn signal(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(more) = name.strip_prefix("RTMIN") {
        return offset(more.strip_prefix('+'), more)
            .and_then(|n| RTMIN.checked_add(n))
            .filter(|n| *n <= RTMAX);
    }
    if let Some(less) = name.strip_prefix("RTMAX") {
        return offset(less.strip_prefix('-'), less)
            .and_then(|n| RTMAX.checked_sub(n))
            .filter(|n| *n >= RTMIN);
    }
    let place = SIGNALS.iter().position(|known| *known == name)?;
    u8::try_from(place + 1).ok()
}

/// What follows the sign; nothing at all is 0.
fn offset(signed: Option<&str>, all: &str) -> Option<u8> {
    match signed {
        Some(number) => number.parse().ok(),
        None => all.is_empty().then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().copied().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_take_the_place_of_the_command_and_never_of_the_entrypoint() {
        let image = |entrypoint: &[&str], cmd: &[&str]| ImageConfig {
            entrypoint: words(entrypoint),
            cmd: words(cmd),
            ..ImageConfig::default()
        };
        let both = image(&["/srv"], &["-p", "80"]);
        assert_eq!(both.program(vec![]), Some(words(&["/srv", "-p", "80"])));
        assert_eq!(both.program(words(&["-h"])), Some(words(&["/srv", "-h"])));
        let only = image(&[], &["sh"]);
        assert_eq!(only.program(vec![]), Some(words(&["sh"])));
        assert_eq!(only.program(words(&["ls"])), Some(words(&["ls"])));
        assert_eq!(image(&[], &[]).program(vec![]), None);
    }

    #[test]
    fn an_entry_that_names_no_variable_breaks_nothing() {
        let image = ImageConfig {
            env: words(&["A=1", "B", "=x", "A=2=3", "C=", "D=a\0b"]),
            ..ImageConfig::default()
        };
        let expected = [("A", "2=3"), ("C", "")];
        let expected = expected.map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(image.variables(), BTreeMap::from(expected));
    }

    #[test]
    fn signals_by_name_and_number() {
        let image = |text: &str| ImageConfig {
            stop_signal: Some(text.to_owned()),
            workdir: Some("srv".to_owned()),
            ..ImageConfig::default()
        };
        for (text, number) in [
            ("SIGQUIT", 3),
            ("quit", 3),
            ("9", 9),
            ("SIGWINCH", 28),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
            ("SIGRTMAX-1", 63),
            ("SIGNONE", TERM),
            ("0", TERM),
            ("65", TERM),
            ("SIGRTMIN+99", TERM),
            ("SIGRTMIN3", TERM),
        ] {
            assert_eq!(image(text).stop_signal_number(), number, "{text}");
        }
        assert_eq!(ImageConfig::default().stop_signal_number(), TERM);
        assert_eq!(image("").directory().as_deref(), Some("/srv"));
    }
}
