//! Which VM is meant: an exact name, an exact id, or a unique id prefix of at least 3 digits.

use banger_model::{VmId, VmName};

/// Shortest id prefix that is taken for a reference.
pub const MIN_PREFIX: usize = 3;

/// Why a text names no VM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing of that name or id.
    #[error("no VM is called '{0}'")]
    NotFound(String),
    /// Several ids begin so.
    #[error("'{reference}' could be any of {}", .ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// The ids that begin so.
        ids: Vec<VmId>,
    },
}

/// The VM that `reference` means among `all`. A name wins over a prefix.
///
/// # Errors
/// None, or several, are meant.
pub fn resolve<'a, T>(
    reference: &str,
    all: impl IntoIterator<Item = &'a T> + Clone,
    key: impl Fn(&T) -> (VmId, &VmName),
) -> Result<&'a T, ReferenceError> {
    let exact = |vm: &&T| {
        let (id, name) = key(vm);
        name.as_str() == reference || id.to_string() == reference
    };
    if let Some(vm) = all.clone().into_iter().find(exact) {
        return Ok(vm);
    }
    let not_found = || ReferenceError::NotFound(reference.to_owned());
    if reference.len() < MIN_PREFIX {
        return Err(not_found());
    }
    let found: Vec<&T> = all
        .into_iter()
        .filter(|vm| key(vm).0.to_string().starts_with(reference))
        .collect();
    match found[..] {
        [] => Err(not_found()),
        [vm] => Ok(vm),
        _ => Err(ReferenceError::Ambiguous {
            reference: reference.to_owned(),
            ids: found.iter().map(|vm| key(vm).0).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ids_and_unique_prefixes() {
        let all: Vec<(VmId, VmName)> = [("00ab12cd34ef", "dev"), ("00ab99999999", "00ab1")]
            .map(|(id, name)| (id.parse().unwrap(), name.parse().unwrap()))
            .to_vec();
        let find = |text: &str| resolve(text, &all, |(id, name)| (*id, name)).map(|(_, n)| n);
        assert_eq!(find("dev").unwrap().as_str(), "dev");
        assert_eq!(find("00ab12cd34ef").unwrap().as_str(), "dev");
        assert_eq!(find("00ab12").unwrap().as_str(), "dev");
        assert_eq!(find("00ab1").unwrap().as_str(), "00ab1");
        assert!(matches!(
            find("00ab"),
            Err(ReferenceError::Ambiguous { .. })
        ));
        for bad in ["00", "", "de", "zzz", "00AB12CD34EF"] {
            assert!(
                matches!(find(bad), Err(ReferenceError::NotFound(_))),
                "{bad}"
            );
        }
    }
}
