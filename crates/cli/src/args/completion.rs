//! `completion`: what shells source.

use clap::ValueEnum;

pub const COMPLETION_EXAMPLES: &str = "Examples:\n  \
  source <(banger completion bash)             in ~/.bashrc\n  \
  source <(banger completion zsh)              in ~/.zshrc, after compinit\n  \
  banger completion fish | source              in ~/.config/fish/config.fish\n\n\
Completes verbs, flags, and the names of VMs and images. No daemon is started for it.";

/// A shell whose lines can be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash 4.4 or newer
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}
