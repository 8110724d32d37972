//! The command line as clap sees it. One struct per verb; the verbs themselves are in `verbs/`.

mod completion;
mod config;
mod daemon;
mod doctor;
mod examples;
mod image_life;
mod internal;
mod kernel;
mod life;
mod look;
mod operation;
mod set;
mod ssh;
mod volume;

pub use completion::*;
pub use config::*;
pub use daemon::*;
pub use doctor::*;
use examples::*;
pub use image_life::*;
pub use internal::*;
pub use kernel::*;
pub use life::*;
pub use look::*;
pub use operation::*;
pub use set::*;
pub use ssh::*;
pub use volume::NoVolumes;

use crate::complete;
use banger_config::MOST_VCPUS;
use banger_model::{ByteSize, Init, PortError, PortWish, VmName, parse_publish};
use clap::{Args, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use std::ffi::OsString;
use std::path::PathBuf;

/// Throw-away Linux machines for developers and coding agents.
#[derive(Debug, Parser)]
#[command(
    name = "banger",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(after_help = "Examples:\n  \
  banger run                                a shell in a new VM\n  \
  banger run --rm -- uname -a               one command, then the VM is gone\n  \
  banger vm create --name dev               a VM to keep\n  \
  banger vm cp src dev:                     files to it\n  \
  banger vm exec dev -- make test           a command in it\n  \
  banger ps                                 what runs")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Top-level verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, use and delete VMs
    #[command(subcommand)]
    Vm(VmCommand),
    /// Short for `vm run`
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// List running VMs
    #[command(after_help = PS_EXAMPLES)]
    Ps(ListArgs),
    /// Pull, import, list and delete images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Pull, import, list and delete the kernels that VMs boot
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// What runs in the background, and what became of it
    #[command(subcommand)]
    Operation(OperationCommand),
    /// Print what happens, as it happens
    #[command(after_help = EVENTS_EXAMPLES)]
    Events(EventsArgs),
    /// The background daemon
    #[command(subcommand)]
    Daemon(DaemonCommand),
    /// Show and check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say how this machine stands, and the way out of what is wrong
    Doctor(DoctorArgs),
    /// Make `ssh NAME.vm` work, in your own ssh and what uses it
    #[command(after_help = SSH_CONFIG_EXAMPLES)]
    SshConfig(SshConfigArgs),
    /// Rebuild the state database from the VM directories
    #[command(after_help = RECOVER_EXAMPLES)]
    Recover(JsonArgs),
    /// Print the versions of banger's programs
    #[command(after_help = VERSION_EXAMPLES)]
    Version(JsonArgs),
    /// Print what makes a shell complete banger's lines
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// What other programs call
    #[command(subcommand, hide = true)]
    Internal(InternalCommand),
}

/// `banger vm …`
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// Create a VM and run a command or a shell in it
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Create a VM and boot it
    #[command(after_help = "Example:\n  banger vm create --name dev --memory 2G --vcpu 2")]
    Create(CreateArgs),
    /// List all VMs
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show everything about VMs
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ReferencesArgs),
    /// Run a command in a running VM
    #[command(
        after_help = "Examples:\n  banger vm exec dev -- ls -l /root\n  tar c src | banger vm exec dev -- tar x -C /root\n  banger vm exec -d dev -- make -C /root/repo      goes on without us\n\nA command is taken up again by itself when the daemon ends; not one byte is lost."
    )]
    Exec(ExecArgs),
    /// Enter a running VM with your own ssh
    #[command(after_help = SSH_EXAMPLES)]
    Ssh(SshArgs),
    /// Copy files into a running VM, or out of any
    #[command(override_usage = CP_USAGE, after_help = CP_EXAMPLES)]
    Cp(CpArgs),
    /// Boot stopped VMs
    #[command(after_help = START_EXAMPLES)]
    Start(ReferencesArgs),
    /// Power VMs off in order; their disks stay
    #[command(after_help = STOP_EXAMPLES)]
    Stop(ReferencesArgs),
    /// Stop VMs in order and boot them again
    #[command(after_help = RESTART_EXAMPLES)]
    Restart(ReferencesArgs),
    /// End VMs at once; their disks stay
    #[command(after_help = KILL_EXAMPLES)]
    Kill(ReferencesArgs),
    /// Give stopped VMs other CPUs, memory, or larger disks; any VM another network
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArgs),
    /// Delete VMs, disks and all
    #[command(visible_alias = "rm", after_help = DELETE_EXAMPLES)]
    Delete(DeleteArgs),
    /// Wait until VMs run, are stopped, or are gone
    #[command(after_help = WAIT_EXAMPLES)]
    Wait(WaitArgs),
    /// Give a VM another name
    #[command(after_help = RENAME_EXAMPLES)]
    Rename(RenameArgs),
    /// Delete what is stopped, and what is left of what failed
    #[command(after_help = PRUNE_EXAMPLES)]
    Prune(PruneArgs),
    /// Print a VM's console output
    #[command(after_help = LOGS_EXAMPLES)]
    Logs(LogsArgs),
    /// Ask running VMs how they are
    #[command(after_help = HEALTH_EXAMPLES)]
    Health(ReferencesArgs),
    /// List what listens in a VM
    #[command(after_help = PORTS_EXAMPLES)]
    Ports(PortsArgs),
    /// Show what running VMs use: CPU, memory, disks, network
    #[command(after_help = STATS_EXAMPLES)]
    Stats(StatsArgs),
}

