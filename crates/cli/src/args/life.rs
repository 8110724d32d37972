//! What the verbs about the life of VMs are given: wait, rename, prune.

use crate::complete;
use banger_model::{Span, VmName};
use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

pub const RESTART_EXAMPLES: &str = "Examples:\n  \
  banger vm restart dev\n  \
  banger vm restart $(banger vm list -q --filter state=running)\n\n\
In order: asked to power off, then booted; one that is stopped is booted. It is finished whoever\n\
waits for it. A daemon that ends in between leaves the VM stopped, and vm show says so.";

pub const WAIT_EXAMPLES: &str = "Examples:\n  \
  banger vm wait dev                                 until it is stopped\n  \
  banger vm wait dev web --for healthy --timeout 2m\n  \
  banger vm wait --for deleted dev && echo gone\n\n\
Prints the name of each VM that is as wanted, in the order given.\n\n\
Exit status: 0 all are; 1 one is not in time, or will not be: it was deleted, or its state is error;\n\
125 banger failed.";

pub const RENAME_EXAMPLES: &str = "Examples:\n  \
  banger vm rename calm-otter-07 dev\n\n\
A running VM runs on under its new name; its guest calls itself by it from the next start on.";

pub const PRUNE_EXAMPLES: &str = "Examples:\n  \
  banger vm prune                          asks before it removes anything\n  \
  banger vm prune --older-than 7d --force  not used for a week\n  \
  banger vm prune --dry-run --json\n\n\
VMs that are stopped go, disks and all; with them the logs of creates that failed, and cached files\n\
that nothing will read again. What runs, and images, stay (banger image delete).";

/// `vm wait`
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// VMs: names, ids or unique id prefixes of at least 3 digits
    #[arg(required = true, add = ArgValueCompleter::new(complete::vms))]
    pub vms: Vec<String>,
    /// What to wait for
    #[arg(long = "for", value_name = "STATE", value_enum, default_value_t = Wanted::Stopped)]
    pub wanted: Wanted,
    /// How long at most: 30s, 5m, 1h [default: for ever]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// It runs
    Running,
    /// It is stopped
    Stopped,
    /// It is gone
    Deleted,
    /// It runs and commands can run in it
    Healthy,
}

/// `vm rename`
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// VM: name, id or unique id prefix
    #[arg(add = ArgValueCompleter::new(complete::vms))]
    pub vm: String,
    /// Its new name: a-z, 0-9 and '-', 1 to 63 characters
    pub name: VmName,
    /// Print the VM as JSON
    #[arg(long)]
    pub json: bool,
}

/// `vm prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// All VMs that are stopped; the default, for scripts that say what they mean
    #[arg(long, conflicts_with = "older_than")]
    pub all_stopped: bool,
    /// Only what was not used for so long: 12h, 7d, 2w
    #[arg(long, value_name = "TIME")]
    pub older_than: Option<Span>,
    /// Say what would go, and remove nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
