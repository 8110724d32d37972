//! The ioctl shapes that `rustix` has no safe call for.

use rustix::{
    io::Errno,
    ioctl::{Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl},
};
use std::{ffi::c_void, os::fd::AsFd};

/// An ioctl whose argument is a plain integer (or nothing: 0) and whose answer is its return value.
struct Number {
    opcode: Opcode,
    argument: usize,
}

// SAFETY: the argument is a value, not an address; nothing is read or written through it.
unsafe impl Ioctl for Number {
    type Output = u32;
    const IS_MUTATING: bool = false;
    fn opcode(&self) -> Opcode {
        self.opcode
    }
    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.argument)
    }
    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> Result<u32, Errno> {
        u32::try_from(answer).map_err(|_| Errno::RANGE)
    }
}

/// Calls an ioctl that takes an integer by value.
///
/// # Safety
/// The kernel must take the argument of `opcode` on this kind of file as a value, not an address.
pub(super) unsafe fn number(fd: impl AsFd, opcode: Opcode, argument: usize) -> Result<u32, Errno> {
    let call = Number { opcode, argument };
    // SAFETY: promised by our caller.
    unsafe { ioctl(fd, call) }
}

/// Calls an ioctl that reads a `T`.
///
/// # Safety
/// `T` must be what the kernel reads for this opcode on this kind of file.
pub(super) unsafe fn give<const OPCODE: Opcode, T>(fd: impl AsFd, value: T) -> Result<(), Errno> {
    // SAFETY: promised by our caller.
    unsafe { ioctl(fd, Setter::<OPCODE, T>::new(value)) }
}

/// Calls an ioctl that reads and writes a `T` in place.
///
/// # Safety
/// `T` must be what the kernel reads and writes for this opcode, and valid for every bit pattern.
pub(super) unsafe fn change<const OPCODE: Opcode, T>(
    fd: impl AsFd,
    value: &mut T,
) -> Result<(), Errno> {
    // SAFETY: promised by our caller.
    unsafe { ioctl(fd, Updater::<OPCODE, T>::new(value)) }
}

/// Copies a text into a fixed field of the kernel's, with at least one NUL behind it.
pub(super) fn field<const N: usize>(text: &str) -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    if text.len() >= N || text.bytes().any(|b| b == 0) {
        return Err(Errno::NAMETOOLONG);
    }
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Ok(bytes)
}

/// The text in a fixed field of the kernel's.
pub(super) fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}
