//! `operation …` and `events`.

use clap::{Args, Subcommand};

/// `banger operation …`
#[derive(Debug, Subcommand)]
pub enum OperationCommand {
    /// List operations: what runs, and what ended in the last minutes
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  banger operation list --json | jq '.[].stage'"
    )]
    List(super::JsonArgs),
    /// Show everything about operations
    #[command(after_help = "Example:\n  banger operation show 3f2a")]
    Show(OperationsArgs),
    /// Follow an operation to its end
    #[command(
        after_help = "Examples:\n  banger operation watch 3f2a\n  banger operation watch 3f2a --json | jq .stage\n\nExit status: 0 it succeeded; 125 it did not, stderr says why."
    )]
    Watch(OperationWatchArgs),
    /// Ask operations to end and be undone
    #[command(after_help = "Example:\n  banger operation cancel 3f2a")]
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
