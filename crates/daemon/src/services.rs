//! The services and how they find each other (R-SVC-3).
//!
//! A service reaches its peers when it needs them, never while it is built, so they can be built in any order.
//! [`wire_services`] fills only what is unset: what was put in first, a test's double for one, reaches every peer.

use crate::catalogue::Catalogue;
use crate::core::Core;
use crate::host_network::HostNetwork;
use crate::image_service::{ImageService, Images};
use crate::ops::Registry;
use crate::vm::VmService;
use banger_config::Config;
use banger_wire::api::{ApiError, Code};
use std::sync::{Arc, OnceLock};

/// The slots of the services; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Peers(Arc<Slots>);

#[derive(Debug, Default)]
struct Slots {
    network: OnceLock<Arc<HostNetwork>>,
    catalogue: OnceLock<Arc<Catalogue>>,
    images: OnceLock<Arc<dyn Images>>,
    vms: OnceLock<Arc<VmService>>,
}

fn there<T: ?Sized>(slot: &OnceLock<Arc<T>>, name: &str) -> Result<Arc<T>, ApiError> {
    slot.get().map(Arc::clone).ok_or_else(|| {
        ApiError::new(
            Code::Unavailable,
            format!("the daemon is not open yet: no {name}"),
        )
    })
}

impl Peers {
    /// HostNetwork.
    ///
    /// # Errors
    /// The daemon is not open.
    pub fn network(&self) -> Result<Arc<HostNetwork>, ApiError> {
        there(&self.0.network, "host network")
    }

    /// The catalogue of images.
    ///
    /// # Errors
    /// The daemon is not open.
    pub fn catalogue(&self) -> Result<Arc<Catalogue>, ApiError> {
        there(&self.0.catalogue, "catalogue of images")
    }

    /// ImageService.
    ///
    /// # Errors
    /// The daemon is not open.
    pub fn images(&self) -> Result<Arc<dyn Images>, ApiError> {
        there(&self.0.images, "image service")
    }

    /// VmService.
    ///
    /// # Errors
    /// The daemon is not open.
    pub fn vms(&self) -> Result<Arc<VmService>, ApiError> {
        there(&self.0.vms, "VM service")
    }

    /// Puts an image service in, unless there is one.
    pub fn set_images(&self, images: Arc<dyn Images>) {
        // Whoever came first stays.
        let _ = self.0.images.set(images);
    }
}

