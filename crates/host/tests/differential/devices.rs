//! Loop devices, and device-mapper where the kernel has it. Two daemons share the machine.

use super::{Answer, Group, Pair, Rng, VMS, done, instances, labels, patient};
use banger_host::{Blocks, DmTable, ErrorKind};
use banger_model::{DmName, Instance, Label, Role};
use std::path::PathBuf;

const MIB: u64 = 4;

#[derive(Debug)]
pub enum Op {
    Attach {
        host: usize,
        file: usize,
        read_only: bool,
        label: usize,
    },
    Detach {
        host: usize,
        slot: usize,
        label: usize,
    },
    /// kill -9 of the daemon, and a new one.
    Restart(usize),
    DmCreate {
        name: usize,
        label: usize,
    },
    DmLoad {
        host: usize,
        name: usize,
        label: usize,
        base: usize,
        cow: usize,
    },
    DmResume {
        name: usize,
        label: usize,
    },
    DmRemove {
        name: usize,
        label: usize,
    },
}

pub struct DeviceGroup {
    pair: Pair,
    with_dm: bool,
    instances: [Instance; 2],
    labels: Vec<Label>,
    names: Vec<DmName>,
    /// Two disks, a directory, and what is not there.
    files: Vec<PathBuf>,
    /// Numbers by slot, on the simulation and on the machine.
    slots: [Vec<Option<u32>>; 2],
    /// Which slot each dm device got its writes to; so that no two share one.
    cows: Vec<Option<usize>>,
    _dir: tempfile::TempDir,
}

impl DeviceGroup {
    pub fn new(with_dm: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let pair = Pair::new(&root, &root);
        let files: Vec<_> = ["one", "two", "dir", "gone"].map(|n| root.join(n)).to_vec();
        for file in &files[..2] {
            let made = std::fs::File::create(file).unwrap();
            made.set_len(MIB << 20).unwrap();
            let world = pair.sim[0].world();
            world.borrow_mut().given_disk(file, MIB << 20);
        }
        std::fs::create_dir(&files[2]).unwrap();
        pair.sim[0].world().borrow_mut().given_dir(&files[2]);
        let instances = instances();
        let names: Vec<_> = instances
            .iter()
            .flat_map(|i| VMS.map(|vm| DmName::of_vm(*i, vm)))
            .take(3)
            .collect();
        DeviceGroup {
            pair,
            with_dm,
            instances,
            labels: labels(&instances, &[Role::CowLoop]),
            cows: vec![None; names.len()],
            names,
            files,
            slots: Default::default(),
            _dir: dir,
        }
    }

    fn apply<H: Blocks>(&self, host: &H, side: usize, op: &Op) -> Result<u32, Answer> {
        let slot = |n: usize| match self.slots[side].get(n) {
            Some(Some(number)) => Ok(*number),
            _ => Err(Ok("no such slot".to_owned())),
        };
        Err(match *op {
            Op::Attach {
                file,
                read_only,
                label,
                ..
            } => {
                return host
                    .loop_attach(&self.files[file], read_only, &self.labels[label])
                    .map_err(|e| Err(e.kind));
            }
            Op::Detach { slot: n, label, .. } => {
                done(host.loop_detach(slot(n)?, &self.labels[label]))
            }
            Op::Restart(_) => Ok(String::new()),
            Op::DmCreate { name, label } => {
                done(host.dm_create(&self.names[name], &self.labels[label]))
            }
            Op::DmLoad {
                name,
                label,
                base,
                cow,
                ..
            } => {
                let table = DmTable::Snapshot {
                    sectors: (MIB << 20) / 512,
                    base_loop: slot(base)?,
                    cow_loop: slot(cow)?,
                    chunk: 8,
                };
                done(host.dm_load(&self.names[name], &self.labels[label], &table))
            }
            Op::DmResume { name, label } => {
                done(host.dm_resume(&self.names[name], &self.labels[label]))
            }
            Op::DmRemove { name, label } => {
                done(host.dm_remove(&self.names[name], &self.labels[label]))
            }
        })
    }

    /// A new slot; older ones of that number mean nothing any more.
    fn attached(&mut self, side: usize, answer: Result<u32, Answer>) -> Answer {
        let (number, answer) = match answer {
            Ok(number) => (Some(number), Ok(format!("slot {}", self.slots[side].len()))),
            Err(answer) => (None, answer),
        };
        for slot in self.slots[side]
            .iter_mut()
            .filter(|s| number.is_some() && **s == number)
        {
            *slot = None;
        }
        self.slots[side].push(number);
        answer
    }

    fn seen<H: Blocks>(&self, host: &H, side: usize) -> Vec<String> {
        let ours = |text: &str| self.instances.iter().any(|i| text.contains(&i.to_string()));
        let loops = host.loops().unwrap().into_iter().filter(|l| ours(&l.label));
        let mut seen: Vec<_> = loops
            .map(|l| {
                let slot = self.slots[side].iter().position(|s| *s == Some(l.number));
                format!("loop of slot {slot:?} {} over {:?}", l.label, l.backing)
            })
            .collect();
        let dms = host.dms().unwrap().into_iter();
        seen.extend(dms.filter(|d| ours(&d.name)).map(|d| format!("{d:?}")));
        seen.sort_unstable();
        seen
    }

    /// Whether what has this number is neither daemon's.
    fn is_strangers(&self, number: u32) -> bool {
        let loops = self.pair.real[0].loops().unwrap();
        loops.iter().any(|l| {
            l.number == number
                && !self
                    .instances
                    .iter()
                    .any(|i| l.label.contains(&i.to_string()))
        })
    }

