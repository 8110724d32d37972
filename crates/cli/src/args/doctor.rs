//! `doctor`.

use clap::Args;

/// `doctor`
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub struct DoctorArgs {
    /// Repair what can be repaired: have the daemon take away what is left over and adopt lost VMs, then look again
    #[arg(long)]
    pub fix: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const DOCTOR_EXAMPLES: &str = "Examples:\n  \
  banger doctor\n  \
  banger doctor --fix\n  \
  banger doctor --json | jq '.[] | select(.status != \"pass\")'\n\n\
It reads only and needs no daemon. PASS: as it should be; WARN: works, and could be better;\n\
FAIL: VMs cannot be had before this is mended. --fix never touches a disk of yours.\n\n\
Exit status: 0 no FAIL; 1 one or more; 125 banger failed, or --fix could not adopt a VM.";
