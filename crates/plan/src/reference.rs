//! Which VM a word on the command line means.

use banger_model::{Vm, VmId};

/// A word that means no VM, or several.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing of that name or id.
    #[error("no VM is called '{0}'")]
    NotFound(String),
    /// Several ids begin like this.
    #[error("'{word}' is the beginning of several ids: {}", ids(.candidates))]
    Ambiguous {
        /// What was asked for.
        word: String,
        /// The ids, sorted.
        candidates: Vec<VmId>,
    },
    /// A prefix of an id, but too short to be meant as one.
    #[error(
        "'{0}' is too short for the beginning of an id; write at least {SHORTEST_PREFIX} digits"
    )]
    TooShort(String),
}

/// Fewest digits of an id that are taken for it.
const SHORTEST_PREFIX: usize = 3;

fn ids(candidates: &[VmId]) -> String {
    let texts: Vec<_> = candidates.iter().map(VmId::to_string).collect();
    texts.join(", ")
}

/// The VM a word means: an exact name, an exact id, or the beginning of just one id, in that order.
pub fn resolve<'a>(
    word: &str,
    vms: impl IntoIterator<Item = &'a Vm>,
) -> Result<&'a Vm, ReferenceError> {
    let mut beginning = Vec::new();
    let mut of_id = None;
    for vm in vms {
        if vm.name.as_str() == word {
            return Ok(vm);
        }
        let id = vm.id.to_string();
        if id == word {
            of_id = Some(vm);
        } else if !word.is_empty() && id.starts_with(word) {
            beginning.push(vm);
        }
    }
    if let Some(vm) = of_id {
        return Ok(vm);
    }
    match beginning.as_slice() {
        [] => Err(ReferenceError::NotFound(word.to_owned())),
        _ if word.len() < SHORTEST_PREFIX => Err(ReferenceError::TooShort(word.to_owned())),
        [vm] => Ok(vm),
        several => {
            let mut candidates: Vec<_> = several.iter().map(|vm| vm.id).collect();
            candidates.sort();
            Err(ReferenceError::Ambiguous {
                word: word.to_owned(),
                candidates,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::vm;
    use banger_model::Drivers;

    /// Ids 010000000001 and 020000000002; the second is called like the beginning of the first.
    fn two() -> [Vm; 2] {
        let one = vm(1, Drivers::EVERYWHERE);
        let two = Vm {
            name: "0100".parse().unwrap(),
            ..vm(2, Drivers::EVERYWHERE)
        };
        [one, two]
    }

    #[test]
    fn names_before_ids_before_beginnings() {
        let vms = two();
        for (word, expected) in [
            ("vm-1", 1),
            ("0100", 2),
            ("010000000001", 1),
            ("01000", 1),
            ("020", 2),
        ] {
            let found = resolve(word, &vms).unwrap();
            assert_eq!(found.id.bytes()[0], expected, "{word}");
        }
    }

    #[test]
    fn what_means_nothing_or_too_much_is_refused() {
        let mut vms = two();
        vms[1].id = VmId::from_bytes([1, 0, 0, 0, 0, 9]);
        let word = |w: &str| resolve(w, &vms).map(|vm| vm.id);
        assert_eq!(word("dev"), Err(ReferenceError::NotFound("dev".to_owned())));
        assert_eq!(word(""), Err(ReferenceError::NotFound(String::new())));
        assert_eq!(word("01"), Err(ReferenceError::TooShort("01".to_owned())));
        assert_eq!(
            word("01000"),
            Err(ReferenceError::Ambiguous {
                word: "01000".to_owned(),
                candidates: vec![vms[0].id, vms[1].id],
            })
        );
    }
}