    /// The kernel tells numbers apart only while they are ours: a number that was let go may be
    /// another test's by now, and one side may have given it to a later slot.
    fn meaning_nothing(&mut self) {
        for n in 0..self.slots[0].len() {
            if self.slots[0][n].is_none() || self.slots[1][n].is_none() {
                self.slots[0][n] = None;
                self.slots[1][n] = None;
            }
        }
    }
}

impl Op {
    const fn host(&self) -> usize {
        match self {
            Op::Attach { host, .. } | Op::Detach { host, .. } | Op::DmLoad { host, .. } => *host,
            _ => 0,
        }
    }
}

impl Group for DeviceGroup {
    type Op = Op;

    fn draw(&mut self, rng: &mut Rng) -> Op {
        self.meaning_nothing();
        let label = rng.below(self.labels.len());
        let attached: Vec<_> = (0..self.slots[0].len())
            .filter(|n| self.slots[0][*n].is_some())
            .collect();
        let slot = |rng: &mut Rng| match attached.is_empty() {
            true => usize::MAX,
            false => rng.pick(&attached[attached.len().saturating_sub(5)..]),
        };
        let (host, name) = (rng.below(2), rng.pick(&[0, 0, 0, 1, 1, 2]));
        let named = if rng.once_in(6) { label } else { name };
        match rng.below(if self.with_dm { 30 } else { 12 }) {
            0..=6 => Op::Attach {
                host,
                file: rng.pick(&[0, 0, 0, 1, 1, 1, 2, 3]),
                read_only: rng.once_in(4),
                label,
            },
            7..=10 => {
                let slot = slot(rng);
                // Mostly its own label.
                let its = self.seen(&self.pair.sim[0], 0).iter().find_map(|seen| {
                    let of = seen.contains(&format!("slot Some({slot}) "));
                    of.then(|| {
                        self.labels
                            .iter()
                            .position(|l| seen.contains(&l.to_string()))
                    })?
                });
                let label = its.filter(|_| !rng.once_in(3)).unwrap_or(label);
                Op::Detach { host, slot, label }
            }
            11 => Op::Restart(host),
            12..=16 => Op::DmCreate { name, label: named },
            17..=22 => {
                let (base, cow) = (slot(rng), slot(rng));
                // Two live snapshots on one CoW store are a sin in the simulation, and a handover
                // in the kernel: no script commits it.
                let shared = |n: &usize| *n != name && self.cows[*n] == Some(cow);
                // Nor is a read-only store compared: the kernel takes it if a header is in it.
                let world = self.pair.sim[0].world();
                let number = self.slots[0].get(cow).copied().flatten();
                let read_only = number.is_some_and(|n| {
                    world
                        .borrow()
                        .kernel
                        .loops
                        .get(&n)
                        .is_some_and(|l| l.read_only)
                });
                match read_only || (0..self.names.len()).any(|n| shared(&n)) {
                    true => Op::DmCreate { name, label: named },
                    false => Op::DmLoad {
                        host,
                        name,
                        label: named,
                        base,
                        cow,
                    },
                }
            }
            23..=25 => Op::DmResume { name, label: named },
            _ => Op::DmRemove { name, label: named },
        }
    }

    fn sim(&mut self, op: &Op) -> Answer {
        let answer = self.apply(&self.pair.sim[op.host()], 0, op);
        match op {
            Op::Attach { .. } => return self.attached(0, answer),
            Op::Restart(host) => self.pair.restart_sim(*host),
            Op::DmLoad { name, cow, .. } if answer == Err(Ok(String::new())) => {
                self.cows[*name] = Some(*cow);
            }
            Op::DmRemove { name, .. } if answer == Err(Ok(String::new())) => {
                self.cows[*name] = None;
            }
            _ => {}
        }
        answer.err().unwrap()
    }

    fn real(&mut self, op: &Op, sim: &Answer) -> Answer {
        let host = op.host();
        match op {
            Op::Attach { .. } => {
                let answer = self.apply(&self.pair.real[host], 1, op);
                return self.attached(1, answer);
            }
            Op::Restart(host) => self.pair.restart_real(*host),
            Op::Detach { slot, .. } => {
                let mut asked = 0;
                let answer = patient(sim, || {
                    asked += 1;
                    self.apply(&self.pair.real[host], 1, op).err().unwrap()
                });
                let number = self.slots[1].get(*slot).copied().flatten();
                return match answer {
                    // Somebody who looked at it took it along when they let go.
                    Err(ErrorKind::NotFound) if asked > 1 => Ok(String::new()),
                    Err(ErrorKind::Foreign) if number.is_some_and(|n| self.is_strangers(n)) => {
                        Err(ErrorKind::NotFound)
                    }
                    answer => answer,
                };
            }
            _ => {}
        }
        patient(sim, || {
            self.apply(&self.pair.real[host], 1, op).err().unwrap()
        })
    }

    fn seen_sim(&mut self) -> Vec<String> {
        self.seen(&self.pair.sim[0], 0)
    }

    fn seen_real(&mut self) -> Vec<String> {
        self.seen(&self.pair.real[0], 1)
    }
}

impl Drop for DeviceGroup {
    fn drop(&mut self) {
        for (name, label) in self
            .names
            .iter()
            .flat_map(|n| self.labels.iter().map(move |l| (n, l)))
        {
            let _ = patient(&Ok(String::new()), || {
                done(self.pair.real[0].dm_remove(name, label))
            });
        }
        self.pair.restart_real(0);
        self.pair.restart_real(1);
    }
}
