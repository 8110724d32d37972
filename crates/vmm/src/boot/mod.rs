//! What a guest boots from: kernel, modules, initramfs, command line.

pub mod apt;
pub mod bzimage;
pub mod cmdline;
pub mod cpio;
pub mod deb;
pub mod depmod;
pub mod elf;
pub mod initramfs;
pub mod kernel;
pub mod modinfo;
pub mod modules;
pub mod package;
pub mod tsc;
pub mod unpack;
