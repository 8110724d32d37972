//! What the daemon counts and sees, as Prometheus reads it (text exposition format 0.0.4): `GET /metrics`.
//!
//! Nothing is sampled in the background: who reads pays for the look.

use crate::daemon::Daemon;
use crate::host_network::{Usage, own_usage};
use banger_host::Files;
use banger_wire::api::{ApiError, Outcome, Version, VmState, VmView};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

/// Content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Requests that were answered, by method and HTTP status.
#[derive(Debug, Default)]
pub struct Requests(Mutex<BTreeMap<(&'static str, u16), u64>>);

impl Requests {
    /// Counts an answer.
    pub fn count(&self, method: &'static str, status: u16) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((method, status)).or_default() += 1;
    }

    fn all(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A VM as it is shown, and what its VMM uses.
pub type Seen = (VmView, Option<Usage>);

/// The whole text.
///
/// # Errors
/// A bug of ours: what blocks ended unexpectedly.
pub async fn text(daemon: &Daemon) -> Result<String, ApiError> {
    let read_only = daemon.core().ledger.absent().is_some();
    let mut text = Text::default();
    of_daemon(&mut text, daemon, read_only);
    if !read_only {
        of_vms(&mut text, &daemon.vms().seen().await?);
    }
    let disk = daemon
        .core()
        .blocking(|core| core.host.disk_space(&core.site.state_dir));
    if let Ok((free, size)) = disk.await? {
        text.gauge(
            "banger_disk_free_bytes",
            "Free space where the state directory is.",
            free,
        );
        text.gauge("banger_disk_size_bytes", "Size of that file system.", size);
    }
    Ok(text.0)
}

fn of_daemon(text: &mut Text, daemon: &Daemon, read_only: bool) {
    let version = Version::current();
    text.family(
        "banger_build_info",
        "gauge",
        "What the daemon was built from.",
    );
    let labels = [
        ("version", &*version.version),
        ("api", &version.api.to_string()),
    ];
    text.sample("banger_build_info", &labels, 1);
    text.gauge(
        "process_start_time_seconds",
        "Unix time at which the daemon started.",
        daemon.started_at(),
    );
    if let Some(own) = own_usage() {
        text.gauge(
            "process_resident_memory_bytes",
            "Memory that the daemon holds.",
            own.memory,
        );
        text.family(
            "process_cpu_seconds_total",
            "counter",
            "Processor time of the daemon.",
        );
        text.sample("process_cpu_seconds_total", &[], seconds(own.cpu_ms));
    }
    text.gauge(
        "banger_read_only",
        "Whether there is no database, so that nothing is changed.",
        u64::from(read_only),
    );
    text.gauge(
        "banger_streams",
        "Attached streams: commands and copies.",
        daemon.streams(),
    );
    text.gauge(
        "banger_operations_running",
        "Operations under way.",
        daemon.registry.running(),
    );
    text.family(
        "banger_operations_total",
        "counter",
        "Operations that have ended.",
    );
    for ((method, outcome), count) in daemon.registry.totals() {
        if outcome != Outcome::Running {
            let labels = [("method", &*method), ("outcome", &outcome.to_string())];
            text.sample("banger_operations_total", &labels, count);
        }
    }
    text.family(
        "banger_api_requests_total",
        "counter",
        "Requests that were answered.",
    );
    for ((method, status), count) in daemon.requests.all() {
        let labels = [("method", method), ("code", &status.to_string())];
        text.sample("banger_api_requests_total", &labels, count);
    }
}

fn of_vms(text: &mut Text, vms: &[Seen]) {
    text.family("banger_vms", "gauge", "VMs by state.");
    for state in VmState::ALL {
        let count = vms.iter().filter(|(vm, _)| vm.state == state).count();
        text.sample("banger_vms", &[("state", &state.to_string())], count);
    }
    let of_each = |text: &mut Text, name, kind, help, value: &dyn Fn(&Seen) -> Option<String>| {
        text.family(name, kind, help);
        for seen in vms {
            if let Some(value) = value(seen) {
                let id = seen.0.id.to_string();
                text.sample(name, &[("id", &id), ("name", seen.0.name.as_str())], value);
            }
        }
    };
    of_each(
        text,
        "banger_vm_memory_bytes",
        "gauge",
        "Memory promised to a VM.",
        &|(vm, _)| Some(vm.memory.bytes().to_string()),
    );
    of_each(
        text,
        "banger_vm_vcpus",
        "gauge",
        "Virtual CPUs of a VM.",
        &|(vm, _)| Some(vm.vcpus.to_string()),
    );
    of_each(
        text,
        "banger_vmm_resident_memory_bytes",
        "gauge",
        "Memory that the VMM of a VM holds.",
        &|(_, vmm)| vmm.map(|vmm| vmm.memory.to_string()),
    );
    of_each(
        text,
        "banger_vmm_cpu_seconds_total",
        "counter",
        "Processor time of the VMM of a VM since it started.",
        &|(_, vmm)| vmm.map(|vmm| seconds(vmm.cpu_ms)),
    );
}

/// Milliseconds as seconds.
fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// The text as it grows: families, each with its samples behind it.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escaped(value)))
            .collect();
        let labels = match labels[..] {
            [] => String::new(),
            _ => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped() {
        let mut text = Text::default();
        text.family("a_total", "counter", "Help.");
        text.sample("a_total", &[("x", "q\"\\\n"), ("y", "z")], 7);
        text.gauge("b", "Other.", 1);
        assert_eq!(
            text.0,
            "# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"q\\\"\\\\\\n\",y=\"z\"} 7\n# HELP b Other.\n# TYPE b gauge\nb 1\n"
        );
        assert_eq!((&*seconds(5), &*seconds(61_020)), ("0.005", "61.020"));
    }

    #[test]
    fn the_daemons_own_use_is_known() {
        assert!(own_usage().unwrap().memory > 0);
    }
}
