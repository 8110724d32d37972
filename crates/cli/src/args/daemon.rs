//! `daemon …`.

use super::JsonArgs;
use clap::{Args, Subcommand};

/// `banger daemon …`
#[derive(Debug, Subcommand)]
pub enum DaemonCommand {
    /// Is it running, and where
    #[command(after_help = DAEMON_STATUS_EXAMPLES)]
    Status(JsonArgs),
    /// End it; VMs keep running
    #[command(after_help = DAEMON_STOP_EXAMPLES)]
    Stop,
    /// Print its log
    #[command(after_help = DAEMON_LOGS_EXAMPLES)]
    Logs(DaemonLogsArgs),
    /// Print its metrics, as Prometheus reads them
    #[command(after_help = "Example:\n  banger daemon metrics | grep banger_")]
    Metrics,
}

const DAEMON_STATUS_EXAMPLES: &str = "Example:\n  \
  banger daemon status --json | jq .pid\n\n\
Starts nothing. Exit status: 0 it runs; 3 it does not.";

const DAEMON_STOP_EXAMPLES: &str = "Example:\n  \
  banger daemon stop\n\n\
What is under way gets 10 s to end, and is undone then. The next command starts another daemon.";

const DAEMON_LOGS_EXAMPLES: &str = "Examples:\n  \
  banger daemon logs -f\n  \
  banger daemon logs --operation 3f2a81c04411\n  \
  banger daemon logs --json | jq 'select(.level == \"ERROR\")'";

/// `daemon logs`
#[derive(Debug, Args)]
pub struct DaemonLogsArgs {
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Only what belongs to this operation (its id, or the beginning of it)
    #[arg(long, value_name = "ID", value_parser = id_beginning)]
    pub operation: Option<String>,
    /// Print each line as JSON
    #[arg(long)]
    pub json: bool,
}

fn id_beginning(text: &str) -> Result<String, String> {
    let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if hex && (3..=12).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("the id of an operation, or its beginning, is 3 to 12 lower-case hex digits".to_owned())
}
