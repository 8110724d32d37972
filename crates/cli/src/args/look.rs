//! What the verbs that look at VMs are given: list, health, ports, stats.

use crate::{complete, filter::Filter};
use banger_model::Span;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;

pub const HEALTH_EXAMPLES: &str = "Examples:\n  \
  banger vm health dev && echo well\n  \
  banger vm health dev web --json\n\n\
RTT is the time of a question and its answer; CLOCK is the guest's clock less the host's.\n\
Warnings of the guest are on stderr and change no exit status.\n\n\
Exit status: 0 all are healthy; 1 one is not, stderr says why; 125 banger failed.";

pub const PORTS_EXAMPLES: &str = "Examples:\n  \
  banger vm ports dev\n  \
  banger vm ports dev --json | jq '.[] | select(.protocol == \"tcp\").port'\n\n\
TCP sockets that listen and UDP sockets without a peer, of all processes in the guest; the\n\
address '*' is 0.0.0.0 and :: of one process.";

pub const STATS_EXAMPLES: &str = "Examples:\n  \
  banger vm stats                          what runs, anew every 2 s; q ends it\n  \
  banger vm stats dev web --no-stream\n  \
  banger vm stats dev web --json | jq '.[] | {name, cpu_percent, memory_used}'\n  \
  banger vm stats --json --interval 5s     a line of JSON for each VM, every 5 s\n\n\
Where stdin or stdout is no terminal, or with --json, it looks once unless --interval is given.\n\
CPU is measured between two looks, for a single one over a quarter of a second; 100% is one CPU.\n\
VMM CPU and VMM MEMORY are what the VM costs the host.";

/// `vm list`, `ps`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print ids only
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
    /// Only what is so: state=STATE, name=PART, image=NAME; several of one kind are alternatives
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<Filter>,
}

/// `vm stats`
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// VMs: names, ids or unique id prefixes of at least 3 digits [default: all that run]
    #[arg(add = ArgValueCompleter::new(complete::running))]
    pub vms: Vec<String>,
    /// Look once
    #[arg(long, conflicts_with = "interval")]
    pub no_stream: bool,
    /// Time between two looks: 1s to 10s [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub interval: Option<Span>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The daemon measures over so long itself.
fn interval(text: &str) -> Result<Span, String> {
    let span: Span = text
        .parse()
        .map_err(|e: banger_model::SpanError| e.to_string())?;
    match span.duration().as_secs() {
        1..=10 => Ok(span),
        _ => Err(format!("an interval takes 1s to 10s, not {span}")),
    }
}
