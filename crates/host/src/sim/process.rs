//! Simulated processes and the guests in them.

use super::{
    fs::{Answer, Ino, Refusal},
    world::World,
};
use crate::{ErrorKind, ProcessIdentity, Proof, Signal, SpawnSpec};
use banger_model::{Label, ProcessHandle, VmId};
use std::{collections::BTreeSet, path::Path, rc::Rc};

/// How a guest behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Guest {
    /// Says hello, powers off when asked.
    #[default]
    Healthy,
    /// Never says hello.
    Mute,
    /// Says hello, never powers off.
    Stubborn,
    /// Says hello and then ends by itself.
    Ends,
    /// Ends before it says hello.
    Panics,
    /// Says hello, and then that its root cannot be mounted.
    Rootless,
    /// Healthy as long as its disks are new; rootless at every boot after the first.
    Decays,
    /// Healthy, but its VMM falls into uninterruptible sleep (D state) for so many milliseconds
    /// when it is told to end; `u64::MAX`: until the host reboots.
    Stuck(u64),
}

/// What a guest that boots says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Word {
    /// Not even hello.
    Nothing,
    /// That it runs commands.
    Ready,
    /// That it cannot.
    Failed,
}

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Runs.
    Running,
    /// Was killed; dies at the next moment. Until then everything it holds is held.
    Dying,
    /// In D state, SIGKILL pending, for so many more milliseconds.
    Stuck {
        /// Milliseconds until it dies.
        left: u64,
    },
    /// Dead, holds nothing but its number.
    Zombie,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    /// Number.
    pub pid: u32,
    /// What tells it from a later one of that number.
    pub start_time: u64,
    /// Arguments, the program included.
    pub argv: Vec<Rc<str>>,
    /// Executable.
    pub exe: Rc<str>,
    /// uid.
    pub uid: u32,
    /// Daemon incarnation whose child it is; `None`: init's.
    pub parent: Option<u32>,
    /// What it is doing.
    pub state: State,
    /// Log it holds the lock of.
    pub log: Option<Ino>,
    /// Socket it listens on.
    pub socket: Option<Ino>,
    /// Socket path it has yet to bind.
    pub socket_due: Option<Rc<str>>,
    /// dm devices it has open.
    pub dms: Vec<Rc<str>>,
    /// Disk files it has open.
    pub files: BTreeSet<Ino>,
    /// cgroup it is in.
    pub cgroup: Option<Label>,
    /// The VM and guest in it, for a VMM.
    pub guest: Option<(VmId, Guest)>,
    /// What that guest said last while somebody listened.
    pub word: Word,
}

impl Process {
    /// Holds locks, sockets and devices.
    pub fn is_alive(&self) -> bool {
        self.state != State::Zombie
    }

    /// As recorded in `handles.json`.
    pub fn handle(&self) -> ProcessHandle {
        ProcessHandle {
            pid: self.pid,
            start_time: self.start_time,
        }
    }

    /// Exact argv element, uid and executable.
    pub fn matches(&self, identity: &ProcessIdentity) -> bool {
        self.uid == identity.uid && identity.program.to_str() == Some(&*self.exe) && {
            let label = identity.label.to_string();
            self.argv.iter().any(|a| **a == *label)
        }
    }
}

/// How far a spawn got before the daemon died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpawnReach {
    /// The log is there, nobody runs.
    LogOnly,
    /// Runs, has not bound its socket yet.
    NoSocket,
    /// Bound its socket and died.
    SocketOnly,
    /// All of it.
    Whole,
}

impl World {
    pub(super) fn processes_mut(&mut self) -> &mut std::collections::BTreeMap<u32, Process> {
        Rc::make_mut(&mut self.processes)
    }

    /// Whether a live process holds the lock of this log.
    pub fn log_locked(&self, log: &Path) -> bool {
        self.fs.lookup(log).is_some_and(|ino| {
            self.processes
                .values()
                .any(|p| p.is_alive() && p.log == Some(ino))
        })
    }

    fn free_pid(&mut self) -> u32 {
        loop {
            let pid = self.next_pid;
            // A small number space, so that numbers come round.
            self.next_pid = if pid >= 400 { 100 } else { pid + 1 };
            if !self.processes.contains_key(&pid) {
                return pid;
            }
        }
    }

