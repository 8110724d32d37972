//! Which VMs of a listing are meant: `state=running`, `name=web`, `image=debian`.

use banger_wire::api::{VmState, VmView};
use std::str::FromStr;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// It is in this state.
    State(VmState),
    /// Its name has this in it.
    Name(String),
    /// It was made of this image.
    Image(String),
}

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not KEY=VALUE, or no such key.
    #[error("'{0}' is no filter; write state=STATE, name=PART or image=NAME")]
    Form(String),
    /// No such state.
    #[error("there is no state '{state}'; there are {}", states())]
    State {
        /// What was asked for.
        state: String,
    },
}

fn states() -> String {
    VmState::ALL.map(|state| state.to_string()).join(", ")
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        match text.split_once('=') {
            Some(("state" | "status" | "phase", state)) => {
                let mut all = VmState::ALL.into_iter();
                all.find(|known| known.to_string() == state)
                    .map(Filter::State)
                    .ok_or_else(|| FilterError::State {
                        state: state.to_owned(),
                    })
            }
            Some(("name", part)) => Ok(Filter::Name(part.to_owned())),
            Some(("image", image)) => Ok(Filter::Image(image.to_owned())),
            _ => Err(FilterError::Form(text.to_owned())),
        }
    }
}

/// Whether a VM is meant: of each kind that is given, one condition holds; as docker has it.
pub fn is_meant(filters: &[Filter], vm: &VmView) -> bool {
    let holds = |filter: &Filter| match filter {
        Filter::State(state) => vm.state == *state,
        Filter::Name(part) => vm.name.as_str().contains(part),
        Filter::Image(image) => vm.image == *image,
    };
    filters.iter().all(|filter| {
        let alike =
            |other: &&Filter| std::mem::discriminant(*other) == std::mem::discriminant(filter);
        filters.iter().filter(alike).any(holds)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_one_kind_are_alternatives() {
        let text = r#"{"id":"00ab12cd34ef","name":"web-1","state":"running","reason":null,"goal":"running",
            "image":"debian","kernel":"k","vcpus":1,"memory":1,"overlay_size":1,"disk_size":1,"nat":false,
            "remove_on_exit":false,"drivers":{"vmm":"qemu","root":"overlay","network":"user","jail":false,
            "cgroup":false,"helper":false},"created_at":1,"last_used_at":1}"#;
        let vm: VmView = serde_json::from_str(text).unwrap();
        let meant = |filters: &[&str]| {
            let filters: Vec<Filter> = filters.iter().map(|f| f.parse().unwrap()).collect();
            is_meant(&filters, &vm)
        };
        assert!(meant(&[]));
        assert!(meant(&["state=running", "name=web"]));
        assert!(meant(&["status=stopped", "phase=running", "image=debian"]));
        assert!(!meant(&["state=running", "name=db"]));
        assert!(!meant(&["image=deb"]));
        for bad in ["running", "state=fast", "colour=red", ""] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
