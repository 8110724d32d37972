//! What outlives a daemon: files, kernel objects, processes, the database. What outlives the host:
//! the synced part of the files and the database.

use super::{
    fs::{Answer, Fs, Ino, Refusal, Survival},
    process::{Guest, Process, State},
};
use crate::{DmState, ErrorKind};
use banger_model::{Instance, Label, Vm, VmId};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::Ipv4Addr,
    path::Path,
    rc::Rc,
};

/// A configured loop device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Loop {
    /// `lo_file_name`.
    pub label: Rc<str>,
    /// Path it was attached to.
    pub path: Rc<str>,
    /// Inode behind it.
    pub backing: Ino,
    /// Refuses writes.
    pub read_only: bool,
    /// Daemons (by incarnation) that hold it open; it clears itself when nobody does.
    pub openers: BTreeSet<u32>,
    /// Others' devices do not clear themselves.
    pub autoclear: bool,
}

/// A device-mapper device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dm {
    /// Its uuid.
    pub uuid: Rc<str>,
    /// How far it is.
    pub state: DmState,
    /// Loop devices its table names: base, CoW.
    pub under: Option<(u32, u32)>,
}

/// A network link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Link {
    /// `ifalias`.
    pub alias: Rc<str>,
    /// The bridge it is a port of.
    pub master: Option<Rc<str>>,
    /// Whether it is a bridge.
    pub bridge: bool,
}

/// Kernel objects; all gone with the host's power.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Kernel {
    /// Loop devices by number.
    pub loops: BTreeMap<u32, Loop>,
    /// Device-mapper devices by name.
    pub dms: BTreeMap<Rc<str>, Dm>,
    /// Links by name.
    pub links: BTreeMap<Rc<str>, Link>,
    /// nftables tables by name.
    pub tables: BTreeMap<Rc<str>, Rc<str>>,
    /// cgroups.
    pub cgroups: BTreeSet<Label>,
}

/// What a world is like, fixed when it is made.
#[derive(Debug, Clone)]
pub struct Nature {
    /// How each VM's guest behaves; [`Guest::Healthy`] where not named.
    pub guests: BTreeMap<VmId, Guest>,
    /// Directories that a reboot empties (tmpfs).
    pub volatile: Vec<Rc<str>>,
    /// Loop devices the kernel gives at most.
    pub max_loops: u32,
    /// The kernel has device-mapper.
    pub has_dm: bool,
    /// Directories whose files share their blocks with no others: another file system, or one that cannot.
    pub unshared: Vec<Rc<str>>,
    /// Files as large as an image: a VM may share their blocks, and never costs a copy.
    pub images: Vec<Rc<str>>,
    /// As soon as one of our processes is reaped, a stranger gets its number.
    pub recycle_pids: bool,
    /// A planted bug: a process is recognised by its number alone.
    pub pid_alone_proves: bool,
    /// A planted bug: the log's lock does not keep a second process out.
    pub lock_ignored: bool,
}

impl Default for Nature {
    fn default() -> Self {
        Nature {
            guests: BTreeMap::new(),
            volatile: vec!["/run".into()],
            max_loops: 64,
            has_dm: true,
            unshared: Vec::new(),
            images: Vec::new(),
            recycle_pids: true,
            pid_alone_proves: false,
            lock_ignored: false,
        }
    }
}

/// The durable database of an instance: transactions are atomic and durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rows {
    /// VMs.
    pub vms: BTreeMap<VmId, Row>,
    /// Addresses given back and not leased since, longest free first.
    pub released: Vec<Ipv4Addr>,
}

/// A VM's row, shared until it is replaced.
#[derive(Debug, Clone)]
pub struct Row {
    vm: Rc<Vm>,
    digest: u64,
}

impl Row {
    /// A row with this content.
    pub fn new(vm: Vm) -> Self {
        let mut hasher = DefaultHasher::new();
        // `Vm` has no hash of its own; its debug text holds every field.
        format!("{vm:?}").hash(&mut hasher);
        Row {
            digest: hasher.finish(),
            vm: Rc::new(vm),
        }
    }