    /// A process that has nothing to do with us (an editor, a grep, another user's program).
    pub fn stranger(&mut self, pid: Option<u32>, exe: &str, args: &[&str], uid: u32) -> u32 {
        let pid = pid.unwrap_or_else(|| self.free_pid());
        self.next_start += 1;
        let process = Process {
            pid,
            start_time: self.next_start,
            argv: std::iter::once(exe)
                .chain(args.iter().copied())
                .map(Rc::from)
                .collect(),
            exe: exe.into(),
            uid,
            parent: None,
            state: State::Running,
            log: None,
            socket: None,
            socket_due: None,
            dms: Vec::new(),
            files: BTreeSet::new(),
            cgroup: None,
            guest: None,
            word: Word::Nothing,
        };
        self.processes_mut().insert(pid, process);
        pid
    }

    pub(super) fn spawn(
        &mut self,
        spec: &SpawnSpec,
        daemon: u32,
        reach: SpawnReach,
    ) -> Answer<ProcessHandle> {
        self.reap_children(daemon);
        let label = spec.identity.label.to_string();
        if !spec.args.iter().any(|arg| *arg == *label) {
            return Err(Refusal(ErrorKind::Other, "it could never be proven"));
        }
        if spec
            .cgroup
            .is_some_and(|c| !self.kernel.cgroups.contains(&c))
        {
            return Err(Refusal(ErrorKind::NotFound, "no such cgroup"));
        }
        let log = self.fs.open_append(&spec.log)?;
        if self.log_locked(&spec.log) && !self.nature.lock_ignored {
            return Err(Refusal(
                ErrorKind::Busy,
                "the log is locked by a live process",
            ));
        }
        let identity = &spec.identity;
        let pid = self.free_pid();
        self.next_start += 1;
        let handle = ProcessHandle {
            pid,
            start_time: self.next_start,
        };
        if reach == SpawnReach::LogOnly {
            return Ok(handle);
        }
        let text = |p: &Path| -> Rc<str> { p.to_str().unwrap_or("").into() };
        let mut argv = vec![text(&identity.program)];
        argv.extend(spec.args.iter().map(|a| Rc::from(a.to_str().unwrap_or(""))));
        let guest = identity
            .label
            .vm_id()
            .filter(|_| identity.label.role == banger_model::Role::Vmm);
        let mut process = Process {
            pid,
            start_time: handle.start_time,
            argv,
            exe: text(&identity.program),
            uid: identity.uid,
            parent: Some(daemon),
            state: State::Running,
            log: Some(log),
            socket: None,
            socket_due: identity.control_socket.as_deref().map(text),
            dms: Vec::new(),
            files: BTreeSet::new(),
            cgroup: spec.cgroup,
            guest: guest.map(|vm| (vm, self.nature.guests.get(&vm).copied().unwrap_or_default())),
            word: Word::Nothing,
        };
        let opened = self.open_disks(&mut process);
        self.processes_mut().insert(pid, process);
        if !opened {
            self.die(pid);
        } else if reach != SpawnReach::NoSocket {
            self.bind_late(pid);
        }
        if reach == SpawnReach::SocketOnly {
            self.die(pid);
        }
        Ok(handle)
    }

    /// Opens the disks named by its arguments; a VMM whose disk is not there ends at once.
    fn open_disks(&mut self, process: &mut Process) -> bool {
        let arguments: Vec<Rc<str>> = process.argv[1..].to_vec();
        for argument in arguments {
            if let Some(name) = argument.strip_prefix("/dev/mapper/") {
                match self.kernel.dms.get(name) {
                    Some(dm) if dm.state == crate::DmState::Live => process.dms.push(name.into()),
                    _ => return false,
                }
                if self.dm_open(name) {
                    self.sin(format!("a second VMM opened {argument}"));
                }
                continue;
            }
            if let Some(name) = argument.strip_prefix("tap=")
                && !self.kernel.links.contains_key(name)
            {
                return false;
            }
            let Some(path) = argument.strip_prefix("disk=") else {
                continue;
            };
            let Some(ino) = self.fs.lookup(Path::new(path)) else {
                return false;
            };
            let shared = |p: &Process| p.is_alive() && p.files.contains(&ino);
            if self.processes.values().any(shared) {
                self.sin(format!("a second VMM opened {path}"));
            }
            if self.fs.disk(ino).is_none_or(|d| !d.whole) {
                self.sin(format!("a VMM was given the half-made disk {path}"));
            }
            process.files.insert(ino);
        }
        true
    }

