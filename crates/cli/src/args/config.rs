//! `config`.

use super::JsonArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `banger config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting with its value and where that comes from
    #[command(after_help = CONFIG_SHOW_EXAMPLES)]
    Show(JsonArgs),
    /// Print the path of the configuration file
    #[command(after_help = "Example:\n  ${EDITOR:-vi} \"$(banger config path)\"")]
    Path,
    /// Say whether the configuration can be used
    #[command(after_help = CHECK_EXAMPLES)]
    Check(ConfigCheckArgs),
    /// Print the JSON Schema of the configuration file, for editors
    #[command(after_help = "Example:\n  banger config schema > config.schema.json")]
    Schema,
}

const CONFIG_SHOW_EXAMPLES: &str = "Examples:\n  \
  banger config show\n  \
  banger config show --json | jq -r '.[] | select(.origin == \"config\").key'\n\n\
ORIGIN: config, the file; host, derived from this host; builtin, banger's own default.\n\
The daemon reads the file at its start: after a change, `banger daemon stop`; VMs stay.";

const CHECK_EXAMPLES: &str = "Examples:\n  \
  banger config check\n  \
  banger config check ./new.toml && cp new.toml \"$(banger config path)\"\n\n\
Exit status: 0 it can be used (none is a configuration too); 125 not, stderr says why.";

/// `config check`
#[derive(Debug, Args)]
pub struct ConfigCheckArgs {
    /// The file [default: the one in use]
    pub file: Option<PathBuf>,
}
