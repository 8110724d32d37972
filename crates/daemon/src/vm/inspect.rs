//! `vm.health`, `vm.ports`, `vm.stats`: a running VM from inside and outside. Looking is no use of a VM (R-SVC-7).

use super::{Result, VmService, clock};
use crate::host_network::{Usage, usage};
use banger_converge::Recipes;
use banger_model::{ProcessHandle, Role, Vm};
use banger_wire::api::{
    AgentHealth, ApiError, Code, HealthView, MAX_STATS_INTERVAL_MS, PortsView, StatsView, VmState,
    VmStats, VmView, VmmUse,
};
use banger_wire::guest::{
    ClientError, GuestClient, GuestState, GuestStats, Health, clock::STEP_ABOVE_NS,
};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a guest may take to say how it is.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to look at itself: a walk over its processes.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// Over how long shares of time are measured when nobody says.
const INTERVAL_MS: u32 = 250;

impl VmService {
    /// `vm.health`.
    ///
    /// # Errors
    /// No such VM.
    pub async fn health(self: &Arc<Self>, reference: &str) -> Result<HealthView> {
        let vm = self.find(reference).await?;
        let seen = self.view(vm.id).await?;
        let mut health = HealthView {
            id: vm.id,
            name: vm.name,
            healthy: false,
            reason: None,
            state: seen.state,
            agent: None,
            warnings: Vec::new(),
        };
        if seen.state != VmState::Running {
            let why = seen.reason.map(|reason| format!(": {}", reason.text));
            health.reason = Some(format!("it is {}{}", seen.state, why.unwrap_or_default()));
            return Ok(health);
        }
        match self.session(&vm.id.to_string()).await {
            Ok((_, guest)) => {
                // What its sshd says may take longer, and decides nothing.
                let ((), sshd) = tokio::join!(ask(&guest, &mut health), sshd(&guest));
                health.warnings.extend(sshd);
            }
            Err(error) => health.reason = Some(error.message),
        }
        health.healthy = health.reason.is_none();
        Ok(health)
    }

    /// `vm.ports`.
    ///
    /// # Errors
    /// No such VM, it does not run, or its agent does not answer.
    pub async fn ports(&self, reference: &str) -> Result<PortsView> {
        let (vm, guest) = self.session(reference).await?;
        let ports = within(&vm, "listed its ports", guest.ports()).await?;
        Ok(PortsView {
            id: vm.id,
            name: vm.name,
            published: self.set.entry(vm.id).ports.view(&vm.spec.ports),
            ports: ports.sockets,
            truncated: ports.truncated,
        })
    }

    /// `vm.stats`.
    ///
    /// # Errors
    /// A bad interval, no such VM, it does not run, or its agent does not answer.
    pub async fn stats(self: &Arc<Self>, request: &VmStats) -> Result<StatsView> {
        let interval_ms = request.interval_ms.unwrap_or(INTERVAL_MS);
        if interval_ms > MAX_STATS_INTERVAL_MS {
            let message =
                format!("an interval has at most {MAX_STATS_INTERVAL_MS} ms, not {interval_ms}");
            return Err(ApiError::new(Code::BadRequest, message));
        }
        let (vm, guest) = self.session(&request.vm).await?;
        let first = match interval_ms {
            0 => Look::boot(),
            _ => {
                let first = self.look_inside_and_outside(&vm, &guest).await?;
                tokio::time::sleep(Duration::from_millis(interval_ms.into())).await;
                first
            }
        };
        let last = self.look_inside_and_outside(&vm, &guest).await?;
        Ok(between(&vm, &first, last))
    }

    async fn look_inside_and_outside(
        self: &Arc<Self>,
        vm: &Vm,
        guest: &GuestClient,
    ) -> Result<Look> {
        let guest = within(vm, "said what it uses", guest.stats()).await?;
        let (service, row) = (Arc::clone(self), vm.clone());
        let vmm = self.core.blocking(move |_| service.vmm_usage(&row)).await?;
        Ok(Look {
            at: Some(Instant::now()),
            guest,
            vmm,
        })
    }

    /// Every VM as it is shown, and what its VMM uses; no guest is asked.
    ///
    /// # Errors
    /// The rows cannot be read.
    pub async fn seen(self: &Arc<Self>) -> Result<Vec<(VmView, Option<Usage>)>> {
        let rows = self.rows().await?;
        let service = Arc::clone(self);
        let look = move |vm: &Vm| {
            let usage = service.vmm_usage(vm).map(|(_, usage)| usage);
            (service.look(vm), usage)
        };
        self.core
            .blocking(move |_| rows.iter().map(look).collect())
            .await
    }

