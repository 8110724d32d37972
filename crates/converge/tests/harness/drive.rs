//! What stands between a script and the code under test: requests, and a driver's waiting.

use super::{
    ledger::SimLedger,
    script::Verb,
    site::{self, SimRecipes},
};
use banger_converge::{
    Env, Shared, Site, Told, Wait, Waiter,
    request::{self, Accepted, NewVm, RequestError},
    set::{self, NewShape},
    settled,
};
use banger_host::sim::{SimHost, Word, World};
use banger_model::{ByteSize, VmId};
use banger_plan::Action;
use std::{cell::RefCell, rc::Rc, time::Duration};

/// What `f` makes of an instance's environment on this host.
pub fn with_env<T>(
    host: &SimHost,
    site: &Site,
    f: impl FnOnce(&Env<'_, SimHost, SimLedger<'_>, SimRecipes>) -> T,
) -> T {
    let ledger = SimLedger {
        host,
        instance: site.instance,
    };
    f(&Env {
        host,
        ledger: &ledger,
        recipes: &SimRecipes::new(Rc::new(site.clone())),
        site,
        // Nothing may depend on what a daemon remembers: none does for longer than a unit.
        shared: &Shared::default(),
    })
}

/// Makes a request.
pub fn ask(
    env: &Env<'_, SimHost, SimLedger<'_>, SimRecipes>,
    instance: usize,
    n: u8,
    verb: Verb,
) -> Result<Accepted, RequestError> {
    let id = site::vm_id(instance, n);
    match verb {
        Verb::Create(name, profile) => request::create(
            env,
            NewVm {
                id,
                name: name.parse().unwrap_or_else(|e| panic!("{name}: {e}")),
                owner_uid: 0,
                spec: site::spec(profile),
            },
        ),
        Verb::Start => request::start(env, id),
        Verb::Stop | Verb::Kill => request::stop(env, id),
        Verb::Delete => request::delete(env, id),
        Verb::Rename(name) => settled::rename(
            env,
            id,
            &name.parse().unwrap_or_else(|e| panic!("{name}: {e}")),
        ),
        Verb::Nat(nat) => settled::set_nat(env, id, nat),
        Verb::Set(gib) => {
            let size = Some(ByteSize::gib(u64::from(gib)));
            let shape = NewShape {
                overlay_size: size,
                disk_size: size,
                ..NewShape::default()
            };
            set::set(env, id, &shape)
        }
    }
}

/// Actions on the way up: none may follow a goal that leads down (R-SVC-4).
pub fn builds(action: &Action) -> bool {
    matches!(
        action,
        Action::MakeDisk(_)
            | Action::GrowDisk(_)
            | Action::AttachLoop(_)
            | Action::CreateDm
            | Action::LoadDm
            | Action::ResumeDm
            | Action::CreateTap
            | Action::JoinBridge
            | Action::CreateJail
            | Action::CreateCgroup
            | Action::Spawn(_)
    )
}

/// The waiting of a driver that takes one VM after the other.
pub struct Waits(pub Rc<RefCell<World>>);

impl Waiter for Waits {
    fn wait(&self, id: VmId, wait: &Wait) -> Told {
        wait_for(&self.0, id, wait)
    }
}

/// What a driver sees while it waits.
pub fn wait_for(world: &RefCell<World>, vm: VmId, wait: &Wait) -> Told {
    let mut world = world.borrow_mut();
    match wait {
        Wait::Ready { hello, .. } => match world.await_ready(vm) {
            Word::Ready => Told::Ready,
            Word::Failed => Told::GuestFailed("its root cannot be mounted".to_owned()),
            Word::Nothing if world.vmm_of(vm).is_none() => Told::VmmEnded("it is gone".to_owned()),
            Word::Nothing => {
                world.pass(millis(*hello));
                Told::NoHello
            }
        },
        Wait::PowerOff { within } => {
            if !world.await_power_off(vm) {
                world.pass(millis(*within));
            }
            Told::PowerOffOver
        }
        Wait::Exit { within, .. } => {
            world.pass(millis(*within));
            Told::ExitOver
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
