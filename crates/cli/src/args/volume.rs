//! `-v`, which every user of containers tries once: refused with the reason and the way.

use clap::Args;
use std::convert::Infallible;

/// `-v` in every spelling; none can be given.
#[derive(Debug, Args)]
pub struct NoVolumes {
    /// Refused: a VM shares no directory with its host
    #[arg(
        short = 'v',
        long = "volume",
        alias = "mount",
        hide = true,
        num_args = 0..=1,
        default_missing_value = "",
        value_name = "HOST:GUEST",
        value_parser = refuse
    )]
    pub volumes: Vec<Infallible>,
}

fn refuse(text: &str) -> Result<Infallible, String> {
    let mut parts = text.splitn(3, ':');
    let (host, guest) = match (parts.next(), parts.next()) {
        (Some(host), Some(guest)) if !host.is_empty() && guest.starts_with('/') => (host, guest),
        _ => ("DIRECTORY", "/DIRECTORY"),
    };
    Err(format!(
        "a VM shares no directory with its host, so that nothing in it can reach your files; \
         copy them: banger vm cp {host} VM:{guest}, and back: banger vm cp VM:{guest} {host}"
    ))
}