    /// The VM.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.vm == other.vm
    }
}
impl Eq for Row {}
impl Hash for Row {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

/// Everything that is there. Cheap to clone: parts are shared until changed.
#[derive(Debug, Clone)]
pub struct World {
    /// Fixed properties.
    pub nature: Rc<Nature>,
    /// Files.
    pub fs: Fs,
    /// Kernel objects.
    pub kernel: Rc<Kernel>,
    /// Jail directories and how many entries each still has; they outlive a reboot.
    pub jails: Rc<BTreeMap<Label, u8>>,
    /// Processes by pid.
    pub processes: Rc<BTreeMap<u32, Process>>,
    /// Rows by instance.
    pub rows: Rc<BTreeMap<Instance, Rc<Rows>>>,
    /// Counts boots.
    pub boot: u32,
    /// Milliseconds since the world began.
    pub clock_ms: u64,
    /// Daemon incarnations so far.
    pub daemons: u32,
    /// The disk is full: whatever needs a new block is refused.
    pub full: bool,
    /// Things the kernel allows and nobody may do, as sentences.
    pub sins: Rc<Vec<String>>,
    pub(super) next_pid: u32,
    pub(super) next_start: u64,
    pub(super) next_serial: u32,
}

impl World {
    /// An empty machine.
    pub fn new(nature: Nature) -> Self {
        World {
            nature: Rc::new(nature),
            fs: Fs::default(),
            kernel: Rc::default(),
            jails: Rc::default(),
            processes: Rc::default(),
            rows: Rc::default(),
            boot: 1,
            clock_ms: 1_000_000,
            daemons: 0,
            full: false,
            sins: Rc::default(),
            next_pid: 100,
            next_start: 1,
            next_serial: 1,
        }
    }

    /// Makes a directory and its parents, durable: the world as a test finds it.
    pub fn given_dir(&mut self, path: &Path) {
        for dir in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if dir.parent().is_some() && self.fs.lookup(dir).is_none() {
                let _ = self.fs.mkdir(dir);
                let _ = self.fs.sync_dir(dir.parent().unwrap_or(dir));
            }
        }
    }

    /// Makes a disk file, durable (a base image, a template).
    pub fn given_disk(&mut self, path: &Path, len: u64) {
        if let Some(dir) = path.parent() {
            self.given_dir(dir);
            let serial = self.take_serial();
            let _ = self
                .fs
                .write(path, super::content::Content::disk(serial, None, len));
            let _ = self.fs.sync_file(path);
            let _ = self.fs.sync_dir(dir);
        }
    }

    pub(super) fn take_serial(&mut self) -> u32 {
        self.next_serial += 1;
        self.next_serial
    }

    /// Kernel objects, to be changed.
    pub fn kernel_mut(&mut self) -> &mut Kernel {
        Rc::make_mut(&mut self.kernel)
    }

    /// Notes something nobody may do.
    pub fn sin(&mut self, what: String) {
        Rc::make_mut(&mut self.sins).push(what);
    }

    /// Rows of an instance.
    pub fn rows(&self, instance: Instance) -> Rc<Rows> {
        self.rows.get(&instance).cloned().unwrap_or_default()
    }

    /// Rows of an instance, to be changed.
    pub fn rows_mut(&mut self, instance: Instance) -> &mut Rows {
        Rc::make_mut(Rc::make_mut(&mut self.rows).entry(instance).or_default())
    }

    /// Whether a live process has this device-mapper device open.
    pub fn dm_open(&self, name: &str) -> bool {
        self.processes
            .values()
            .any(|p| p.is_alive() && p.dms.iter().any(|d| **d == *name))
    }

    /// Whether a dm device's table names this loop device.
    pub fn loop_under_dm(&self, number: u32) -> bool {
        let holds = |d: &Dm| d.under.is_some_and(|(b, c)| b == number || c == number);
        self.kernel.dms.values().any(holds)
    }

    /// Detaches loop devices that clear themselves and that nobody holds.
    pub(super) fn clear_loops(&mut self) {
        let unheld: Vec<u32> = self
            .kernel
            .loops
            .iter()
            .filter(|(n, l)| l.autoclear && l.openers.is_empty() && !self.loop_under_dm(**n))
            .map(|(n, _)| *n)
            .collect();
        for number in unheld {
            self.kernel_mut().loops.remove(&number);
        }
    }

