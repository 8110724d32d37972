//! The nouns of banger: ids, validated names, sizes with units, what a VM should be ([`VmSpec`],
//! [`Goal`]), what is durable about it ([`Vm`], [`VmRuntime`]) and what the kernel gave us for it
//! ([`VmHandles`]).
//!
//! Everything here is data and parsing: no I/O, no async, no clock.

pub mod catalog;
pub mod drivers;
pub mod handles;
pub mod hex;
pub mod id;
pub mod image;
pub mod image_origin;
pub mod init;
pub mod label;
pub mod lease;
pub mod name;
pub mod publish;
pub mod reference;
pub mod role;
pub mod size;
pub mod span;
pub mod spec;
pub mod vm;

pub use catalog::{
    CATALOG_MAX, Catalog, CatalogEntry, CatalogError, CatalogKind, CatalogPlace, is_catalog_name,
    url_without_secrets,
};
pub use drivers::{Drivers, NetworkDriver, RootDriver, VmmDriver};
pub use handles::{ProcessHandle, RecoveryMirror, VmHandles};
pub use id::{BootId, Generation, Instance, OpId, VmId};
pub use image::ImageConfig;
pub use image_origin::{ImageLayer, ImageOrigin, ImageStep};
pub use init::{Init, InitError};
pub use label::{Label, Owner};
pub use lease::{Lease, MacAddress};
pub use name::{DmName, NameError, TapName, VmName};
pub use publish::{PortError, PortWish, PublishedPort, parse_publish};
pub use reference::{ImageReference, ReferenceError};
pub use role::{Role, RoleSet};
pub use size::{ByteSize, SizeError};
pub use span::{Span, SpanError};
pub use spec::{Origin, VmSpec};
pub use vm::{Goal, Phase, Reason, ReasonKind, Vm, VmRuntime};
