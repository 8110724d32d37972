//! What of an image's fstab(5) means anything in a VM.

/// The table without the lines that cannot be obeyed here; `None` if all can. Those wait for a device by a name that
/// is not there (systemd waits for 90 s, and a failure stops its boot), or would mount again what is mounted:
/// root and `/root`. `exists` says whether a device node is there.
pub fn without_absent(table: &str, exists: impl Fn(&str) -> bool) -> Option<String> {
    let kept: String = table
        .split_inclusive('\n')
        .filter(|line| keeps(line, &exists))
        .collect();
    (kept != table).then_some(kept)
}

fn keeps(line: &str, exists: &impl Fn(&str) -> bool) -> bool {
    let mut fields = line.split_whitespace();
    let (Some(source), target) = (fields.next(), fields.next()) else {
        return true;
    };
    if source.starts_with('#') {
        return true;
    }
    // Disks of a VM are found by their serial; none carries the names of the machine the image was made for.
    let by_tag = ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID="]
        .iter()
        .any(|tag| source.starts_with(tag));
    let absent = by_tag || source.starts_with("/dev/") && !exists(source);
    !absent && !matches!(target, Some("/" | "/root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_stays() {
        let good =
            "# a comment\n\ntmpfs /tmp tmpfs defaults 0 0\n/dev/vda /mnt ext4 defaults 0 0\n";
        let exists = |device: &str| device == "/dev/vda";
        assert_eq!(without_absent(good, exists), None);
        for bad in [
            "UUID=0a1b / ext4 errors=remount-ro 0 1\n",
            "PARTUUID=1 /boot/efi vfat umask=0077 0 1\n",
            "/dev/sdb1 /data ext4 defaults 0 2\n",
            "/dev/vdz none swap sw 0 0\n",
            "/dev/vda\t/\text4 defaults 0 1\n",
            "tmpfs /root tmpfs defaults 0 0",
        ] {
            let table = format!("{good}{bad}");
            assert_eq!(
                without_absent(&table, exists).as_deref(),
                Some(good),
                "{bad}"
            );
        }
    }
}
