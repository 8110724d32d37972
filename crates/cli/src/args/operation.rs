//! `config` and `doctor`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

use super::JsonArgs;

/// `banger config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting with its value and where that comes from
    #[command(after_help = SHOW_EXAMPLES)]
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

const SHOW_EXAMPLES: &str = "Examples:\n  \
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

/// `doctor`
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub struct DoctorArgs {
    /// Repair what can be repaired: have the daemon take away what is left over and adopt lost VMs, then look again
    #[arg(long)]
    pub fix: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const DOCTOR_EXAMPLES: &str = "Examples:\n  \
  banger doctor\n  \
  banger doctor --fix\n  \
  banger doctor --json | jq '.[] | select(.status != \"pass\")'\n\n\
It reads only and needs no daemon. PASS: as it should be; WARN: works, and could be better;\n\
FAIL: VMs cannot be had before this is mended. --fix never touches a disk of yours.\n\n\
Exit status: 0 no FAIL; 1 one or more; 125 banger failed.";
