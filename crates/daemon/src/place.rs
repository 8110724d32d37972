//! Where this instance is and what it stands on, from its paths and its configuration.

use crate::core::{Core, DaemonHost};
use crate::recipes::{DriverPaths, DriverRecipes};
use crate::recovery::Opened;
use banger_config::Config;
use banger_converge::{Bridge, Limits, Shared, Site};
use banger_host::crash::{CrashAt, CrashPoints};
use banger_host::linux::{LinuxConfig, LinuxHost};
use banger_model::Span;
use banger_plan::Pool;
use banger_wire::api::Paths;
use std::{io, net::Ipv4Addr, path::PathBuf, sync::Arc};

/// The machine.
pub fn host(paths: &Paths, points: CrashPoints) -> DaemonHost {
    let linux = LinuxHost::new(LinuxConfig {
        jail_root: paths.runtime_dir.join("jails"),
        ..LinuxConfig::default()
    });
    CrashAt::new(linux, points)
}

/// All that the services stand on. Looks at nothing yet.
///
/// # Errors
/// The system does not say where we are.
pub fn core(
    host: Arc<DaemonHost>,
    paths: &Paths,
    config: &Config,
    opened: Opened,
) -> io::Result<Core> {
    let site = site(paths, config, opened.instance);
    let drivers = DriverPaths {
        qemu: config.qemu_bin.clone(),
        path_var: std::env::var_os("PATH"),
        data_dir: data_dir(),
        agent: beside_us("banger-agent")?,
    };
    Ok(Core {
        recipes: DriverRecipes::new(Arc::clone(&host), site.clone(), drivers),
        host,
        ledger: opened.ledger,
        site,
        shared: Shared::default(),
    })
}

fn site(paths: &Paths, config: &Config, instance: banger_model::Instance) -> Site {
    let standard = Limits::default();
    let span = |wanted: Option<Span>, or| wanted.map_or(or, Span::duration);
    Site {
        instance,
        state_dir: paths.state_dir.clone(),
        runtime_dir: paths.runtime_dir.clone(),
        bridge: Bridge {
            name: "br-fc".to_owned(),
            pool: Pool {
                host: Ipv4Addr::new(172, 16, 0, 1),
                prefix: 24,
            },
        },
        limits: Limits {
            hello: span(config.boot_timeout, standard.hello),
            power_off: span(config.stop_timeout, standard.power_off),
            terminate: span(config.terminate_timeout, standard.terminate),
            ..standard
        },
    }
}

/// Where `scripts/install-qemu` puts a QEMU of banger's own.
fn data_dir() -> PathBuf {
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".local/share");
    base.filter(|p| p.is_absolute())
        .unwrap_or_else(home)
        .join("banger")
}

fn beside_us(name: &str) -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}
