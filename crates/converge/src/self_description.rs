//! `vm.json`: a VM's directory describes itself, so that the database can be rebuilt (R-STATE-8).

use crate::{Env, Error, Site};
use banger_host::{Files, state_file};
use banger_model::{
    Generation, Goal, Lease, Phase, Reason, ReasonKind, Vm, VmId, VmName, VmRuntime, VmSpec,
};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Format version of `vm.json`.
const FORMAT: u32 = 1;

/// Content of `vm.json`: everything of the row that looking cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfDescription {
    /// Format version of this file.
    pub format: u32,
    /// Identity.
    pub id: VmId,
    /// Name.
    pub name: VmName,
    /// uid of the user who created it.
    pub owner_uid: u32,
    /// Last goal.
    pub goal: Goal,
    /// Which goal that was; the newer of row and file decides.
    pub generation: Generation,
    /// Shape, image digest included.
    pub spec: VmSpec,
    /// Leases.
    pub lease: Lease,
    /// Paths.
    pub runtime: VmRuntime,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Unix time in seconds.
    pub last_used_at: u64,
}

impl SelfDescription {
    /// The self-description of a row.
    pub fn of(vm: &Vm) -> Self {
        SelfDescription {
            format: FORMAT,
            id: vm.id,
            name: vm.name.clone(),
            owner_uid: vm.owner_uid,
            goal: vm.goal,
            generation: vm.generation,
            spec: vm.spec.clone(),
            lease: vm.lease,
            runtime: vm.runtime.clone(),
            created_at: vm.created_at,
            last_used_at: vm.last_used_at,
        }
    }

    /// Reads one; `None` if it is missing, damaged or of another format.
    pub(crate) fn read<F: Files>(files: &F, dir: &Path) -> Result<Option<Self>, Error> {
        let bytes = files.read(&Site::self_description(dir))?;
        Ok(bytes
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .filter(|said| said.format == FORMAT))
    }

    /// The file's bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec_pretty(self).map_err(|source| Error::Encode {
            what: "vm.json",
            source,
        })
    }

    /// A row of this description, in a phase that observation corrects.
    pub(crate) fn into_row(self, goal: Goal, phase: Phase) -> Vm {
        Vm {
            id: self.id,
            name: self.name,
            owner_uid: self.owner_uid,
            goal,
            generation: self.generation,
            phase,
            reason: Some(Reason {
                kind: ReasonKind::Requested,
                text: "adopted from its directory by `banger recover`".to_owned(),
            }),
            spec: self.spec,
            lease: self.lease,
            runtime: self.runtime,
            mirror: None,
            last_error: None,
            created_at: self.created_at,
            last_used_at: self.last_used_at,
        }
    }
}

/// Replaces `vm.json` in the VM's directory, durably.
pub(crate) fn rewrite<H: Files, L, R>(env: &Env<'_, H, L, R>, vm: &Vm) -> Result<(), Error> {
    let path = Site::self_description(&env.site.vm_dir(vm.id));
    let draft = env.shared.draft(vm.id);
    let part = match draft.number {
        0 => state_file::temporary(&path),
        n => path.with_file_name(format!(".vm.json.{n}.part")),
    };
    let bytes = SelfDescription::of(vm).encode()?;
    state_file::replace_through(env.host, &part, &path, &bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use crate::{Bridge, Limits, Shared};
    use banger_host::linux::{LinuxConfig, LinuxHost};
    use banger_model::Instance;
    use std::net::Ipv4Addr;

    fn vm(generation: u64) -> Vm {
        let row: Vm = serde_json::from_str(include_str!("../tests/row.json")).unwrap();
        Vm {
            generation: Generation(generation),
            ..row
        }
    }

    /// R-SVC-4, R-STATE-8: requests do not wait for each other, and what they write is whole.
    #[test]
    fn two_requests_at_once_write_whole_words() {
        const TIMES: u64 = 100;
        let dir = tempfile::tempdir().unwrap();
        let site = Site {
            instance: Instance::from_bytes([1; 4]),
            state_dir: dir.path().to_owned(),
            runtime_dir: dir.path().to_owned(),
            bridge: Bridge {
                name: "br".to_owned(),
                pool: banger_plan::Pool {
                    host: Ipv4Addr::new(172, 16, 0, 1),
                    prefix: 24,
                },
            },
            limits: Limits::default(),
        };
        let home = site.vm_dir(vm(1).id);
        std::fs::create_dir_all(&home).unwrap();
        let host = LinuxHost::new(LinuxConfig::default());
        let shared = Shared::default();
        std::thread::scope(|s| {
            for first in [1, TIMES + 1] {
                let (site, host, shared) = (&site, &host, &shared);
                s.spawn(move || {
                    let env = Env {
                        host,
                        ledger: &(),
                        recipes: &(),
                        site,
                        shared,
                    };
                    for generation in first..first + TIMES {
                        rewrite(&env, &vm(generation)).unwrap();
                        let said = SelfDescription::read(env.host, &env.site.vm_dir(vm(1).id));
                        assert!(said.unwrap().is_some(), "half written");
                    }
                });
            }
        });
        let left: Vec<_> = std::fs::read_dir(&home).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file is left: {left:?}");
    }
}