    /// Binds the control socket; a file in the way or a missing directory ends the process.
    pub(super) fn bind_late(&mut self, pid: u32) {
        let Some(path) = self
            .processes_mut()
            .get_mut(&pid)
            .and_then(|p| p.socket_due.take())
        else {
            return;
        };
        match self.fs.bind(Path::new(&*path)) {
            Ok(ino) => {
                if let Some(process) = self.processes_mut().get_mut(&pid) {
                    process.socket = Some(ino);
                }
            }
            Err(_) => self.die(pid),
        }
    }

    /// It ends: lets everything go; its socket file stays.
    pub fn die(&mut self, pid: u32) {
        if let Some(process) = self.processes_mut().get_mut(&pid) {
            process.state = State::Zombie;
            process.log = None;
            process.socket = None;
            process.socket_due = None;
            process.dms.clear();
            process.files.clear();
            process.cgroup = None;
        }
        self.reap_orphans();
    }

    /// init reaps its children at once.
    pub(super) fn reap_orphans(&mut self) {
        let dead: Vec<u32> = self
            .processes
            .values()
            .filter(|p| !p.is_alive() && p.parent.is_none())
            .map(|p| p.pid)
            .collect();
        dead.into_iter().for_each(|pid| self.reap(pid));
    }

    /// A daemon reaps all children of its that ended, whomever it is asked about.
    fn reap_children(&mut self, daemon: u32) {
        let dead: Vec<u32> = self
            .processes
            .values()
            .filter(|p| !p.is_alive() && p.parent == Some(daemon))
            .map(|p| p.pid)
            .collect();
        dead.into_iter().for_each(|pid| self.reap(pid));
    }

    /// Its number is free, and goes to a stranger where the world is like that.
    pub(super) fn reap(&mut self, pid: u32) {
        self.processes_mut().remove(&pid);
        if self.nature.recycle_pids {
            self.stranger(Some(pid), "/usr/bin/stranger", &["--recycled"], 0);
        }
    }

    pub(super) fn tick(&mut self, pid: u32, ms: u64) {
        match self.processes.get(&pid).map(|p| p.state) {
            Some(State::Dying) => self.die(pid),
            Some(State::Stuck { left }) if left != u64::MAX => {
                if left <= ms {
                    self.die(pid);
                } else if let Some(process) = self.processes_mut().get_mut(&pid) {
                    process.state = State::Stuck { left: left - ms };
                }
            }
            _ => {}
        }
    }

    /// Looks for a process; a zombie that is this daemon's child is reaped, and then absent.
    pub(super) fn prove(&mut self, identity: &ProcessIdentity, daemon: u32) -> Proof {
        self.reap_children(daemon);
        if let Some(path) = &identity.control_socket
            && let Some(ino) = self.fs.lookup(path)
            && let Some(process) = self
                .processes
                .values()
                .find(|p| p.is_alive() && p.socket == Some(ino) && p.matches(identity))
        {
            return Proof::Alive(process.handle());
        }
        if let Some(hint) = identity.hint
            && let Some(process) = self.processes.get(&hint.pid)
        {
            let trusting = self.nature.pid_alone_proves;
            match process.is_alive() {
                // A zombie has neither arguments nor executable: its number and start are all.
                false if process.handle() == hint => return Proof::Zombie(hint),
                true if trusting || (process.handle() == hint && process.matches(identity)) => {
                    return Proof::Alive(process.handle());
                }
                _ => {}
            }
        }
        // Who is not found by then is looked for only while the log says that one lives.
        if !self.log_locked(&identity.log) {
            return Proof::Absent;
        }
        self.processes
            .values()
            .filter(|p| p.is_alive() && p.matches(identity))
            .min_by_key(|p| (p.start_time, p.pid))
            .map_or(Proof::Absent, |p| Proof::Alive(p.handle()))
    }

    /// The process a handle means, proven to be of this identity.
    fn proven(&self, identity: &ProcessIdentity, handle: ProcessHandle) -> Answer<u32> {
        let trusting = self.nature.pid_alone_proves;
        let ours = |p: &Process| trusting || (p.handle() == handle && p.matches(identity));
        match self.processes.get(&handle.pid) {
            Some(p) if p.is_alive() && ours(p) => Ok(handle.pid),
            _ => Err(Refusal(ErrorKind::NotFound, "no such process now")),
        }
    }

