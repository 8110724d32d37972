//! The services and how they find each other (R-SVC-3).
//!
//! A service reaches its peers when it needs them, never while it is built, so they can be built in any order.
//! [`wire_services`] fills only what is unset: what was put in first, a test's double for one, reaches every peer.

use crate::config::Config;
use crate::core::Core;
use crate::host_network::HostNetwork;
use crate::image_service::{ImageService, Images};
use crate::ops::Registry;
use crate::vm::VmService;
use banger_wire::api::{ApiError, Code};
use std::sync::{Arc, OnceLock};

/// The slots of the services; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Peers(Arc<Slots>);

#[derive(Debug, Default)]
struct Slots {
    network: OnceLock<Arc<HostNetwork>>,
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
    peers.set_images(Arc::new(ImageService::new(Arc::clone(core))));
    peers.0.vms.get_or_init(|| {
        Arc::new(VmService::new(
            Arc::clone(core),
            peers.clone(),
            Arc::clone(registry),
            config.clone(),
        ))
    });
}