/// Fills every slot that is unset. Calling it again changes nothing.
pub fn wire_services(peers: &Peers, core: &Arc<Core>, registry: &Arc<Registry>, config: &Config) {
    peers
        .0
        .network
        .get_or_init(|| Arc::new(HostNetwork::new(Arc::clone(&core.host))));
    let catalogue = peers
        .0
        .catalogue
        .get_or_init(|| Arc::new(Catalogue::new(Arc::clone(core), config)));
    peers.set_images(Arc::new(ImageService::new(
        Arc::clone(core),
        Arc::clone(catalogue),
        Arc::clone(registry),
    )));
    peers.0.vms.get_or_init(|| {
        Arc::new(VmService::new(
            Arc::clone(core),
            peers.clone(),
            Arc::clone(registry),
            config.clone(),
        ))
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::catalogue::Pinned;
    use crate::core::DaemonHost;
    use crate::daemon::Daemon;
    use crate::ops::Operation;
    use crate::recipes::{DriverPaths, DriverRecipes};
    use banger_converge::{Bridge, Limits, Shared, Site};
    use banger_host::crash::{CrashAt, CrashPoints};
    use banger_host::linux::{LinuxConfig, LinuxHost};
    use banger_image::Manifest;
    use banger_model::{ByteSize, spec::Origin};
    use banger_plan::Pool;
    use banger_vmm::boot::kernel::Kernel;
    use banger_vmm::boot::pins::PinnedKernel;
    use banger_wire::api::{Paths, VmShape};
    use std::path::Path;

    /// Has nothing, and says so in words no other service has.
    #[derive(Debug)]
    struct NoImages;

    fn none() -> ApiError {
        ApiError::new(Code::NotFound, "the double has none")
    }

    impl Images for NoImages {
        fn image(&self, _: &str, _: &Operation) -> Result<(Manifest, Pinned), ApiError> {
            Err(none())
        }
        fn image_obstacles(&self, _: &str) -> Vec<ApiError> {
            vec![none()]
        }
        fn kernel_for(&self, _: &str) -> (String, Origin) {
            (String::new(), Origin::Builtin)
        }
        fn kernel(&self, _: &str, _: &Operation) -> Result<(Kernel, PinnedKernel), ApiError> {
            Err(none())
        }
        fn kernel_obstacles(&self, _: &str) -> Vec<ApiError> {
            Vec::new()
        }
        fn overlay_template(&self, _: ByteSize, _: &Operation) -> Result<(), ApiError> {
            Err(none())
        }
        fn root_template(&self, _: &Manifest, _: ByteSize, _: &Operation) -> Result<(), ApiError> {
            Err(none())
        }
        fn root_obstacles(&self, _: &str, _: ByteSize) -> Vec<ApiError> {
            Vec::new()
        }
        fn overlay_obstacles(&self, _: ByteSize) -> Vec<ApiError> {
            Vec::new()
        }
        fn work_template(&self, _: &Manifest, _: ByteSize, _: &Operation) -> Result<(), ApiError> {
            Err(none())
        }
        fn work_obstacles(&self, _: &str, _: ByteSize) -> Vec<ApiError> {
            Vec::new()
        }
    }

    /// A core over a new state directory.
    pub(crate) fn core(dir: &Path) -> Arc<Core> {
        let linux = LinuxHost::new(LinuxConfig {
            jail_root: dir.join("jails"),
            ..LinuxConfig::default()
        });
        let points = CrashPoints::from_env().unwrap();
        let host: Arc<DaemonHost> = Arc::new(CrashAt::new(linux, points));
        std::fs::create_dir(dir.join("vms")).unwrap();
        let opened = crate::recovery::open_state(&host, dir).unwrap();
        let site = Site {
            instance: opened.instance,
            state_dir: dir.to_owned(),
            runtime_dir: dir.to_owned(),
            bridge: Bridge {
                name: "br-test".to_owned(),
                pool: Pool {
                    host: std::net::Ipv4Addr::new(172, 16, 0, 1),
                    prefix: 24,
                },
            },
            limits: Limits::default(),
        };
        let paths = DriverPaths {
            qemu: None,
            path_var: None,
            data_dir: dir.to_owned(),
            agent: dir.join("agent"),
        };
        Arc::new(Core {
            recipes: DriverRecipes::new(Arc::clone(&host), site.clone(), paths),
            host,
            ledger: opened.ledger,
            site,
            shared: Shared::default(),
        })
    }

    /// R-SVC-1, R-SVC-3: after wiring all services exist, and wiring again replaces none.
    #[test]
    fn wiring_fills_what_is_unset_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (core, registry, config) = (core(dir.path()), Arc::default(), Config::default());
        let peers = Peers::default();
        let early = peers.clone();
        assert!(early.network().is_err() && early.images().is_err() && early.vms().is_err());
        wire_services(&peers, &core, &registry, &config);
        // Whoever took the slots before sees what is in them now.
        let (network, images) = (early.network().unwrap(), early.images().unwrap());
        let vms = early.vms().unwrap();
        wire_services(&peers, &core, &registry, &config);
        assert!(Arc::ptr_eq(&network, &peers.network().unwrap()));
        assert!(Arc::ptr_eq(&images, &peers.images().unwrap()));
        assert!(Arc::ptr_eq(&vms, &peers.vms().unwrap()));
    }

    /// R-SVC-3: a double that is put in first reaches every peer.
    #[tokio::test]
    async fn what_was_put_in_first_reaches_every_peer() {
        let dir = tempfile::tempdir().unwrap();
        let peers = Peers::default();
        peers.set_images(Arc::new(NoImages));
        let paths = Paths {
            state_dir: dir.path().to_owned(),
            runtime_dir: dir.path().to_owned(),
            config: dir.path().join("config.toml"),
        };
        let daemon = Daemon::compose(paths, &Config::default(), core(dir.path()), &peers).unwrap();
        let refused = daemon.vms().check(&VmShape::default(), None).await;
        let refused = refused.unwrap_err();
        assert!(
            refused.to_string().contains("the double has none"),
            "{refused}"
        );
    }

    /// R-SVC-2: the host network is given what it needs, and has nothing to read records from.
    #[test]
    fn the_host_network_knows_no_records() {
        for source in [
            include_str!("host_network/mod.rs"),
            include_str!("host_network/exit.rs"),
            include_str!("host_network/last_word.rs"),
        ] {
            for word in [
                "Ledger",
                "ledger",
                "banger_store",
                "Core",
                "Peers",
                "VmSpec",
                "Vm,",
                "&Vm",
            ] {
                let core_import = "use crate::core::DaemonHost;";
                assert!(!source.replace(core_import, "").contains(word), "{word}");
            }
        }
    }
}