    /// What the process that is proven to be the VMM uses. Blocks for a look.
    fn vmm_usage(&self, vm: &Vm) -> Option<(ProcessHandle, Usage)> {
        let mut identity = self.core.recipes.identity(vm, Role::Vmm);
        identity.hint = self.vmm(vm.id);
        let process = self.peers.network().ok()?.prove(&identity)?;
        Some((process, usage(process)?))
    }
}

/// Asks a guest how it is, and measures meanwhile.
async fn ask(guest: &GuestClient, health: &mut HealthView) {
    let asked = async {
        let sent = Instant::now();
        let said = guest.health().await?;
        let round_trip = sent.elapsed();
        match clock::measure(guest).await {
            Ok(measured) => Ok((said, measured.round_trip, Some(measured.ahead_ns()))),
            Err(error) if error.unknown() => Ok((said, round_trip, None)),
            Err(error) => Err(error),
        }
    };
    match tokio::time::timeout(HEALTH_LIMIT, asked).await {
        Ok(Ok((said, round_trip, ahead_ns))) => {
            fill(health, said, guest.ack().version, round_trip, ahead_ns);
        }
        Ok(Err(error)) => health.reason = Some(format!("its agent did not answer: {error}")),
        Err(_) => {
            let limit = HEALTH_LIMIT.as_secs();
            health.reason = Some(format!("its agent has not answered for {limit} s"));
        }
    }
}

/// What is wrong with the image's sshd; an agent that does not answer is told of elsewhere.
async fn sshd(guest: &GuestClient) -> Vec<String> {
    let said = tokio::time::timeout(HEALTH_LIMIT, guest.sshd()).await;
    said.ok()
        .and_then(std::result::Result::ok)
        .unwrap_or_default()
}

fn fill(
    health: &mut HealthView,
    said: Health,
    protocol: u16,
    round_trip: Duration,
    ahead_ns: Option<i128>,
) {
    health.reason = match said.state {
        GuestState::Ready => None,
        GuestState::Booting => Some("its root file system is not ready yet".to_owned()),
        GuestState::Failed { reason } => {
            Some(format!("its root file system is not there: {reason}"))
        }
    };
    health.warnings = said.warnings;
    if let Some(off) = ahead_ns
        && off.unsigned_abs() > u128::from(STEP_ABOVE_NS)
    {
        let by = milliseconds(off) / 1000.0;
        let warning = format!("its clock is off by {by:+.1} s; it is set every 30 s");
        health.warnings.push(warning);
    }
    health.agent = Some(AgentHealth {
        version: said.version,
        protocol,
        uptime_ms: said.uptime_ms,
        boot_id: said.boot_id,
        boot_nonce: said.boot_nonce,
        round_trip_ms: milliseconds(i128::try_from(round_trip.as_nanos()).unwrap_or(0)),
        clock_offset_ms: ahead_ns.map(milliseconds),
    });
}

/// One look at a VM.
#[derive(Debug, Clone, Default)]
struct Look {
    /// When; `None` is the boot.
    at: Option<Instant>,
    guest: GuestStats,
    vmm: Option<(ProcessHandle, Usage)>,
}

impl Look {
    /// What there was before anything happened.
    fn boot() -> Look {
        Look::default()
    }
}

/// What happened between two looks.
fn between(vm: &Vm, first: &Look, last: Look) -> StatsView {
    let guest = last.guest;
    let since = |now: u64, before: u64| now.saturating_sub(before);
    // The guest's own measure of time: under load its seconds are not ours.
    let total = since(guest.cpu_total_ms, first.guest.cpu_total_ms);
    let busy = since(guest.cpu_busy_ms, first.guest.cpu_busy_ms);
    let elapsed_ms = match (first.at, last.at) {
        (Some(first), Some(last)) => last.duration_since(first).as_millis(),
        _ => guest.uptime_ms.into(),
    };
    let elapsed_ms = u64::try_from(elapsed_ms).unwrap_or(u64::MAX);
    let vmm = last.vmm.map(|(process, usage)| {
        let before = first.vmm.filter(|(same, _)| *same == process);
        let worked = since(usage.cpu_ms, before.map_or(0, |(_, usage)| usage.cpu_ms));
        VmmUse {
            pid: process.pid,
            memory: usage.memory,
            cpu_ms: usage.cpu_ms,
            cpu_percent: percent(worked, elapsed_ms),
        }
    });
    StatsView {
        id: vm.id,
        name: vm.name.clone(),
        at_ms: crate::ops::now_ms(),
        interval_ms: elapsed_ms,
        cpu_percent: percent(busy.saturating_mul(guest.cpus.into()), total),
        memory_used: since(guest.memory_total, guest.memory_available),
        load: guest.load_hundredths.map(|load| f64::from(load) / 100.0),
        guest,
        vmm,
    }
}

