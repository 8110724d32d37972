//! What is wrong with a kernel, as users are told it: its code, and the next command.

use banger_vmm::boot::{apt::AptError, build::BuildError, kernel::KernelError};
use banger_wire::api::{ApiError, Code};

/// The three ways to a kernel.
pub const WAYS: &str = "banger kernel pull PACKAGE brings one of this machine's package sources, banger kernel import DIRECTORY \
    one that you have, banger kernel import --from-host the host's own";
/// Where the machine is what is in the way.
const MACHINE: &str = "banger doctor tells whether the state directory has room and can be written";
/// Where more came than belongs to a kernel.
const ONE_KERNEL: &str =
    "import what belongs to one kernel alone: its image, its configuration and lib/modules/RELEASE";
/// Where the package sources are in the way.
const ELSEWHERE: &str = "sudo apt-get update tells what is wrong with this machine's package sources or its network; \
    banger kernel import FILE.deb takes a package that was fetched elsewhere";
/// How lines of options look.
const OPTIONS: &str = "lines as in a kernel's .config: CONFIG_WIREGUARD=y";

/// An error of a kernel, with its way out.
pub fn told(error: &KernelError) -> ApiError {
    ApiError::of(code(error), error).hint(hint(error))
}

fn code(error: &KernelError) -> Code {
    use KernelError as E;
    match error {
        E::Exists { .. } => Code::AlreadyExists,
        E::Cancelled | E::Pinned { .. } => Code::Conflict,
        E::Fetch {
            source: AptError::Unknown { .. },
        } => Code::NotFound,
        E::Fetch {
            source: AptError::Missing { .. },
        }
        | E::Build {
            source: BuildError::Missing { .. },
        } => Code::Precondition,
        E::Source { .. }
        | E::Several { .. }
        | E::Linked { .. }
        | E::OtherRelease { .. }
        | E::Lacks { .. }
        | E::BadName { .. }
        | E::TooLarge { .. }
        | E::TooMuch { .. }
        | E::Receive { .. }
        | E::Incomplete { .. }
        | E::Image { .. }
        | E::Module { .. }
        | E::Modules { .. }
        | E::Build {
            source: BuildError::Option { .. } | BuildError::Lacks { .. },
        } => Code::BadRequest,
        E::Fetch { .. }
        | E::Build { .. }
        | E::Tree { .. }
        | E::Pack { .. }
        | E::Files { .. }
        | E::Manifest { .. } => Code::OperationFailed,
    }
}

fn hint(error: &KernelError) -> String {
    use KernelError as E;
    let fixed = match error {
        E::Fetch { source } => of_fetch(source),
        E::Build { source } => return of_build(source),
        E::Manifest { name, .. } => return remake(name),
        E::Pinned { .. } => {
            "when it runs it is a user of the kernel; banger operation list tells what is being done"
        }
        E::Exists { .. } => "--replace puts the new one in its place; --name gives another name",
        E::Several { .. } => "banger kernel import FILE, with one of them",
        E::Linked { .. } => {
            "banger kernel import the file that it leads to, or a directory with that file in its place"
        }
        E::OtherRelease { .. } => "import the kernel with its own modules",
        E::Lacks { .. } => {
            "use a kernel that has them (banger kernel build makes one); --force takes this one as it is"
        }
        E::BadName { .. } => "--name NAME",
        E::Source { .. }
        | E::Incomplete { .. }
        | E::Image { .. }
        | E::Module { .. }
        | E::Modules { .. } => WAYS,
        E::TooLarge { .. } | E::TooMuch { .. } => ONE_KERNEL,
        E::Receive { .. } | E::Tree { .. } | E::Pack { .. } | E::Files { .. } => MACHINE,
        E::Cancelled => "nothing of it is left; the same command begins anew",
    };
    fixed.to_owned()
}

fn of_fetch(error: &AptError) -> &'static str {
    match error {
        AptError::Unknown { .. } | AptError::TooLarge { .. } => "banger kernel list --available",
        AptError::Missing { .. } => {
            "banger kernel import takes a package's file or a directory from anywhere"
        }
        AptError::Fetch { .. } | AptError::Query { .. } | AptError::Amount { .. } => ELSEWHERE,
        AptError::Files { .. } | AptError::Read { .. } => MACHINE,
    }
}

fn of_build(error: &BuildError) -> String {
    let fixed = match error {
        BuildError::Missing { packages, .. } => {
            return format!("apt install {}", packages.join(" "));
        }
        BuildError::Lacks {
            configured: true, ..
        } => "take the lines that leave these out, out of --config",
        BuildError::Option { .. } => OPTIONS,
        BuildError::Lacks { .. } | BuildError::NoSource { .. } | BuildError::Step { .. } => {
            "banger kernel pull linux-image-cloud-amd64 brings one that Debian has built"
        }
        BuildError::Io { .. } => MACHINE,
    };
    fixed.to_owned()
}

/// How a kernel that is there and cannot be used is had again.
pub fn remake(name: &str) -> String {
    format!("banger kernel delete {name}, then pull or import it again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(configured: bool) -> KernelError {
        let lacks = vec!["CONFIG_ACPI (x)".to_owned()];
        let source = BuildError::Lacks { lacks, configured };
        KernelError::Build { source }
    }

    /// Only commands and options that there are: a build has no `--force`.
    #[test]
    fn hints_lead_on() {
        let hint = |error| told(&error).hint.unwrap();
        let own = hint(lacks(true));
        assert!(
            own.contains("--config") && !own.contains("--force"),
            "{own}"
        );
        let ours = hint(lacks(false));
        assert!(ours.contains("kernel pull"), "{ours}");
        let damaged = KernelError::Manifest {
            name: "mine".to_owned(),
            path: "/k/mine/manifest.json".into(),
            source: serde_json::from_str::<u8>("{").unwrap_err(),
        };
        assert!(hint(damaged).starts_with("banger kernel delete mine,"));
    }
}
