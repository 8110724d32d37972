//! VMM drivers: QEMU; kernels, initramfs, boot arguments; probing.
//!
//! [`boot`] makes what a guest boots from, [`qemu`] turns a plan of a VM into a process specification and talks to the
//! running process, [`probe`] finds out what this machine can do, [`retry`] decides about boots that said nothing.
//! Why each argument is what it is: `docs/design/boot.md`.

pub mod boot;
pub mod probe;
pub mod qemu;
pub mod retry;
pub mod tree;
