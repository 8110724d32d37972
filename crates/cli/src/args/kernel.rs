//! `banger kernel …`

use super::JsonArgs;
use crate::complete;
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;

/// `banger kernel …`
#[derive(Debug, Subcommand)]
pub enum KernelCommand {
    /// Make a kernel of a vmlinux or bzImage, a .deb, a directory, or the host's own
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(KernelImportArgs),
    /// Fetch a kernel package from this machine's package sources
    #[command(after_help = PULL_EXAMPLES)]
    Pull(KernelPullArgs),
    /// Build banger's own kernel of this machine's kernel source package; new VMs get it then
    #[command(after_help = BUILD_EXAMPLES)]
    Build(KernelBuildArgs),
    /// List kernels, or those that could be had
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(KernelListArgs),
    /// Show everything about kernels, and what they lack
    #[command(visible_alias = "inspect", after_help = SHOW_EXAMPLES)]
    Show(KernelsArgs),
    /// Delete kernels that no VM and no image refers to
    #[command(visible_alias = "rm", after_help = DELETE_EXAMPLES)]
    Delete(KernelsArgs),
}

const IMPORT_EXAMPLES: &str = "Examples:\n  \
  banger kernel import ./linux/vmlinux --name mine       one that you built\n  \
  banger kernel import ./linux-image-6.1.0_amd64.deb     a package of Debian or Ubuntu\n  \
  banger kernel import ./kernel                          a directory: vmlinux or vmlinuz, config, lib/modules/RELEASE\n  \
  banger kernel import --from-host --name host           what this machine runs\n  \
  banger kernel import --from-host=6.1.0-9-amd64         another one that is installed here\n\n\
What SOURCE is, is told by its content. A bzImage is unpacked (gzip, xz, zstd, lz4); modules may be plain or packed. An initrd \
is left out: banger makes its own. A kernel that lacks an option that banger needs is refused, and the option named.";

const PULL_EXAMPLES: &str = "Examples:\n  \
  banger kernel list --available\n  \
  banger kernel pull linux-image-cloud-amd64 --name cloud\n  \
  banger run --kernel cloud -- uname -r";

const BUILD_EXAMPLES: &str = "Examples:\n  \
  banger kernel build                            minutes of all processors, once; gives way to other work\n  \
  banger kernel build --config my.config --name mine\n  \
  banger kernel delete banger                    Debian's is the default again\n\n\
Everything is built in: VMs boot two to three times as fast. The same source, options and compiler give the same bytes; \
what was built once is not built again.";

const LIST_EXAMPLES: &str = "Examples:\n  \
  banger kernel list\n  \
  banger kernel list --available          of the package sources and of this machine";

const SHOW_EXAMPLES: &str = "Examples:\n  \
  banger kernel show debian-cloud\n  \
  banger kernel show mine --json | jq -r '.[].missing[].option'";

const DELETE_EXAMPLES: &str = "Example:\n  \
  banger kernel delete old";

/// Examples of `image set`.
pub const IMAGE_SET_EXAMPLES: &str = "Examples:\n  \
  banger image set app --kernel banger    unless `run --kernel` says otherwise\n  \
  banger image set app --kernel any       the default one again";

/// `image set`
#[derive(Debug, Args)]
pub struct ImageSetArgs {
    /// Image: name, id or unique id prefix
    #[arg(add = ArgValueCompleter::new(complete::images))]
    pub image: String,
    /// Kernel, by its name; `any` for the default one
    #[arg(long, add = ArgValueCompleter::new(complete::kernels))]
    pub kernel: String,
    /// Print the image as JSON
    #[arg(long)]
    pub json: bool,
}

/// `kernel import`
#[derive(Debug, Args)]
pub struct KernelImportArgs {
    /// A vmlinux or bzImage, a .deb, a directory, a tar of one, or `-` for any of them on stdin
    #[arg(
        value_name = "SOURCE",
        required_unless_present = "from_host",
        conflicts_with = "from_host"
    )]
    pub source: Option<std::path::PathBuf>,
    /// Take a kernel of this machine, from /boot and /lib/modules: the one that it runs, or of another release
    #[arg(long, value_name = "RELEASE", num_args = 0..=1, require_equals = true)]
    pub from_host: Option<Option<String>>,
    /// Name: a-z, 0-9, '.', '_' and '-', up to 63 characters [default: the source's, the release, or `host`]
    #[arg(long)]
    pub name: Option<String>,
    /// Take the place of a kernel of that name
    #[arg(long)]
    pub replace: bool,
    /// Take a kernel that lacks what banger needs
    #[arg(long)]
    pub force: bool,
    /// Print the kernel as JSON
    #[arg(long)]
    pub json: bool,
}

/// `kernel pull`
#[derive(Debug, Args)]
pub struct KernelPullArgs {
    /// A kernel of the catalog (catalog.source), or the package, or a meta package that stands for it
    pub package: String,
    /// Name: a-z, 0-9, '.', '_' and '-', up to 63 characters [default: the package's]
    #[arg(long)]
    pub name: Option<String>,
    /// Take the place of a kernel of that name
    #[arg(long)]
    pub replace: bool,
    /// Take a kernel that lacks what banger needs
    #[arg(long)]
    pub force: bool,
    /// Print the kernel as JSON
    #[arg(long)]
    pub json: bool,
}

/// `kernel build`
#[derive(Debug, Args)]
pub struct KernelBuildArgs {
    /// A file with further options, CONFIG_X=y on a line; they go before banger's own
    #[arg(long, value_name = "FRAGMENT")]
    pub config: Option<std::path::PathBuf>,
    /// Name: a-z, 0-9, '.', '_' and '-', up to 63 characters [default: banger]
    #[arg(long)]
    pub name: Option<String>,
    /// Compilers at a time [default: as many as there are processors]
    #[arg(long, short = 'j', value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// Print the kernel as JSON
    #[arg(long)]
    pub json: bool,
}

/// `kernel list`
#[derive(Debug, Args)]
pub struct KernelListArgs {
    /// Those that could be had instead
    #[arg(long)]
    pub available: bool,
    /// Form.
    #[command(flatten)]
    pub form: JsonArgs,
}

/// Any number of kernels.
#[derive(Debug, Args)]
pub struct KernelsArgs {
    /// Kernels, by their names
    #[arg(required = true, value_name = "KERNEL", add = ArgValueCompleter::new(complete::kernels))]
    pub kernels: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
