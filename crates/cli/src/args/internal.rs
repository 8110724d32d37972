//! What other programs call.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `banger internal …`: for `ProxyCommand`, scripts and packages.
#[derive(Debug, Subcommand)]
pub enum InternalCommand {
    /// Connect stdin and stdout to a socket in a running VM
    #[command(after_help = CONNECT_EXAMPLES)]
    Connect(ConnectArgs),
    /// Print the reference of all verbs in Markdown
    Reference,
    /// Write man pages into a directory
    Man {
        /// Made if it is not there.
        dir: PathBuf,
    },
}

const CONNECT_EXAMPLES: &str = "Examples:\n  \
  banger internal connect dev               SSH, for a ProxyCommand\n  \
  banger internal connect dev 22            an sshd that runs in the VM\n  \
  banger internal connect dev 5432          a port of the guest's loopback\n  \
  banger internal connect dev.vm 80 --host 10.0.2.2\n  \
  banger internal connect dev --socket /run/docker.sock\n\n\
Exit status: 0 both directions have ended; 125 nobody listens there, or the connection broke.";

/// `internal connect`
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// VM: name, with or without .vm, id or unique id prefix
    pub vm: String,
    /// TCP port in the guest [default: the SSH server that banger is for the VM]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Whose port, as the guest sees it [default: its loopback]
    #[arg(long, value_name = "ADDRESS", requires = "port")]
    pub host: Option<std::net::IpAddr>,
    /// A Unix socket in the guest
    #[arg(long, value_name = "PATH", conflicts_with = "port")]
    pub socket: Option<PathBuf>,
}
