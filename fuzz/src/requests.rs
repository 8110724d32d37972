//! JSON of both sides: what is accepted is written and read again as the same.

use banger_wire::{api, guest};
use serde::{Serialize, de::DeserializeOwned};

fn round<T: Serialize + DeserializeOwned>(body: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(body) else {
        return;
    };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).unwrap_or_else(|error| {
        panic!(
            "{} is written as {written:?}, which is refused: {error}",
            std::any::type_name::<T>()
        )
    });
    // Compared as text: not every type is comparable.
    assert_eq!(serde_json::to_vec(&again).expect("again"), written);
}

/// The first byte chooses the method.
pub fn requests(data: &[u8]) {
    let Some((&which, body)) = data.split_first() else {
        return;
    };
    let methods = METHODS;
    methods[usize::from(which) % methods.len()].1(body);
}

macro_rules! methods {
    ($($request:ty),* $(,)?) => {
        const METHODS: &[(&str, fn(&[u8]))] = &[$((<$request as api::Method>::NAME, round::<$request>)),*];
    };
}

methods!(
    api::Ping,
    api::GetVersion,
    api::DaemonStatus,
    api::Shutdown,
    api::VmCreate,
    api::VmRun,
    api::VmExec,
    api::VmAttach,
    api::VmCopy,
    api::VmForward,
    api::VmSsh,
    api::VmList,
    api::VmShow,
    api::VmStart,
    api::VmStop,
    api::VmRestart,
    api::VmWait,
    api::VmRename,
    api::VmPrune,
    api::VmKill,
    api::VmSet,
    api::VmDelete,
    api::VmLogs,
    api::VmHealth,
    api::VmPorts,
    api::VmStats,
    api::ImageImport,
    api::ImageList,
    api::ImageShow,
    api::ImageDelete,
    api::ImageHistory,
    api::ImageRegister,
    api::ImagePromote,
    api::ImageCatalog,
    api::ImageExport,
    api::BlobPrune,
    api::Recover,
    api::OperationList,
    api::OperationShow,
    api::OperationWatch,
    api::OperationCancel,
    api::Events,
    api::ImagePull,
    api::ImageSet,
    api::KernelImport,
    api::KernelPull,
    api::KernelBuild,
    api::KernelList,
    api::KernelAvailable,
    api::KernelShow,
    api::KernelDelete,
    api::ImageBuild,
);

/// What an agent answers and the daemon reads; the first byte chooses.
pub fn answers(data: &[u8]) {
    const ANSWERS: &[fn(&[u8])] = &[
        round::<guest::GuestStats>,
        round::<guest::Ports>,
        round::<guest::ListeningSocket>,
        round::<guest::ClockDone>,
        round::<guest::BootFacts>,
        round::<guest::ExecRequest>,
        round::<api::ApiError>,
        round::<api::Event>,
    ];
    let Some((&which, body)) = data.split_first() else {
        return;
    };
    ANSWERS[usize::from(which) % ANSWERS.len()](body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_fuzzed() {
        let names = |list: &[&str]| {
            let mut names: Vec<_> = list.iter().map(ToString::to_string).collect();
            names.sort();
            names
        };
        let here: Vec<_> = METHODS.iter().map(|(name, _)| *name).collect();
        let all: Vec<_> = api::METHODS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names(&here), names(&all));
    }
}
