//! `struct dm_ioctl` and what follows it in one buffer, read and written by offset.

use super::super::ioctl;
use crate::DmState;
use rustix::{
    io::Errno,
    ioctl::{Ioctl, IoctlOutput, Opcode, opcode},
};
use std::{ffi::c_void, os::fd::AsFd};

/// `sizeof(struct dm_ioctl)`; our data begin there.
const HEADER: usize = 312;
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const FLAGS: usize = 28;
const DEV: usize = 40;
const NAME: usize = 48;
const UUID: usize = 176;
/// `sizeof(struct dm_target_spec)`.
const TARGET_SPEC: usize = 40;

const DM_ACTIVE_PRESENT_FLAG: u32 = 1 << 5;
const DM_INACTIVE_PRESENT_FLAG: u32 = 1 << 6;
const DM_BUFFER_FULL_FLAG: u32 = 1 << 8;

/// The command numbers, in the header's order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    ListDevices = 2,
    DevCreate = 3,
    DevRemove = 4,
    DevSuspend = 6,
    DevStatus = 7,
    TableLoad = 9,
}

/// What a command says about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub uuid: String,
    pub state: DmState,
    /// Device number as stat(2) gives it.
    pub dev: u64,
}

/// The argument of one command, and its answer.
pub(super) struct Buffer(Vec<u64>);

struct Call<'a> {
    command: Command,
    buffer: &'a mut [u64],
}

// SAFETY: the kernel reads and writes at most `data_size` bytes from the address, which is the size of
// the buffer, which lives as long as the call.
unsafe impl Ioctl for Call<'_> {
    type Output = ();
    const IS_MUTATING: bool = true;
    fn opcode(&self) -> Opcode {
        // _IOWR(DM_IOCTL, nr, struct dm_ioctl)
        opcode::from_components(
            rustix::ioctl::Direction::ReadWrite,
            0xfd,
            self.command as u8,
            HEADER,
        )
    }
    fn as_ptr(&mut self) -> *mut c_void {
        self.buffer.as_mut_ptr().cast()
    }
    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<(), Errno> {
        Ok(())
    }
}

impl Buffer {
    fn empty(size: usize) -> Self {
        let mut buffer = Buffer(vec![0; size.div_ceil(8)]);
        buffer.put32(0, 4); // interface version 4.0.0, the oldest the kernel takes for it
        buffer.put32(DATA_SIZE, u32::try_from(size).unwrap_or(u32::MAX));
        buffer.put32(DATA_START, 312);
        buffer
    }

    /// For a command on the device of that name.
    pub(super) fn named(name: &str) -> Result<Self, Errno> {
        let mut buffer = Buffer::empty(1024);
        buffer.put(NAME, &ioctl::field::<128>(name)?);
        Ok(buffer)
    }

    /// The uuid a device is created with.
    pub(super) fn set_uuid(&mut self, uuid: &str) -> Result<(), Errno> {
        self.put(UUID, &ioctl::field::<129>(uuid)?);
        Ok(())
    }

    /// A table of one target over the whole device.
    pub(super) fn set_table(
        &mut self,
        sectors: u64,
        kind: &str,
        parameters: &str,
    ) -> Result<(), Errno> {
        // dm_target_spec: start, length (64 bits each), status, next (32 each), type (16 bytes).
        self.put(HEADER + 8, &sectors.to_ne_bytes());
        self.put(HEADER + 24, &ioctl::field::<16>(kind)?);
        self.put(HEADER + TARGET_SPEC, &ioctl::field::<256>(parameters)?);
        self.put32(TARGET_COUNT, 1);
        Ok(())
    }

    pub(super) fn call(&mut self, control: impl AsFd, command: Command) -> Result<(), Errno> {
        let buffer = &mut self.0;
        let call = Call { command, buffer };
        // SAFETY: the command reads and writes a dm_ioctl with its data, which this buffer is.
        unsafe { rustix::ioctl::ioctl(control, call) }
    }

