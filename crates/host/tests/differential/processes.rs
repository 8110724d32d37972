//! Processes and the cgroups they are in. The VMM is this test binary itself (`helper` in
//! `differential.rs`), so that executable, arguments, log and socket are real; two daemons start
//! and look.

use super::{Answer, Group, Pair, Rng, done, instances, labels, patient, shown};
use crate::common::eventually;
use banger_host::{ErrorKind, Files, Jails, ProcessIdentity, Processes, Proof, Signal, SpawnSpec};
use banger_model::{Label, ProcessHandle, Role};
use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the helper is to listen; set means that it is the helper.
pub const PLAY: &str = "BANGER_TEST_PLAY";

const LOGS: [&str; 3] = ["one.log", "two.log", "gone/x.log"];
const SOCKETS: [Option<&str>; 4] = [
    None,
    Some("one.sock"),
    Some("two.sock"),
    Some("gone/x.sock"),
];

#[derive(Debug)]
pub enum Op {
    Spawn {
        host: usize,
        label: usize,
        log: usize,
        socket: usize,
        cgroup: Option<usize>,
        told: bool,
    },
    LogLocked(usize),
    Prove {
        host: usize,
        label: usize,
        log: usize,
        socket: usize,
        hint: usize,
    },
    Signal {
        label: usize,
        slot: usize,
        kill: bool,
    },
    AwaitExit {
        host: usize,
        label: usize,
        slot: usize,
    },
    Unlink(&'static str),
    MakeDir(&'static str),
    RemoveDir(&'static str),
    CgroupCreate(usize),
    CgroupRemove(usize),
}

pub struct ProcessGroup {
    pair: Pair,
    labels: Vec<Label>,
    root: PathBuf,
    program: PathBuf,
    /// A cgroup of the test's own, where there is cgroup v2 and we are root.
    cgroups: Option<PathBuf>,
    slots: [Vec<Option<ProcessHandle>>; 2],
    _dir: tempfile::TempDir,
}

/// A cgroup v2 directory made for this script.
fn cgroup_root(name: &str) -> Option<PathBuf> {
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let root = roots
        .map(Path::new)
        .into_iter()
        .find(|r| r.join("cgroup.procs").exists())?;
    let ours = root.join(format!("banger-differential-{name}"));
    fs::create_dir(&ours).ok()?;
    Some(ours)
}

fn stat(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.trim_start().to_owned())
}

fn is_dead(handle: ProcessHandle) -> bool {
    stat(handle.pid).is_none_or(|text| {
        let start = text.split(' ').nth(19).unwrap_or("");
        start != handle.start_time.to_string() || text.starts_with('Z')
    })
}

impl ProcessGroup {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let instances = instances();
        let cgroups = cgroup_root(&instances[0].to_string());
        ProcessGroup {
            pair: Pair::new(&root, cgroups.as_deref().unwrap_or(&root)),
            labels: labels(&instances, &[Role::Vmm]),
            root,
            program: std::env::current_exe().unwrap(),
            cgroups,
            slots: Default::default(),
            _dir: dir,
        }
    }

    fn identity(
        &self,
        side: usize,
        label: usize,
        log: usize,
        socket: usize,
        hint: usize,
    ) -> ProcessIdentity {
        ProcessIdentity {
            label: self.labels[label],
            program: self.program.clone(),
            uid: rustix::process::geteuid().as_raw(),
            control_socket: SOCKETS[socket].map(|s| self.root.join(s)),
            log: self.root.join(LOGS[log]),
            hint: self.slots[side].get(hint).copied().flatten(),
        }
    }

    fn spec(&self, side: usize, op: &Op) -> Option<SpawnSpec> {
        let Op::Spawn {
            label,
            log,
            socket,
            cgroup,
            told,
            ..
        } = *op
        else {
            return None;
        };
        let identity = self.identity(side, label, log, socket, usize::MAX);
        let listen = identity.control_socket.clone().unwrap_or_default();
        let mut args = vec!["--exact".into(), "helper".into()];
        args.extend(told.then(|| self.labels[label].to_string().into()));
        Some(SpawnSpec {
            args,
            env: [(PLAY.into(), listen.into())].into(),
            cwd: self.root.clone(),
            log: identity.log.clone(),
            cgroup: cgroup.map(|n| self.labels[n]),
            identity,
        })
    }

    fn spawned(
        &mut self,
        side: usize,
        answer: Result<ProcessHandle, banger_host::Error>,
    ) -> Answer {
        let slot = self.slots[side].len();
        self.slots[side].push(answer.as_ref().ok().copied());
        answer.map(|_| format!("slot {slot}")).map_err(|e| e.kind)
    }

    /// The slot a handle is of.
    fn proof(&self, side: usize, proof: Proof) -> String {
        let slot = |h| self.slots[side].iter().position(|s| *s == Some(h));
        match proof {
            Proof::Alive(h) => format!("Alive {:?}", slot(h)),
            Proof::Zombie(h) => format!("Zombie {:?}", slot(h)),
            Proof::Absent => "Absent".to_owned(),
        }
    }

    fn apply<H: Processes + Files + Jails>(&self, host: &H, side: usize, op: &Op) -> Answer {
        let at = |path: &str| self.root.join(path);
        match *op {
            Op::Spawn { .. } => Ok(String::new()),
            Op::LogLocked(log) => shown(host.log_locked(&at(LOGS[log]))),
            Op::Prove {
                label,
                log,
                socket,
                hint,
                ..
            } => host
                .prove(&self.identity(side, label, log, socket, hint))
                .map(|proof| self.proof(side, proof))
                .map_err(|e| e.kind),
            Op::Signal { label, slot, kill } => {
                let Some(handle) = self.slots[side][slot] else {
                    return Ok("no such slot".into());
                };
                let signal = if kill { Signal::Kill } else { Signal::Term };
                done(host.signal(&self.identity(side, label, 0, 0, slot), handle, signal))
            }
            Op::AwaitExit { label, slot, .. } => {
                let Some(handle) = self.slots[side][slot] else {
                    return Ok("no such slot".into());
                };
                let identity = self.identity(side, label, 0, 0, slot);
                done(host.await_exit(&identity, handle, Duration::from_millis(20)))
            }
            Op::Unlink(path) => done(host.unlink(&at(path))),
            Op::MakeDir(path) => done(host.mkdir(&at(path))),
            Op::RemoveDir(path) => done(host.rmdir(&at(path))),
            Op::CgroupCreate(n) => done(host.cgroup_create(&self.labels[n])),
            Op::CgroupRemove(n) => done(host.cgroup_remove(&self.labels[n])),
        }
    }

    fn seen<H: Processes + Files + Jails>(&self, host: &H, side: usize) -> Vec<String> {
        let mut seen = Vec::new();
        for (n, log) in LOGS.iter().enumerate() {
            let locked = host.log_locked(&self.root.join(log)).unwrap_or(false);
            seen.push(format!(
                "log {n} {}",
                if locked { "locked" } else { "free" }
            ));
        }
        seen.extend(host.list(&self.root).unwrap());
        seen.extend(
            host.cgroups()
                .unwrap()
                .iter()
                .map(|l| format!("cgroup {l}")),
        );
        for (n, slot) in self.slots[side].iter().enumerate() {
            let Some(handle) = slot else { continue };
            let alive = match side {
                0 => {
                    let world = self.pair.sim[0].world();
                    let world = world.borrow();
                    let process = world.processes.get(&handle.pid);
                    process.is_some_and(|p| p.handle() == *handle && p.is_alive())
                }
                _ => !is_dead(*handle),
            };
            seen.push(format!("slot {n} {}", if alive { "alive" } else { "dead" }));
        }
        seen
    }
}

impl Op {
    const fn host(&self) -> usize {
        match self {
            Op::Spawn { host, .. } | Op::Prove { host, .. } | Op::AwaitExit { host, .. } => *host,
            _ => 0,
        }
    }
}

impl Group for ProcessGroup {
    type Op = Op;

