//! `vm set`.

use crate::complete;
use banger_config::MOST_VCPUS;
use banger_model::ByteSize;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;

/// Examples of `vm set`.
pub const SET_EXAMPLES: &str = "Examples:\n  \
  banger vm stop dev; banger vm set dev --memory 4G --disk-size 64G; banger vm start dev\n  \
  banger vm set dev --nat                   at once, also while it runs\n\n\
A VM has what it was given from its next start on; its file systems grow with their disks. A disk\n\
never shrinks, and takes up only what is written to it.";

/// `vm set`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
pub struct SetArgs {
    /// VMs: names, ids or unique id prefixes of at least 3 digits
    #[arg(required = true, add = ArgValueCompleter::new(complete::vms))]
    pub vms: Vec<String>,
    /// Virtual CPUs
    #[arg(long, alias = "cpus", group = "change", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_VCPUS)))]
    pub vcpu: Option<u32>,
    /// Memory: 512M, 4G or MiB
    #[arg(long, short = 'm', group = "change")]
    pub memory: Option<ByteSize>,
    /// Size of the disk at /root; no smaller than it is
    #[arg(long, group = "change")]
    pub disk_size: Option<ByteSize>,
    /// Room for changes to the system; no less than there is
    #[arg(long, group = "change")]
    pub system_overlay_size: Option<ByteSize>,
    /// Let the guests reach beyond the host, and services on the host's loopback; at once
    #[arg(long, group = "change")]
    pub nat: bool,
    /// Let them no more; at once
    #[arg(long, group = "change", conflicts_with = "nat")]
    pub no_nat: bool,
    /// Promise more memory than the host has
    #[arg(long)]
    pub force: bool,
    /// Print the VMs as JSON
    #[arg(long)]
    pub json: bool,
}
