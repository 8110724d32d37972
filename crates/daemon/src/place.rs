//! Where this instance is and what it stands on, from its paths and its configuration.

use crate::core::{Core, DaemonHost};
use crate::recipes::{DriverPaths, DriverRecipes};
use crate::recovery::Opened;
use banger_config::{Config, builtin};
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
    let span = |wanted: Option<Span>, or| wanted.unwrap_or(or).duration();
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
            hello: span(config.boot_timeout, builtin::BOOT_TIMEOUT),
            power_off: span(config.stop_timeout, builtin::STOP_TIMEOUT),
            terminate: span(config.terminate_timeout, builtin::TERMINATE_TIMEOUT),
            ..Limits::default()
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

#[cfg(test)]
mod tests {
    use super::*;
    use banger_image::DebianBuild;
    use banger_model::Instance;
    use banger_wire::api::Paths;

    /// What lower crates are tried with, and what they build, is what users have who set nothing.
    #[test]
    fn lower_crates_have_the_defaults_of_the_configuration() {
        let paths = Paths::resolve(|_| Some("/x".into()), 0).unwrap();
        let site = site(&paths, &Config::default(), Instance::from_bytes([0; 4]));
        assert_eq!(site.limits, Limits::default());
        assert_eq!(DebianBuild::DEFAULT_NAME, builtin::IMAGE);
    }
}