    pub(super) fn signal(
        &mut self,
        identity: &ProcessIdentity,
        handle: ProcessHandle,
        signal: Signal,
    ) -> Answer<()> {
        let pid = self.proven(identity, handle)?;
        if self
            .processes
            .get(&pid)
            .is_some_and(|p| !p.matches(identity))
        {
            self.sin(format!(
                "process {pid}, which is not {}, was signalled",
                identity.label
            ));
        }
        let Some(process) = self.processes_mut().get_mut(&pid) else {
            return Ok(());
        };
        let stubborn = matches!(process.guest, Some((_, Guest::Stubborn)));
        process.state = match (process.state, process.guest, signal) {
            (State::Stuck { left }, ..) => State::Stuck { left },
            (_, Some((_, Guest::Stuck(ms))), _) => State::Stuck { left: ms },
            (state, _, Signal::Term) if stubborn => state,
            _ => State::Dying,
        };
        Ok(())
    }

    pub(super) fn await_exit(
        &mut self,
        handle: ProcessHandle,
        timeout_ms: u64,
        daemon: u32,
    ) -> Answer<()> {
        // The number and the start say which process; who it is does not matter to a wait.
        let pid = handle.pid;
        let there = |p: &Process| self.nature.pid_alone_proves || p.handle() == handle;
        if !self.processes.get(&pid).is_some_and(there) {
            return Ok(());
        }
        match self.processes.get(&pid).map(|p| p.state) {
            Some(State::Dying) => self.die(pid),
            _ => self.pass(timeout_ms),
        }
        if self
            .processes
            .get(&pid)
            .is_some_and(|p| p.handle() == handle && p.is_alive())
        {
            return Err(Refusal(ErrorKind::TimedOut, "it did not end in time"));
        }
        self.reap_children(daemon);
        Ok(())
    }

    /// The VMM of a VM as the machine has it, for the driver of a convergence.
    pub fn vmm_of(&self, vm: VmId) -> Option<&Process> {
        self.processes
            .values()
            .find(|p| p.is_alive() && p.guest.is_some_and(|(id, _)| id == vm))
    }

    /// Waits until the guest is ready: what was heard of it.
    pub fn await_ready(&mut self, vm: VmId) -> Word {
        self.pass(100);
        let Some((pid, guest)) = self.vmm_of(vm).map(|p| (p.pid, p.guest)) else {
            return Word::Nothing;
        };
        let rootless = match guest.map(|g| g.1) {
            Some(Guest::Mute) | None => return Word::Nothing,
            Some(Guest::Panics) => {
                self.die(pid);
                return Word::Nothing;
            }
            Some(Guest::Rootless) => true,
            Some(Guest::Decays) => self.guest_has_written(pid),
            Some(_) => false,
        };
        // Also where only one of its disks could be mounted.
        self.guest_writes(pid);
        let word = if rootless { Word::Failed } else { Word::Ready };
        if let Some(process) = self.processes_mut().get_mut(&pid) {
            process.word = word;
        }
        word
    }

    fn guest_writes(&mut self, pid: u32) {
        let disks = self.disks_of(pid);
        disks.into_iter().for_each(|ino| self.fs.scribble(ino));
    }

    fn guest_has_written(&self, pid: u32) -> bool {
        let disks = self.disks_of(pid);
        disks.into_iter().any(|ino| self.fs.is_scribbled(ino))
    }

    /// The files that a VMM's guest may write to.
    fn disks_of(&self, pid: u32) -> Vec<Ino> {
        let Some(process) = self.processes.get(&pid) else {
            return Vec::new();
        };
        let mut inodes: Vec<Ino> = process.files.iter().copied().collect();
        for dm in &process.dms {
            if let Some((_, cow)) = self.kernel.dms.get(dm).and_then(|d| d.under) {
                inodes.extend(self.kernel.loops.get(&cow).map(|l| l.backing));
            }
        }
        inodes
    }

    /// Asks the guest to power off and waits: whether its VMM ended.
    pub fn await_power_off(&mut self, vm: VmId) -> bool {
        self.pass(100);
        match self
            .vmm_of(vm)
            .map(|p| (p.pid, p.state, p.guest.map(|g| g.1)))
        {
            None => true,
            Some((pid, State::Running, Some(Guest::Healthy | Guest::Ends | Guest::Decays))) => {
                self.die(pid);
                true
            }
            Some(_) => false,
        }
    }

    /// A guest that ends by itself does so now.
    pub fn guest_ends(&mut self, vm: VmId) {
        if let Some(pid) = self.vmm_of(vm).map(|p| p.pid) {
            self.die(pid);
        }
    }
}
