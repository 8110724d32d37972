//! Names of VMs: made up for those that were given none, and refused when they are taken.

use banger_model::VmName;
use banger_wire::api::{ApiError, Code};

const FIRST: [&str; 16] = [
    "amber", "brisk", "calm", "deft", "eager", "fond", "glad", "keen", "lively", "mellow",
    "nimble", "proud", "quick", "rapid", "steady", "witty",
];
const SECOND: [&str; 16] = [
    "badger", "crane", "dingo", "egret", "falcon", "gecko", "heron", "ibis", "jay", "koala",
    "lynx", "marten", "otter", "puffin", "raven", "stoat",
];

/// A name made of random bytes: two words and two hex digits, 65536 in all.
pub fn made_up(random: [u8; 2]) -> Option<VmName> {
    let [words, number] = random;
    let (a, b) = (
        FIRST[usize::from(words >> 4)],
        SECOND[usize::from(words & 15)],
    );
    format!("{a}-{b}-{number:02x}").parse().ok()
}

/// The refusal of a name that another VM has.
pub fn taken(name: &VmName) -> ApiError {
    ApiError::new(
        Code::AlreadyExists,
        format!("a VM called '{name}' exists already"),
    )
    .hint(format!(
        "enter it with `banger vm exec {name} -- sh`, or choose another name"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one() {
        for words in 0..=255 {
            assert!(made_up([words, 7]).is_some());
        }
    }
}
