//! Which program a command is.

use serde::{Deserialize, Serialize};

/// The user of a command that means the one its image says, root if it says none.
pub const IMAGE_USER: &str = "image";

/// Which program a command is, and so what its words are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// The first word, and the others are its arguments.
    #[default]
    Argv,
    /// The image's entrypoint, in the image's directory where no other is asked for. The words are its arguments in
    /// place of the image's command; without words that is run.
    Entrypoint,
    /// The best shell of the image: bash, or sh. There are no words. A login shell, unless the image has a `PATH` of its
    /// own, which a login shell would replace.
    Shell,
    /// The shell that the guest's `/etc/passwd` gives the user, otherwise as `shell`.
    UserShell,
}

impl Program {
    /// Whether it is the first word.
    pub fn is_argv(&self) -> bool {
        *self == Program::Argv
    }
}