const RUN_EXAMPLES: &str = "Examples:\n  \
  banger vm run                                   a shell; the VM stays\n  \
  banger vm run --rm -- sh -c 'cat; exit 42' <file   stdin in, exit status out\n  \
  banger vm run --name dev -d                     boot only, in the background\n  \
  banger vm run -p 8080:80 -- ./server            http://127.0.0.1:8080 is port 80 of the guest\n  \
  banger vm run -d -p 8080:80 --image app --entrypoint -u image     as its builder said\n\n\
Commands and shells get the image's ENV, and run as root at home where nothing else is asked for.\n\
In the background a command has no input, and its output goes nowhere. `vm stop` sends the image's\n\
STOPSIGNAL to what `--entrypoint` started, before it powers off.\n\n\
Exit status: that of the command (128+n when signal n ended it); 125 banger failed,\n\
126 not executable, 127 not found.";

/// The ports of one `-p`.
#[derive(Debug, Clone)]
pub struct Ports(pub Vec<PortWish>);

fn ports(text: &str) -> Result<Ports, PortError> {
    parse_publish(text).map(Ports)
}

/// The shape of a new VM.
#[derive(Debug, Args)]
pub struct ShapeArgs {
    /// Name: a-z, 0-9 and '-', 1 to 63 characters [default: made up]
    #[arg(long)]
    pub name: Option<VmName>,
    /// Image: name, id or unique id prefix; one that is not here is pulled [default: config, then the Debian image]
    #[arg(long, add = ArgValueCompleter::new(complete::images))]
    pub image: Option<String>,
    /// Kernel, by its name [default: the image's, then banger's own if it was built, then Debian's]
    #[arg(long, add = ArgValueCompleter::new(complete::kernels))]
    pub kernel: Option<String>,
    /// Virtual CPUs [default: config, then a quarter of the host's, 1 to 4]
    #[arg(long, alias = "cpus", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_VCPUS)))]
    pub vcpu: Option<u32>,
    /// Memory: 512M, 4G or MiB [default: config, then an eighth of the host's, 512M to 8G]
    #[arg(long, short = 'm')]
    pub memory: Option<ByteSize>,
    /// Size of the disk at /root, kept when the system is thrown away [default: config, then 8G]
    #[arg(long)]
    pub disk_size: Option<ByteSize>,
    /// Room for changes to the system [default: config, then 8G]
    #[arg(long)]
    pub system_overlay_size: Option<ByteSize>,
    /// Let the guest reach beyond the host, and services on the host's loopback
    #[arg(long)]
    pub nat: bool,
    /// Publish a TCP port on the host: HOST:GUEST, or GUEST for a free one; on 127.0.0.1 unless
    /// ADDRESS:HOST:GUEST says otherwise; 8000-8010:8000-8010 for several
    #[arg(short, long = "publish", value_name = "[[ADDRESS:]HOST:]GUEST", value_parser = ports)]
    pub publish: Vec<Ports>,
    /// PID 1 of the guest: agent, image (its systemd, busybox, …) or a path [default: agent]
    #[arg(long, value_name = "agent|image|PATH")]
    pub init: Option<Init>,
    /// Promise more memory than the host has
    #[arg(long)]
    pub force: bool,
    /// Refused.
    #[command(flatten)]
    pub volumes: NoVolumes,
}

/// `vm create`
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Shape.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Print the VM as JSON
    #[arg(long)]
    pub json: bool,
}

