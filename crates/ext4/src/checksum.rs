//! CRC-32C as feature `metadata_csum` has it: without the inversion before and after that the usual form has, each kind of
//! structure with a seed of its own (`Documentation/filesystems/ext4/checksums.rst`).

/// A checksum on the way: what has been summed up until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum(u32);

impl Checksum {
    /// The start of the superblock's.
    pub const START: Checksum = Checksum(!0);

    /// The start of all others: the file system's UUID.
    pub fn of_file_system(uuid: &[u8; 16]) -> Checksum {
        Checksum::START.bytes(uuid)
    }

    /// The start that a superblock tells, where it does not follow from the UUID.
    pub fn from_value(value: u32) -> Checksum {
        Checksum(value)
    }

    /// The start of everything that belongs to an inode. Generations are 0.
    pub fn of_inode(self, number: u32) -> Checksum {
        self.word(number).word(0)
    }

    /// Goes on with bytes.
    pub fn bytes(self, bytes: &[u8]) -> Checksum {
        // The crate inverts before and after; inverted twice it is the plain form.
        Checksum(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// Goes on with a number, lowest byte first.
    pub fn word(self, value: u32) -> Checksum {
        self.bytes(&value.to_le_bytes())
    }

    /// The sum.
    pub fn value(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Checksum;

    #[test]
    fn it_is_the_plain_form_of_the_well_known_value() {
        // CRC-32C of "123456789" is e3069283 with the inversion at the end.
        assert_eq!(
            !Checksum::START.bytes(b"123456789").value(),
            0xe306_9283,
            "RFC 3720's polynomial"
        );
        assert_eq!(
            Checksum::START.bytes(b"1234").bytes(b"56789"),
            Checksum::START.bytes(b"123456789"),
            "pieces add up"
        );
    }
}
