//! `operation …`, `events` and `daemon logs`.

use clap::{Args, Subcommand};

/// `banger operation …`
#[derive(Debug, Subcommand)]
pub enum OperationCommand {
    /// List operations: what runs, and what ended in the last minutes
    #[command(visible_alias = "ls")]
    List(super::JsonArgs),
    /// Show everything about operations
    Show(OperationsArgs),
    /// Follow an operation to its end
    #[command(
        after_help = "Examples:\n  banger operation watch 3f2a\n  banger operation watch 3f2a --json | jq .stage\n\nExit status: 0 it succeeded; 125 it did not, stderr says why."
    )]
    Watch(OperationWatchArgs),
    /// Ask operations to end and be undone
    Cancel(OperationsArgs),
}

/// Any number of operations.
#[derive(Debug, Args)]
pub struct OperationsArgs {
    /// Operations: ids or unique id prefixes of at least 3 digits
    #[arg(required = true, value_name = "ID")]
    pub operations: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `operation watch`
#[derive(Debug, Args)]
pub struct OperationWatchArgs {
    /// Operation: id or unique id prefix
    #[arg(value_name = "ID")]
    pub operation: String,
    /// Print each event as JSON on a line
    #[arg(long)]
    pub json: bool,
}

/// After the help of `events`.
pub const EVENTS_EXAMPLES: &str = "Examples:\n  \
  banger events\n  \
  banger events --json | jq 'select(.event == \"vm\") | .name, .change'\n\n\
What happens from now on: VMs, operations and images that come, change and go. It goes on when\n\
the daemon ends and says 'reconnected' when there is another one, and 'lost' when this reader was\n\
too slow for it: list again then, for what happened meanwhile is not told.";

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Print each event as JSON on a line
    #[arg(long)]
    pub json: bool,
}

/// After the help of `daemon logs`.
pub const DAEMON_LOGS_EXAMPLES: &str = "Examples:\n  \
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
