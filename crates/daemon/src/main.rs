//! `bangerd`: one per user, started by the command line on first use.
//!
//! Birth ([`birth`]), the one instance ([`runtime_dir`]), the state directory ([`recovery`]), then the API
//! ([`server`]) over the services ([`services`]). How they fit: `docs/design/daemon.md`.

mod background;
mod birth;
mod blobs;
mod catalog;
mod catalogue;
mod core;
mod daemon;
mod doctor;
mod failed;
mod feed;
mod host_network;
mod image_build;
mod image_out;
mod image_outside;
mod image_service;
mod kernel_errors;
mod kernels;
mod ledger;
mod metrics;
mod ops;
mod place;
mod pull;
mod recipes;
mod recovery;
mod runtime_dir;
mod server;
mod services;
mod ssh_keys;
mod trash;
mod vm;

use crate::core::Core;
use banger_config::{Config, LogLevel, builtin};
use banger_host::crash::CrashPoints;
use banger_wire::api::{Paths, Version};
use birth::Readiness;
use std::{error::Error, io::Write, process::ExitCode, sync::Arc, time::Duration};

type Fatal = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let mut foreground = false;
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--foreground") => foreground = true,
            Some("--version") => {
                let Version {
                    version,
                    api,
                    build,
                } = Version::current();
                println!("bangerd {version} (api {api}, build {build})");
                return ExitCode::SUCCESS;
            }
            Some("--doctor") => return doctor::print(),
            _ => {
                eprintln!("error: bangerd takes --foreground, --doctor or --version, nothing else");
                return ExitCode::from(2);
            }
        }
    }
    let paths = Paths::of_process(rustix::process::geteuid().as_raw());
    let log = paths.as_ref().ok().map(Paths::daemon_log);
    let started = paths
        .map_err(Fatal::from)
        .and_then(|paths| start(foreground, paths));
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut told = vec![error.to_string()];
            let mut source = error.source();
            while let Some(cause) = source {
                told.push(cause.to_string());
                source = cause.source();
            }
            let told = format!("error: bangerd cannot start: {}", told.join(": "));
            eprintln!("{told}");
            // The log may not be open yet, and stderr may be nobody's: what started us shows the log's end.
            if let Some(log) = log.and_then(|log| birth::open_log(&log).ok()) {
                let _ = writeln!(std::fs::File::from(log), "{told}");
            }
            ExitCode::FAILURE
        }
    }
}

/// From birth to end. Nothing here may start a thread before the runtime does.
fn start(foreground: bool, paths: Paths) -> Result<(), Fatal> {
    runtime_dir::private_dir(&paths.runtime_dir)?;
    runtime_dir::private_dir(&paths.state_dir)?;
    let config = Config::load(&paths.config)?;
    let readiness = if foreground {
        Readiness::nobody()
    } else {
        birth::detach()?
    };
    birth::forget_caller()?;
    // Before the socket exists: of ten that start at once, nine end here and their commands find the tenth.
    let Some(_lock) = runtime_dir::our_turn(&paths.lock(), &paths.socket(), server::LONGEST_END)?
    else {
        readiness.ready();
        return Ok(());
    };
    if foreground {
        log_to_stderr(&config);
    } else {
        // What cannot be said in the log is said to whoever started us.
        birth::open_log(&paths.daemon_log())?;
        log_to_file(&config, &paths)?;
    }
    small_heap();
    // One thread for all that waits, and a pool for what blocks: the relay of frames is far from filling one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(64)
        .thread_keep_alive(Duration::from_secs(2))
        .thread_stack_size(512 * 1024)
        .enable_all()
        .build()?;
    let served = runtime.block_on(run(paths, config, foreground, readiness));
    runtime.shutdown_timeout(Duration::from_secs(2));
    served
}

/// Opens everything, listens, serves until asked to end.
async fn run(
    paths: Paths,
    config: Config,
    foreground: bool,
    readiness: Readiness,
) -> Result<(), Fatal> {
    let mut ends = Signals::listen()?;
    let core = Arc::new(open(&paths, &config)?);
    let peers = services::Peers::default();
    let daemon = daemon::Daemon::compose(paths.clone(), &config, Arc::clone(&core), &peers)?;
    let daemon = Arc::new(daemon);
    // Before any VM: one that is started again needs its kernel in its place.
    let kernels = daemon.kernels();
    let rests = core.blocking(move |_| kernels.sweep()).await;
    let rests = rests.unwrap_or_default();
    // Before anyone can ask for anything: nothing may happen to a VM before its past is settled.
    recovery::at_start(&core, &daemon.vms()).await?;
    // Only set aside: whoever started us waits, and unlinking may take minutes.
    let images = daemon.catalogue();
    let swept = core.blocking(move |_| images.sweep()).await;
    let trash = swept.unwrap_or_else(|error| {
        tracing::error!(%error, "what is left of images stays");
        Vec::new()
    });
    let listening = server::Listening::at(&paths.socket())?;
    if !foreground {
        birth::adopt_stdio(&paths.daemon_log())?;
    }
    tracing::info!(pid = std::process::id(), version = ?Version::current(), instance = %core.site.instance, "listening");
    readiness.ready();
    tokio::spawn(background::run(Arc::clone(&daemon)));
    let images = daemon.catalogue();
    let kernels = daemon.kernels();
    tokio::task::spawn_blocking(move || {
        images.unlink(&trash);
        kernels.unlink(&rests);
    });
    let signalled = Arc::clone(&daemon);
    tokio::spawn(async move {
        ends.received().await;
        signalled.finish();
    });
    server::serve(Arc::clone(&daemon), listening).await;
    daemon.vms().write_uses().await;
    tracing::info!("ended");
    Ok(())
}

fn open(paths: &Paths, config: &Config) -> Result<Core, Fatal> {
    let host = Arc::new(place::host(paths, CrashPoints::from_env()?));
    let opened = recovery::open_state(&host, &paths.state_dir)?;
    if let Err(error) = ssh_keys::make_identity(&host, &paths.state_dir) {
        // VMs run all the same.
        tracing::warn!(%error, "there is no SSH key that VMs could let in");
    }
    Ok(place::core(host, paths, config, opened)?)
}

const fn level(config: &Config) -> tracing::Level {
    let level = match config.log_level {
        Some(level) => level,
        None => builtin::LOG_LEVEL,
    };
    match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    }
}

/// Lines for a person, or for whatever keeps the output of a service.
fn log_to_stderr(config: &Config) {
    let lines = tracing_subscriber::fmt::layer().with_ansi(false);
    subscribe(config, lines.with_writer(std::io::stderr));
}

/// One JSON object per line; `banger daemon logs` shows it to a person.
fn log_to_file(config: &Config, paths: &Paths) -> Result<(), Fatal> {
    let file = std::fs::File::from(birth::open_log(&paths.daemon_log())?);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false);
    subscribe(config, lines.with_writer(std::sync::Mutex::new(file)));
    Ok(())
}

/// Our own words at the configured level; of libraries only what is wrong.
fn subscribe<L>(config: &Config, lines: L)
where
    L: tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync,
{
    use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};
    let ours = Targets::new()
        .with_default(tracing::Level::WARN)
        .with_target("bangerd", level(config));
    tracing_subscriber::registry().with(lines).with(ours).init();
}

/// glibc keeps a heap per thread that allocates at the same time as another; two are enough here and keep the idle
/// daemon small. What is freed in bulk goes back to the system.
fn small_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets parameters of the allocator; no other thread exists yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 * 1024);
    }
}

/// The signals that end the daemon in order; SIGHUP (a terminal that goes away) is none of them.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    _hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