    fn draw(&mut self, rng: &mut Rng) -> Op {
        let (host, label) = (rng.below(2), rng.below(self.labels.len()));
        let (log, socket) = (rng.pick(&[0, 0, 0, 1, 1, 2]), rng.pick(&[0, 1, 1, 2, 3]));
        let slots = self.slots[0].len();
        let recent = slots.saturating_sub(1 + rng.below(4));
        // Mostly the label that it was started with.
        let world = self.pair.sim[0].world();
        let its = self.slots[0].get(recent).copied().flatten().and_then(|h| {
            let world = world.borrow();
            let argv = &world.processes.get(&h.pid)?.argv;
            self.labels
                .iter()
                .position(|l| argv.iter().any(|a| **a == *l.to_string()))
        });
        let theirs = its.filter(|_| !rng.once_in(4)).unwrap_or(label);
        let paths = ["one.log", "two.log", "one.sock", "two.sock", "gone"];
        match rng.below(if self.cgroups.is_some() { 30 } else { 25 }) {
            0..=7 => Op::Spawn {
                host,
                label,
                log,
                socket,
                cgroup: Some(rng.below(2)).filter(|_| self.cgroups.is_some() && rng.once_in(3)),
                told: !rng.once_in(10),
            },
            8 => Op::LogLocked(log),
            9..=13 => Op::Prove {
                host,
                label: theirs,
                log,
                socket,
                hint: recent,
            },
            14..=18 if slots > 0 => Op::Signal {
                label: theirs,
                slot: recent,
                kill: rng.once_in(2),
            },
            19..=20 if slots > 0 => Op::AwaitExit {
                host,
                label: theirs,
                slot: recent,
            },
            21..=22 => Op::Unlink(rng.pick(&paths)),
            23 => Op::MakeDir(rng.pick(&paths[2..])),
            24 => Op::RemoveDir(rng.pick(&paths)),
            25..=27 => Op::CgroupCreate(rng.below(2)),
            28..=29 => Op::CgroupRemove(rng.below(2)),
            _ => Op::LogLocked(log),
        }
    }