    /// What the answer says about the device.
    pub(super) fn found(&self) -> Found {
        let flags = self.get32(FLAGS);
        let state = match flags {
            f if f & DM_ACTIVE_PRESENT_FLAG != 0 => DmState::Live,
            f if f & DM_INACTIVE_PRESENT_FLAG != 0 => DmState::Loaded,
            _ => DmState::Created,
        };
        Found {
            uuid: ioctl::text(&self.bytes()[UUID..UUID + 129]),
            state,
            // The kernel's huge encoding is the one of stat(2) for the numbers there are.
            dev: self.get64(DEV),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (i, &byte) in bytes.iter().enumerate() {
            let (word, shift) = ((at + i) / 8, (at + i) % 8);
            let mut split = self.0[word].to_ne_bytes();
            split[shift] = byte;
            self.0[word] = u64::from_ne_bytes(split);
        }
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_ne_bytes());
    }

    fn get32(&self, at: usize) -> u32 {
        let split = self.0[at / 8].to_ne_bytes();
        let half = at % 8;
        u32::from_ne_bytes([
            split[half],
            split[half + 1],
            split[half + 2],
            split[half + 3],
        ])
    }

    fn get64(&self, at: usize) -> u64 {
        self.0[at / 8]
    }
}

/// The names of all devices.
pub(super) fn names(control: impl AsFd) -> Result<Vec<String>, Errno> {
    let mut size = 16 << 10;
    loop {
        let mut buffer = Buffer::empty(size);
        buffer.call(&control, Command::ListDevices)?;
        if buffer.get32(FLAGS) & DM_BUFFER_FULL_FLAG != 0 {
            size *= 2;
            continue;
        }
        let start = usize::try_from(buffer.get32(DATA_START)).unwrap_or(HEADER);
        return Ok(parse_names(&buffer.bytes()[start..]));
    }
}

/// `struct dm_name_list`s: device number (64 bits, 0 where there is none), offset of the next (32 bits,
/// 0 in the last), name and NUL.
fn parse_names(mut data: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((head, name)) = data.split_at_checked(12) {
        if head[..8] == [0; 8] {
            break;
        }
        names.push(ioctl::text(name));
        let next = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
        match data.get(usize::try_from(next).unwrap_or(usize::MAX)..) {
            Some(rest) if next != 0 => data = rest,
            _ => break,
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_numbers_are_the_kernels() {
        let mut words = [0; 64];
        let call = Call {
            command: Command::TableLoad,
            buffer: &mut words,
        };
        assert_eq!(call.opcode(), 0xc138_fd09);
    }

    #[test]
    fn a_table_lies_where_the_kernel_looks() {
        let mut buffer = Buffer::named("banger1-x").unwrap();
        buffer.set_table(2048, "snapshot", "7:0 7:1 P 8").unwrap();
        let bytes = buffer.bytes();
        assert_eq!(bytes.len(), 1024);
        assert_eq!(&bytes[48..58], b"banger1-x\0");
        assert_eq!(bytes[312..320], [0; 8]);
        assert_eq!(bytes[320..328], 2048_u64.to_ne_bytes());
        assert_eq!(&bytes[336..345], b"snapshot\0");
        assert_eq!(&bytes[352..364], b"7:0 7:1 P 8\0");
        assert_eq!(buffer.get32(TARGET_COUNT), 1);
        assert!(Buffer::named(&"x".repeat(128)).is_err());
    }

    #[test]
    fn name_lists_are_read_to_their_end_and_no_further() {
        let entry = |dev: u64, next: u32, name: &str| {
            let mut bytes = [&dev.to_ne_bytes()[..], &next.to_ne_bytes(), name.as_bytes()].concat();
            bytes.resize(24, 0);
            bytes
        };
        let list = [
            entry(0xfd00, 24, "one"),
            entry(0xfd01, 0, "two"),
            entry(1, 0, "not"),
        ];
        assert_eq!(parse_names(&list.concat()), ["one", "two"]);
        assert!(parse_names(&entry(0, 0, "")).is_empty());
        assert!(parse_names(&[1, 2]).is_empty());
        // A next beyond the data ends it.
        assert_eq!(parse_names(&entry(7, 4096, "one")), ["one"]);
    }
}