/// How a command is run in a guest.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// Set a variable: NAME=VALUE, or NAME to pass ours
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Set the variables of a file: one NAME=VALUE, or NAME, on a line; '#' begins a comment line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Run as this user: name or uid, perhaps with :GROUP; 'image' for the image's USER [default: root]
    #[arg(short = 'u', long)]
    pub user: Option<String>,
    /// Working directory in the guest
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Pass stdin on; it always is, so this says nothing new
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal [default: when stdin and stdout are one]
    #[arg(short = 't', long, conflicts_with = "no_tty")]
    pub tty: bool,
    /// Never give it a terminal
    #[arg(short = 'T', long)]
    pub no_tty: bool,
}

/// `vm run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Shape.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Delete the VM when the command ends
    #[arg(long)]
    pub rm: bool,
    /// Run the image's ENTRYPOINT, in its WORKDIR; what follows `--` are arguments in place of its CMD
    #[arg(long)]
    pub entrypoint: bool,
    /// Boot, start the command if there is one, and return; print the VM's name
    #[arg(short, long, conflicts_with = "rm")]
    pub detach: bool,
    /// How to run it.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Command and its arguments [default: a shell]
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `vm exec`
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// VM: name, id or unique id prefix
    #[arg(add = ArgValueCompleter::new(complete::running))]
    pub vm: String,
    /// Start the command and return: it gets no input, and its output goes nowhere
    #[arg(short, long, conflicts_with_all = ["tty", "interactive"])]
    pub detach: bool,
    /// How to run it.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Refused.
    #[command(flatten)]
    pub volumes: NoVolumes,
    /// Command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

const CP_USAGE: &str =
    "banger vm cp [OPTIONS] PATH... VM:PATH\n       banger vm cp [OPTIONS] VM:PATH... PATH";

const CP_EXAMPLES: &str = "Examples:\n  \
  banger vm cp src dev:                     a directory to /root/src\n  \
  banger vm cp src/. dev:/srv/www           what is in it to /srv/www\n  \
  banger vm cp dev:/var/log/syslog .        a file from the guest\n  \
  git archive HEAD | banger vm cp - dev:/srv/www\n  \
  banger vm cp dev:/etc - | tar t\n\n\
A destination that is a directory gets the source as an entry; otherwise the source gets its name.\n\
Relative paths in the guest begin at /root. '-' is a tar stream: unpacked in the directory VM:PATH,\n\
or written to stdout. Write './a:b' for a file here whose name has a colon.\n\
Modes, times, links and holes are kept; devices, fifos and sockets are left out with a warning.\n\
What goes in belongs to root, what comes out to you; neither is setuid or setgid.\n\
Out of a stopped VM too: its disks are read as its guest sees them, and it is not booted.\n\n\
Exit status: 0 all was copied (but for what a warning names); 125 not.";

/// `vm cp`
#[derive(Debug, Args)]
pub struct CpArgs {
    /// Keep numeric owners and groups, setuid and setgid of what goes into the guest
    #[arg(short = 'a', long)]
    pub archive: bool,
    /// Follow a symbolic link that is itself a source
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Sources, then the destination: each a path here, VM:PATH or '-'
    #[arg(required = true, num_args = 2.., value_name = "PATH", add = ArgValueCompleter::new(complete::copied))]
    pub paths: Vec<OsString>,
}

/// Any number of VMs.
#[derive(Debug, Args)]
pub struct ReferencesArgs {
    /// VMs: names, ids or unique id prefixes of at least 3 digits
    #[arg(required = true, add = ArgValueCompleter::new(complete::vms))]
    pub vms: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `vm ports`
#[derive(Debug, Args)]
pub struct PortsArgs {
    /// VM: name, id or unique id prefix
    #[arg(add = ArgValueCompleter::new(complete::running))]
    pub vm: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `vm delete`
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// VMs: names, ids or unique id prefixes of at least 3 digits
    #[arg(required = true, add = ArgValueCompleter::new(complete::vms))]
    pub vms: Vec<String>,
    /// Delete running VMs as well
    #[arg(short, long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `vm logs`
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// VM: name, id or unique id prefix
    #[arg(add = ArgValueCompleter::new(complete::vms))]
    pub vm: String,
    /// The VMM's log instead of the console's
    #[arg(long)]
    pub vmm: bool,
}

/// A verb whose only choice is the form of its answer.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `banger image …`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an image of a tar, of what docker save writes, of a directory or an ext4 file
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Fetch an image from an OCI registry (Docker Hub, ghcr.io, your own)
    #[command(after_help = PULL_EXAMPLES)]
    Pull(PullArgs),
    /// List images
    #[command(visible_alias = "ls", after_help = IMAGE_LIST_EXAMPLES)]
    List(ImageListArgs),
    /// Show everything about images
    #[command(visible_alias = "inspect", after_help = IMAGE_SHOW_EXAMPLES)]
    Show(ImagesArgs),
    /// Show how an image was built
    #[command(after_help = IMAGE_HISTORY_EXAMPLES)]
    History(ImageHistoryArgs),
    /// Make an image of a distribution's packages
    #[command(after_help = IMAGE_BUILD_EXAMPLES)]
    Build(ImageBuildArgs),
    /// Make an image of an ext4 file that stays where it is
    #[command(after_help = IMAGE_REGISTER_EXAMPLES)]
    Register(ImageRegisterArgs),
    /// Copy the file of a registered image in
    #[command(after_help = IMAGE_PROMOTE_EXAMPLES)]
    Promote(ImagePromoteArgs),
    /// Write an image as an archive: of OCI, for other tools, or a bundle
    #[command(visible_alias = "save", after_help = IMAGE_EXPORT_EXAMPLES)]
    Export(ImageExportArgs),
    /// Write an image as a bundle, which is the very same image wherever it is imported
    #[command(after_help = IMAGE_BUNDLE_EXAMPLES)]
    Bundle(ImageBundleArgs),
    /// Say which kernel VMs of an image get
    #[command(after_help = IMAGE_SET_EXAMPLES)]
    Set(ImageSetArgs),
    /// Delete images that no VM uses; of an image with several names, take one away
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  banger image delete old\n  banger image delete 3f2a81 c04411     by unique beginnings of their ids"
    )]
    Delete(ImageDeleteArgs),
    /// Delete the images that no VM uses and that have no name, and layers that no image needs; with --all, also those with a name
    #[command(after_help = IMAGE_PRUNE_EXAMPLES)]
    Prune(ImagePruneArgs),
}

