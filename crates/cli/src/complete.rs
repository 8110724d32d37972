//! Names that a shell offers: of a daemon that runs; where none does, as the directories of VMs and images tell. Starts
//! nothing, changes nothing, and says nothing where it cannot know.

use crate::connection;
use banger_model::{VmId, VmName};
use banger_wire::api::{Client, ImageList, Method, Paths, VmList, VmState, VmView};
use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use serde::Deserialize;
use std::{ffi::OsStr, fs, path::Path, time::Duration};

/// The variable by which the shell's script asks for candidates. It is between that script and us.
pub const VARIABLE: &str = "_BANGER_COMPLETE";
/// A person waits with a finger on the key: a daemon that is busy for longer is not waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// A VM that may be meant.
struct Known {
    id: VmId,
    name: VmName,
    /// Known of a daemon only.
    state: Option<VmState>,
    image: String,
}

/// What is read of a `vm.json`.
#[derive(Deserialize)]
struct Described {
    id: VmId,
    name: VmName,
    spec: DescribedSpec,
}

#[derive(Deserialize)]
struct DescribedSpec {
    image: String,
}

/// What is read of an image's `manifest.json`.
#[derive(Deserialize)]
struct Manifest {
    id: String,
    name: String,
    #[serde(default)]
    names: std::collections::BTreeMap<String, u64>,
}

/// Any VM.
pub fn vms(current: &OsStr) -> Vec<CompletionCandidate> {
    offered(current, |_| true)
}

/// VMs that run, or may.
pub fn running(current: &OsStr) -> Vec<CompletionCandidate> {
    offered(current, |vm| {
        vm.state.is_none_or(|state| state == VmState::Running)
    })
}

/// One end of a copy: a VM and a colon, or a path here. What comes out of one that is down is on its disks.
pub fn copied(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = PathCompleter::any().complete(current);
    let vms = vms(current).into_iter();
    all.extend(vms.map(|vm| {
        let mut place = vm.get_value().to_owned();
        place.push(":");
        CompletionCandidate::new(place).help(vm.get_help().cloned())
    }));
    all
}

/// Images.
pub fn images(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(paths) = connection::paths().ok() else {
        return Vec::new();
    };
    let listed = ask(&paths, &ImageList {}).map(|images| {
        let names = images.into_iter().map(|image| (image.id, image.names));
        names.collect::<Vec<_>>()
    });
    let known = listed.unwrap_or_else(|| images_on_disk(&paths.state_dir));
    let current = current.to_string_lossy();
    let names = known.iter().flat_map(|(_, names)| names);
    let mut all: Vec<_> = names.filter(|n| n.starts_with(&*current)).collect();
    if all.is_empty() && !current.is_empty() {
        all.extend(
            known
                .iter()
                .map(|(id, _)| id)
                .filter(|id| id.starts_with(&*current)),
        );
    }
    all.into_iter().map(CompletionCandidate::new).collect()
}

/// Names that begin so; where there is none, ids that do.
fn offered(current: &OsStr, fits: impl Fn(&Known) -> bool) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let mut known = known();
    known.retain(fits);
    let help = |vm: &Known| match vm.state {
        Some(state) => format!("{state}, {}", vm.image),
        None => vm.image.clone(),
    };
    let named: Vec<_> = known
        .iter()
        .filter(|vm| vm.name.as_str().starts_with(&*current))
        .map(|vm| CompletionCandidate::new(vm.name.as_str()).help(Some(help(vm).into())))
        .collect();
    if !named.is_empty() || current.is_empty() {
        return named;
    }
    known
        .iter()
        .filter(|vm| vm.id.to_string().starts_with(&*current))
        .map(|vm| {
            CompletionCandidate::new(vm.id.to_string())
                .help(Some(vm.name.as_str().to_owned().into()))
        })
        .collect()
}

fn known() -> Vec<Known> {
    let Some(paths) = connection::paths().ok() else {
        return Vec::new();
    };
    match ask(&paths, &VmList { running: false }) {
        Some(listed) => listed.into_iter().map(Known::from).collect(),
        None => vms_on_disk(&paths.state_dir),
    }
}

impl From<VmView> for Known {
    fn from(vm: VmView) -> Self {
        Known {
            id: vm.id,
            name: vm.name,
            state: Some(vm.state),
            image: vm.image,
        }
    }
}

/// Asks the daemon that runs, if one does and has the time.
fn ask<M: Method>(paths: &Paths, request: &M) -> Option<M::Reply> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let client = Client::new(paths.socket());
    let asked = async { tokio::time::timeout(PATIENCE, client.call(request)).await };
    runtime.block_on(asked).ok()?.ok()
}

/// The VMs whose directories describe them and have no tombstone.
fn vms_on_disk(state: &Path) -> Vec<Known> {
    let mut all: Vec<Known> = entries(&state.join("vms"))
        .filter(|dir| !dir.join("deleted").exists())
        .filter_map(|dir| {
            let text = fs::read(dir.join("vm.json")).ok()?;
            let said: Described = serde_json::from_slice(&text).ok()?;
            let named = dir.file_name()? == said.id.to_string().as_str();
            named.then_some(Known {
                id: said.id,
                name: said.name,
                state: None,
                image: said.spec.image,
            })
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Kernels, by the directories that describe them.
pub fn kernels(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(paths) = connection::paths().ok() else {
        return Vec::new();
    };
    let current = current.to_string_lossy();
    let mut names: Vec<_> = entries(&paths.state_dir.join("kernels"))
        .filter(|dir| dir.join("manifest.json").is_file())
        .filter_map(|dir| Some(dir.file_name()?.to_str()?.to_owned()))
        .filter(|name| !name.starts_with('.') && name.starts_with(&*current))
        .collect();
    names.sort();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// Ids and names of the images whose directories describe them.
fn images_on_disk(state: &Path) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<_> = entries(&state.join("images"))
        .filter(|dir| {
            !dir.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with('.'))
        })
        .filter_map(|dir| {
            let text = fs::read(dir.join("manifest.json")).ok()?;
            let said: Manifest = serde_json::from_slice(&text).ok()?;
            let mut names: Vec<_> = said.names.into_keys().collect();
            if names.is_empty() && !said.name.is_empty() {
                names.push(said.name);
            }
            Some((said.id, names))
        })
        .collect();
    all.sort();
    all
}

fn entries(dir: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}