    /// Inodes held open or by devices.
    pub(super) fn held_inodes(&self) -> Vec<Ino> {
        let loops = self.kernel.loops.values().map(|l| l.backing);
        let processes = self.processes.values().flat_map(|p| {
            p.log
                .into_iter()
                .chain(p.socket)
                .chain(p.files.iter().copied())
        });
        loops.chain(processes).collect()
    }

    /// A daemon dies: what only it held is let go; its children live on and get another parent.
    pub fn daemon_dies(&mut self, daemon: u32) {
        if self
            .kernel
            .loops
            .values()
            .any(|l| l.openers.contains(&daemon))
        {
            for device in self.kernel_mut().loops.values_mut() {
                device.openers.remove(&daemon);
            }
            self.clear_loops();
        }
        if self.processes.values().any(|p| p.parent == Some(daemon)) {
            let processes = Rc::make_mut(&mut self.processes);
            for process in processes.values_mut().filter(|p| p.parent == Some(daemon)) {
                process.parent = None;
            }
            self.reap_orphans();
        }
    }

    /// The host loses power and comes back.
    pub fn reboot(&mut self, survival: &Survival) {
        self.kernel = Rc::default();
        self.processes = Rc::default();
        let nature = self.nature.clone();
        self.fs.reboot(survival, &nature.volatile);
        self.boot += 1;
        self.next_pid = 100;
        self.next_start = 1;
    }

    /// Time passes: dying processes die, D-state ones wake up.
    pub fn pass(&mut self, ms: u64) {
        self.clock_ms += ms;
        let busy = |p: &Process| matches!(p.state, State::Dying | State::Stuck { .. });
        if self.processes.values().any(busy) {
            let pids: Vec<u32> = self.processes.keys().copied().collect();
            for pid in pids {
                self.tick(pid, ms);
            }
        }
        let late: Vec<u32> = self
            .processes
            .values()
            .filter(|p| p.socket_due.is_some())
            .map(|p| p.pid)
            .collect();
        late.into_iter().for_each(|pid| self.bind_late(pid));
    }

    /// Whether two worlds share all their parts (nothing changed between them).
    pub fn same_as(&self, other: &World) -> bool {
        self.fs == other.fs
            && (Rc::ptr_eq(&self.kernel, &other.kernel) || self.kernel == other.kernel)
            && (Rc::ptr_eq(&self.processes, &other.processes) || self.processes == other.processes)
            && (Rc::ptr_eq(&self.rows, &other.rows) || self.rows == other.rows)
            && (Rc::ptr_eq(&self.jails, &other.jails) || self.jails == other.jails)
            && self.boot == other.boot
            && self.full == other.full
            && self.sins == other.sins
    }

    /// A fingerprint of everything but the clock and the nature: worlds of one nature with the same
    /// fingerprint have the same future.
    pub fn fingerprint(&self) -> u128 {
        let mut hasher = Wide(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        self.fs.hash(&mut hasher);
        self.kernel.hash(&mut hasher);
        self.jails.hash(&mut hasher);
        self.processes.hash(&mut hasher);
        self.rows.hash(&mut hasher);
        self.sins.hash(&mut hasher);
        (self.boot, self.daemons, self.full).hash(&mut hasher);
        (self.next_pid, self.next_start, self.next_serial).hash(&mut hasher);
        hasher.0
    }

    pub(super) fn space(&self) -> Answer<()> {
        if self.full {
            return Err(Refusal(ErrorKind::NoSpace, "no space left on device"));
        }
        Ok(())
    }
}

/// FNV-1a over 128 bits, eight bytes at a time: fast, and wide enough that millions of worlds do
/// not collide.
struct Wide(u128);

impl Wide {
    fn mix(&mut self, n: u64) {
        self.0 = (self.0 ^ u128::from(n)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        self.0 ^= self.0 >> 67;
    }
}

impl Hasher for Wide {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word) ^ chunk.len() as u64);
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.mix(n.into());
    }
    fn write_u32(&mut self, n: u32) {
        self.mix(n.into());
    }
    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }
    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }
    fn finish(&self) -> u64 {
        (self.0 ^ (self.0 >> 64)) as u64
    }
}
