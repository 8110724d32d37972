//! `vm ssh` and `ssh-config`.

use clap::Args;

pub const SSH_EXAMPLES: &str = "Examples:\n  \
  banger vm ssh dev                         a shell\n  \
  banger vm ssh dev -- uname -a             a command, by the shell of the VM\n  \
  banger vm ssh user@dev\n  \
  banger vm ssh --sshd dev                  by the sshd of the image, where one runs\n\n\
The image needs no sshd: banger is the server. Other options of ssh: banger ssh-config --install,\n\
then ssh [OPTIONS] dev.vm.\n\n\
Exit status: that of ssh, which is the command's, or 255; 125 banger failed.";

pub const SSH_CONFIG_EXAMPLES: &str = "Examples:\n  \
  banger ssh-config --install               one marked block in ~/.ssh/config\n  \
  ssh dev.vm                                then, and scp, rsync, git, editors\n  \
  ssh -L 8080:localhost:80 dev.vm\n  \
  banger ssh-config >my_config              for ssh -F my_config dev.vm\n\n\
Without a flag what ssh needs to know is printed.";

/// `vm ssh`
#[derive(Debug, Args)]
pub struct SshArgs {
    /// VM: [USER@]name, id or unique id prefix [default user: root]
    #[arg(value_name = "[USER@]VM")]
    pub vm: String,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Reach the sshd that runs in the VM, at its port 22
    #[arg(long)]
    pub sshd: bool,
    /// Command for the shell of the VM [default: a login shell]
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `ssh-config`
#[derive(Debug, Args)]
pub struct SshConfigArgs {
    /// Include banger's configuration at the top of ~/.ssh/config
    #[arg(long)]
    pub install: bool,
    /// Remove just that
    #[arg(long, conflicts_with = "install")]
    pub uninstall: bool,
}