    fn sim(&mut self, op: &Op) -> Answer {
        let host = &self.pair.sim[op.host()];
        match self.spec(0, op) {
            Some(spec) => {
                let answer = host.spawn(&spec);
                self.spawned(0, answer)
            }
            None => {
                let answer = self.apply(host, 0, op);
                if matches!(op, Op::Signal { .. }) {
                    // Between the signal and the death anything may be seen: scripts wait.
                    host.world().borrow_mut().pass(1);
                }
                answer
            }
        }
    }

    fn real(&mut self, op: &Op, sim: &Answer) -> Answer {
        let host = op.host();
        if let Some(spec) = self.spec(1, op) {
            let answer = self.pair.real[host].spawn(&spec);
            if let (Ok(handle), Some(socket)) = (&answer, &spec.identity.control_socket) {
                // The simulation binds at once.
                let listens = || {
                    UnixStream::connect(socket).is_ok_and(|s| {
                        let peer = rustix::net::sockopt::socket_peercred(&s).unwrap();
                        u32::try_from(peer.pid.as_raw_nonzero().get()) == Ok(handle.pid)
                    })
                };
                eventually("the helper listens or ends", || {
                    listens() || is_dead(*handle)
                });
            }
            return self.spawned(1, answer);
        }
        let answer = patient(sim, || self.apply(&self.pair.real[host], 1, op));
        if let (Op::Signal { slot, .. }, Ok(_)) = (op, &answer)
            && let Some(handle) = self.slots[1][*slot]
        {
            eventually("who was told to end ends", || is_dead(handle));
        }
        answer
    }

    fn seen_sim(&mut self) -> Vec<String> {
        self.seen(&self.pair.sim[0], 0)
    }

    fn seen_real(&mut self) -> Vec<String> {
        self.seen(&self.pair.real[0], 1)
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        for handle in self.slots[1].iter().flatten() {
            let pid = i32::try_from(handle.pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            // Only children of ours: nobody else's can have the number before we reap it.
            let options = rustix::process::WaitOptions::NOHANG;
            if let Some(pid) = pid
                && matches!(rustix::process::waitpid(Some(pid), options), Ok(None))
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            }
        }
        if let Some(root) = &self.cgroups {
            for label in &self.labels {
                let gone = || {
                    let removed = self.pair.real[0].cgroup_remove(label);
                    removed.is_ok() || removed.is_err_and(|e| e.kind == ErrorKind::NotFound)
                };
                eventually("the cgroup empties", gone);
            }
            let _ = fs::remove_dir(root);
        }
    }
}
