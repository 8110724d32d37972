//! What lies where on the disks of a guest: its agent makes it and mounts it, the host reads it when the guest is down.

/// Directory on the disk of changes: the upper layer of a root that is an overlay.
pub const UPPER: &str = "upper";
/// Directory on the disk of changes: what is bound over [`ENGINE_PLACES`], each by its last part.
pub const ENGINES: &str = "engines";
/// Where Docker, Podman (and CRI-O, Buildah), containerd and BuildKit keep what they store.
pub const ENGINE_PLACES: &[&str] = &[
    "/var/lib/docker",
    "/var/lib/containers",
    "/var/lib/containerd",
    "/var/lib/buildkit",
];
/// Directory on the work disk: what is bound over `/root`, once it is filled.
pub const HOME: &str = "root";
/// Places where the guest mounts what is on no disk.
pub const VOLATILE: &[&str] = &["/proc", "/sys", "/dev", "/run"];
/// Where the modules of a kernel are, below a directory of its release.
pub const MODULES: &str = "/lib/modules";
