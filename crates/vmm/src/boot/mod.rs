//! What a guest boots from: kernel, modules, initramfs, command line.

pub mod apt;
pub mod build;
pub mod bzimage;
pub mod cache;
pub mod cmdline;
pub mod config;
mod control;
pub mod cpio;
pub mod deb;
pub mod depmod;
pub mod elf;
pub mod initramfs;
pub mod kernel;
pub mod modinfo;
pub mod modules;
pub mod needs;
pub mod package;
pub mod pins;
pub mod publish;
pub mod shelf;
pub mod source;
mod survey;
pub mod tsc;
pub mod unpack;
