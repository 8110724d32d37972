//! `Processes` and `Clock` on the simulated machine.

use super::{host::SimHost, process::SpawnReach, world::World};
use crate::{Clock, Effect, ProcessIdentity, Processes, Proof, Signal, SpawnSpec, effects::Result};
use banger_model::{BootId, ProcessHandle};
use std::{path::Path, time::Duration};

impl Processes for SimHost {
    fn spawn(&self, spec: &SpawnSpec) -> Result<ProcessHandle> {
        let daemon = self.daemon();
        let prefixes = |world: &World, daemon: u32| {
            let mut reaches = vec![SpawnReach::LogOnly];
            if spec.identity.control_socket.is_some() {
                reaches.extend([SpawnReach::NoSocket, SpawnReach::SocketOnly]);
            }
            reaches
                .into_iter()
                .filter_map(|reach| {
                    let mut world = world.clone();
                    world.spawn(spec, daemon, reach).ok().map(|_| world)
                })
                .collect()
        };
        let target = spec.identity.program.display();
        self.effect_with_prefixes(Effect::Spawn, "start", target, prefixes, |world| {
            world.spawn(spec, daemon, SpawnReach::Whole)
        })
    }

    fn log_locked(&self, log: &Path) -> Result<bool> {
        self.effect(
            Effect::LockProbe,
            "try the lock of",
            log.display(),
            |world| Ok(world.log_locked(log)),
        )
    }

    fn prove(&self, identity: &ProcessIdentity) -> Result<Proof> {
        self.effect(Effect::Prove, "look for", identity.label, |world| {
            Ok(world.prove(identity, self.daemon()))
        })
    }

    fn signal(
        &self,
        identity: &ProcessIdentity,
        process: ProcessHandle,
        signal: Signal,
    ) -> Result<()> {
        self.effect(Effect::Signal, "signal", identity.label, |world| {
            world.signal(identity, process, signal)
        })
    }

    fn await_exit(
        &self,
        identity: &ProcessIdentity,
        process: ProcessHandle,
        timeout: Duration,
    ) -> Result<()> {
        let daemon = self.daemon();
        self.effect(
            Effect::AwaitExit,
            "wait for the end of",
            identity.label,
            |world| world.await_exit(process, millis(timeout), daemon),
        )
    }
}

impl Clock for SimHost {
    fn now(&self) -> u64 {
        self.world().borrow().clock_ms / 1000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.world().borrow().clock_ms)
    }

    fn boot_id(&self) -> Result<BootId> {
        self.effect(Effect::Read, "read", "the boot id", |world| {
            Ok(BootId(format!("boot-{}", world.boot)))
        })
    }

    fn sleep(&self, time: Duration) {
        if !self.is_dead() {
            self.world().borrow_mut().pass(millis(time));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