const IMPORT_EXAMPLES: &str = "Examples:\n  \
  banger image import rootfs.tar.zst                     named rootfs\n  \
  docker export box | banger image import - --name box   a tar on stdin\n  \
  docker save app:1 | banger image import - --name app   an image archive, with how it is run\n  \
  banger image import two.tar --only app:1 --name app    one of several images in an archive\n  \
  banger image import app.tar.zst --name app             a bundle\n  \
  banger image import ./rootfs --name mine               a directory\n  \
  banger image import disk.ext4 --name mine --replace    an ext4 file; the name moves\n\n\
What SOURCE is, is told by its content: a tar (plain, or packed with gzip, xz or zstd) of a root file system or of an \
image's layers (an OCI layout, docker save), a bundle, or an ext4 file system. A directory may be a root or an OCI layout. \
Nothing of it needs root.";

/// `image import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A tar of a root file system or of image layers, `-` for one on stdin, a directory, or an ext4 file
    #[arg(value_name = "SOURCE")]
    pub source: std::path::PathBuf,
    /// Name: a-z, 0-9, '.', '_' and '-', up to 63 characters [default: the image's of --only, or the file's]
    #[arg(long)]
    pub name: Option<String>,
    /// A further name; may be given several times
    #[arg(long, value_name = "NAME")]
    pub tag: Vec<String>,
    /// Of an archive of several images the one that is called so there
    #[arg(long, value_name = "IMAGE")]
    pub only: Option<String>,
    /// Take the names from the images that have them
    #[arg(long)]
    pub replace: bool,
    /// Print the image as JSON
    #[arg(long)]
    pub json: bool,
}

/// `image prune`
#[derive(Debug, Args)]
pub struct ImagePruneArgs {
    /// Also images that have a name, and what a broken pull left within a day
    #[arg(short, long)]
    pub all: bool,
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

/// `image pull`
#[derive(Debug, Args)]
pub struct PullArgs {
    /// NAME[:TAG] or REGISTRY/PATH[:TAG|@sha256:DIGEST], as for docker pull
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    /// Another name for it: a-z, 0-9, '.', '_' and '-', up to 63 characters
    #[arg(long)]
    pub name: Option<String>,
    /// Let a registry be without TLS, or with a certificate that nobody vouches for; on this machine it may anyway
    #[arg(long)]
    pub insecure: bool,
    /// Print the image as JSON
    #[arg(long)]
    pub json: bool,
}

/// Any number of images.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Images: names, ids or unique id prefixes of at least 3 digits
    #[arg(required = true, value_name = "IMAGE", add = ArgValueCompleter::new(complete::images))]
    pub images: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `image delete`
#[derive(Debug, Args)]
pub struct ImageDeleteArgs {
    /// Images: names, ids or unique id prefixes of at least 3 digits
    #[arg(required = true, value_name = "IMAGE", add = ArgValueCompleter::new(complete::images))]
    pub images: Vec<String>,
    /// Delete images with all their names; one that a VM uses stays
    #[arg(short, long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