/// A share in percent, to a tenth; nothing of nothing is nothing.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    let tenths = u128::from(part) * 1000 / u128::from(whole);
    f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
}

/// Nanoseconds as milliseconds, to a microsecond.
fn milliseconds(ns: i128) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "a clock that is off by 285 years may be off by a microsecond more"
    )]
    let us = (ns / 1000) as f64;
    us / 1000.0
}

/// A guest's answer within the time it may take.
async fn within<T>(
    vm: &Vm,
    what: &str,
    answer: impl Future<Output = std::result::Result<T, ClientError>>,
) -> Result<T> {
    let logs = format!("banger vm logs {}", vm.name);
    match tokio::time::timeout(LOOK_LIMIT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if error.unknown() => {
            let name = &vm.name;
            let message = format!("the agent of VM '{name}' is older than this daemon");
            let way_out =
                format!("banger vm stop {name}; banger vm start {name}: it boots with the new one");
            Err(ApiError::new(Code::Precondition, message)
                .caused_by(&error)
                .hint(way_out))
        }
        Ok(Err(error)) => {
            let message = format!("VM '{}' has not {what}", vm.name);
            Err(ApiError::new(Code::OperationFailed, message)
                .caused_by(&error)
                .hint(logs))
        }
        Err(_) => {
            let limit = LOOK_LIMIT.as_secs();
            let message = format!("VM '{}' has not {what} within {limit} s", vm.name);
            Err(ApiError::new(Code::Unavailable, message).hint(logs))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, busy: u64, total: u64, vmm_ms: u64) -> Look {
        let process = ProcessHandle {
            pid: 5,
            start_time: 6,
        };
        Look {
            at: Some(at),
            guest: GuestStats {
                cpus: 2,
                cpu_busy_ms: busy,
                cpu_total_ms: total,
                uptime_ms: 8000,
                memory_total: 100,
                memory_available: 30,
                load_hundredths: [5, 150, 0],
                ..GuestStats::default()
            },
            vmm: Some((
                process,
                Usage {
                    memory: 7,
                    cpu_ms: vmm_ms,
                },
            )),
        }
    }

    fn vm() -> Vm {
        serde_json::from_str(include_str!("../../../converge/tests/row.json")).unwrap()
    }

    /// One of two processors at work is 100 %, whatever time the host's clock says has gone by.
    #[test]
    fn shares_are_of_one_processor() {
        let start = Instant::now();
        let later = start + Duration::from_millis(500);
        let first = look(start, 1000, 10_000, 100);
        let view = between(&vm(), &first, look(later, 1200, 10_400, 400));
        assert_eq!((view.cpu_percent, view.interval_ms), (100.0, 500));
        assert_eq!(view.vmm.unwrap().cpu_percent, 60.0);
        assert_eq!((view.memory_used, view.load), (70, [0.05, 1.5, 0.0]));
    }

    #[test]
    fn one_look_gives_shares_since_the_boot() {
        let view = between(
            &vm(),
            &Look::boot(),
            look(Instant::now(), 4000, 16_000, 2000),
        );
        assert_eq!((view.cpu_percent, view.interval_ms), (50.0, 8000));
        assert_eq!(view.vmm.unwrap().cpu_percent, 25.0);
    }

    #[test]
    fn counts_that_went_back_are_no_share() {
        let start = Instant::now();
        let view = between(&vm(), &look(start, 50, 100, 9), look(start, 40, 90, 8));
        assert_eq!(
            (view.cpu_percent, view.vmm.unwrap().cpu_percent),
            (0.0, 0.0)
        );
    }

    #[test]
    fn times_are_shown_to_a_microsecond() {
        assert_eq!(milliseconds(1_234_999), 1.234);
        assert_eq!(milliseconds(-3_600_000_000_000), -3_600_000.0);
    }
}
