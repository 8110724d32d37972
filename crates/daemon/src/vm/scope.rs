//! A systemd scope for each VMM (R-HOST-8): where a service manager runs, a VMM that stayed in the cgroup of whoever
//! started the daemon (a service, a login session) would be killed together with it.
//!
//! The manager is asked by its bus, through `busctl`, to take the process into a scope. That happens beside the boot
//! and changes nothing of how the VMM is started or proven; without a manager, or when it refuses, the VM runs as well,
//! and the log says so. A scope goes by itself with the last process in it, so nothing is to be removed.

use super::VmService;
use crate::core::Core;
use crate::host_network::is_there;
use banger_host::{ToolCall, Tools};
use banger_model::{Label, ProcessHandle, Role, VmId};
use banger_wire::api::{ApiError, Code};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// systemd's own test of whether it runs the machine: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// Where the system's manager is reached.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A scope of the same name may still be going, when its VMM has just ended.
const TRIES: u32 = 5;
/// Wait between tries.
const PAUSE: Duration = Duration::from_secs(1);

/// The service manager that keeps what this user starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manager {
    /// Process 1, for root.
    System,
    /// The user's own, with its runtime directory.
    User(PathBuf),
}

/// Whether VMMs get scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scopes {
    /// From this manager.
    By(Manager),
    /// Nobody ends a session's processes here.
    NoSystemd,
    /// There is a manager and we cannot ask it.
    OutOfReach,
}

/// What [`Scopes::OutOfReach`] means for a user.
pub const OUT_OF_REACH: &str = "systemd runs, but its bus cannot be reached: VMMs have no scopes and end with the \
                                session or service that started the daemon";
/// What can be done about it.
pub const REACH: &str = "apt-get install dbus-user-session, and log in again";

impl Manager {
    /// The manager of this machine, looked up; says so where systemd runs and cannot be asked.
    pub fn find() -> Option<Self> {
        match Self::look() {
            Scopes::By(manager) => Some(manager),
            Scopes::NoSystemd => {
                tracing::info!("no systemd here: VMMs have no scopes");
                None
            }
            Scopes::OutOfReach => {
                tracing::warn!("{OUT_OF_REACH}; hint: {REACH}");
                None
            }
        }
    }

    /// Who keeps what this user starts. Looks only.
    pub fn look() -> Scopes {
        let uid = rustix::process::geteuid().as_raw();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        if !Path::new(BOOTED).is_dir() {
            return Scopes::NoSystemd;
        }
        match Self::choose(uid, runtime, |path| path.exists()) {
            Some(manager) => Scopes::By(manager),
            None => Scopes::OutOfReach,
        }
    }

    /// Root's processes belong to the system, for root's own manager ends with root's last session.
    fn choose(uid: u32, runtime: Option<PathBuf>, exists: impl Fn(&Path) -> bool) -> Option<Self> {
        match (uid, runtime) {
            (0, _) => exists(Path::new(SYSTEM_BUS)).then_some(Manager::System),
            (_, Some(runtime)) => exists(&runtime.join("bus")).then_some(Manager::User(runtime)),
            (_, None) => None,
        }
    }

    /// The call that puts a process into a scope of this name; it is collected even if it failed.
    fn call(&self, scope: &str, pid: u32) -> ToolCall {
        let (which, env) = match self {
            Manager::System => ("--system", BTreeMap::new()),
            Manager::User(runtime) => (
                "--user",
                BTreeMap::from([("XDG_RUNTIME_DIR".into(), runtime.clone().into_os_string())]),
            ),
        };
        let words = format!(
            "{which} --quiet call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
             org.freedesktop.systemd1.Manager StartTransientUnit ssa(sv)a(sa(sv)) {scope} fail 2 \
             PIDs au 1 {pid} CollectMode s inactive-or-failed 0"
        );
        ToolCall {
            program: "busctl".into(),
            args: words.split(' ').map(OsString::from).collect(),
            env,
            cwd: "/".into(),
            stdin: Vec::new(),
            timeout: TIMEOUT,
        }
    }
}

/// The name of the scope: the label, so that it proves whose it is (R-HOST-6).
fn name(label: &Label) -> String {
    format!("{}.scope", label.to_string().replace('/', "-"))
}

/// Whether `/proc/<pid>/cgroup` has the process in this scope, or below it.
fn is_in(cgroups: &str, scope: &str) -> bool {
    let mut parts = cgroups.lines().flat_map(|line| line.split('/'));
    parts.any(|part| part == scope)
}

impl VmService {
    /// Puts the VMM as recorded into its scope, in a task of its own. Does nothing if it is there.
    pub fn enclose(&self, id: VmId) {
        let Some(manager) = self.manager.get_or_init(Manager::find).clone() else {
            return;
        };
        let Some(process) = self.vmm(id) else { return };
        let core = Arc::clone(&self.core);
        tokio::spawn(async move {
            let scope = name(&core.site.label(id, Role::Vmm));
            for left in (0..TRIES).rev() {
                let (manager, name) = (manager.clone(), scope.clone());
                let tried = core
                    .blocking(move |core| enter(core, &manager, &name, process))
                    .await;
                match tried {
                    Ok(Ok(())) => return tracing::info!(vm = %id, scope, "the VMM has its scope"),
                    Ok(Err(_)) if left > 0 => tokio::time::sleep(PAUSE).await,
                    Ok(Err(error)) => {
                        let error = ApiError::of(Code::OperationFailed, &error);
                        return tracing::warn!(vm = %id, scope, %error, "the VMM has no scope of its own");
                    }
                    Err(error) => return tracing::error!(vm = %id, %error, "no scope"),
                }
            }
        });
    }
}

/// One try. A process that is dead needs no scope.
fn enter(
    core: &Core,
    manager: &Manager,
    scope: &str,
    process: ProcessHandle,
) -> Result<(), banger_host::Error> {
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid));
    if !is_there(process) || cgroups.is_ok_and(|text| is_in(&text, scope)) {
        return Ok(());
    }
    let call = manager.call(scope, process.pid);
    core.host.run_tool(&call, &mut |_| {}, &|| false).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::Instance;

    #[test]
    fn root_has_the_systems_manager_and_a_user_their_own_if_it_can_be_reached() {
        let runtime = || Some(PathBuf::from("/run/user/7"));
        let all = |_: &Path| true;
        assert_eq!(Manager::choose(0, runtime(), all), Some(Manager::System));
        let user = Manager::User("/run/user/7".into());
        assert_eq!(Manager::choose(7, runtime(), all), Some(user));
        assert_eq!(Manager::choose(7, None, all), None);
        let only_the_systems = |path: &Path| path == Path::new(SYSTEM_BUS);
        assert_eq!(Manager::choose(7, runtime(), only_the_systems), None);
        assert_eq!(Manager::choose(0, None, |_| false), None);
    }

    #[test]
    fn the_scope_has_the_labels_name_and_is_found_in_either_hierarchy() {
        let label = Label::vm(
            Instance::from_bytes([0xab; 4]),
            VmId::from_bytes([1; 6]),
            Role::Vmm,
        );
        let scope = name(&label);
        assert_eq!(scope, "banger1-abababab-010101010101-vmm.scope");
        assert!(is_in(&format!("0::/user.slice/{scope}\n"), &scope));
        assert!(is_in(
            &format!("9:name=systemd:/app.slice/{scope}\n0::/\n"),
            &scope
        ));
        assert!(!is_in(&format!("0::/user.slice/x{scope}\n"), &scope));
    }
}
