//! Files, directories and disk copies on the real file system.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use banger_host::linux::{own_bytes, shares_blocks};
use banger_host::{Clock, DiskRecipe, ErrorKind, FileKind, Files, state_file};
use banger_model::ByteSize;
use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
};

#[test]
fn state_files_are_replaced_whole_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let path = dir.path().join("handles.json");
    // What a crash in the middle of an earlier replacement leaves.
    fs::write(
        state_file::temporary(&path),
        b"half, and longer than what follows",
    )
    .unwrap();
    state_file::replace(&host, &path, b"{1}").unwrap();
    state_file::replace(&host, &path, b"{2}").unwrap();
    assert_eq!(host.read(&path).unwrap().unwrap(), b"{2}");
    assert_eq!(host.list(dir.path()).unwrap(), ["handles.json"]);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn half_written_is_truncated_not_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let path = dir.path().join("file");
    host.write(&path, b"a long first half").unwrap();
    host.write(&path, b"short").unwrap();
    assert_eq!(host.read(&path).unwrap().unwrap(), b"short");
    host.sync_file(&path).unwrap();
    host.sync_dir(dir.path()).unwrap();
    assert!(host.sync_dir(&path).is_err(), "a file is no directory");
}

#[test]
fn what_is_not_there_is_said_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let gone = dir.path().join("gone");
    assert_eq!(host.read(&gone).unwrap(), None);
    assert_eq!(host.stat(&gone).unwrap(), None);
    assert!(host.list(&gone).unwrap().is_empty());
    for error in [
        host.unlink(&gone).unwrap_err(),
        host.rmdir(&gone).unwrap_err(),
        host.rename(&gone, &dir.path().join("x")).unwrap_err(),
        host.sync_file(&gone).unwrap_err(),
        host.mkdir(&gone.join("child")).unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("gone"), "{error}");
    }
    host.mkdir(&gone).unwrap();
    assert_eq!(host.mkdir(&gone).unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(gone.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    host.write(&gone.join("child"), b"").unwrap();
    assert_eq!(host.rmdir(&gone).unwrap_err().kind, ErrorKind::Exists);
}

#[test]
fn symlinks_are_seen_and_never_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let (target, link) = (dir.path().join("target"), dir.path().join("link"));
    fs::write(&target, b"theirs").unwrap();
    symlink(&target, &link).unwrap();
    assert_eq!(host.stat(&link).unwrap().unwrap().kind, FileKind::Symlink);
    assert!(host.write(&link, b"ours").is_err());
    let size = ByteSize::mib(1);
    assert!(host.make_disk(&link, &DiskRecipe::Sparse { size }).is_err());
    host.unlink(&link).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"theirs");
}

/// A template of 4 GiB with a little data at its start, in its middle and at its very end.
fn template(path: &Path) -> u64 {
    let len = 4 << 30;
    let file = fs::File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (at, byte) in [(0, 1), (4096 * 7 + 11, 2), (len / 2, 3), (len - 5000, 4)] {
        file.write_all_at(&[byte; 5000], at).unwrap();
    }
    file.sync_all().unwrap();
    len
}

/// CPU time of this thread, which does all the copying.
fn cpu() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(
        time.tv_sec.try_into().unwrap(),
        time.tv_nsec.try_into().unwrap(),
    )
}

#[test]
fn a_copied_disk_equals_its_template_and_stays_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let (from, to) = (dir.path().join("base"), dir.path().join("disk.part"));
    let len = template(&from);
    // Half made by one that died: longer, other content.
    fs::File::create(&to)
        .unwrap()
        .write_all(&vec![9; 100_000])
        .unwrap();
    let before = cpu();
    let recipe = DiskRecipe::CopyOf {
        template: from.clone(),
    };
    host.make_disk(&to, &recipe).unwrap();
    let cost = cpu() - before;
    println!(
        "a disk of 4 GiB, 20 kB of it data: {} us of CPU",
        cost.as_micros()
    );
    assert!(
        cost.as_millis() < 50,
        "the cost is that of the data: {cost:?}"
    );
    let seen = to.metadata().unwrap();
    assert_eq!(seen.len(), len);
    assert!(seen.blocks() * 512 < 256 << 10, "{} blocks", seen.blocks());
    let (a, b) = (fs::File::open(&from).unwrap(), fs::File::open(&to).unwrap());
    let (mut x, mut y) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    for at in [
        0,
        64 << 10,
        len / 4,
        len / 2,
        len / 2 + (64 << 10),
        len - (64 << 10),
    ] {
        a.read_exact_at(&mut x, at).unwrap();
        b.read_exact_at(&mut y, at).unwrap();
        assert!(x == y, "differs near {at}");
    }
    assert_eq!(y[(64 << 10) - 1], 4, "the end is data");
}

#[test]
fn a_disk_is_copied_between_file_systems() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        common::skip("a_disk_is_copied_between_file_systems: no /dev/shm");
        return;
    }
    let (dir, other) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir_in(shm).unwrap(),
    );
    let host = common::host(dir.path());
    let (from, to) = (dir.path().join("base"), other.path().join("disk"));
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    fs::write(&from, &bytes).unwrap();
    host.make_disk(&to, &DiskRecipe::CopyOf { template: from })
        .unwrap();
    assert!(fs::read(&to).unwrap() == bytes);
}

/// A clone is never a copy: it costs the same whatever is in it, or is refused with the reason. What a clone has alone is
/// what was written to it.
#[test]
fn a_disk_is_cloned_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let (template, disk) = (dir.path().join("base"), dir.path().join("disk"));
    fs::write(&template, vec![7; 8 << 20]).unwrap();
    let before = own_bytes(&template).unwrap();
    assert!(before >= 8 << 20, "{before}");
    let recipe = DiskRecipe::CloneOf {
        template: template.clone(),
    };
    let made = host.make_disk(&disk, &recipe);
    match shares_blocks(dir.path(), dir.path()) {
        Ok(()) => {
            made.unwrap();
            let clone = fs::File::options().write(true).open(&disk).unwrap();
            assert!(own_bytes(&disk).unwrap() < 64 << 10);
            clone.write_all_at(&vec![8; 1 << 20], 0).unwrap();
            clone.sync_all().unwrap();
            let own = own_bytes(&disk).unwrap();
            assert!((1 << 20..2 << 20).contains(&own), "{own}");
            assert!(fs::read(&template).unwrap() == vec![7; 8 << 20]);
        }
        Err(why) => {
            let error = made.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unsupported);
            assert_eq!(error.source.to_string(), why.to_string());
            assert!(why.to_string().contains("does not share blocks"), "{why}");
            assert_eq!(disk.metadata().unwrap().len(), 0, "nothing was copied");
        }
    }
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        let other = tempfile::tempdir_in(shm).unwrap();
        let away = host.make_disk(&other.path().join("disk"), &recipe);
        let error = away.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        let why = error.source.to_string();
        assert!(
            why.contains("two file systems") || why.contains("tmpfs"),
            "{why}"
        );
        let alone = shares_blocks(other.path(), other.path()).unwrap_err();
        assert!(alone.to_string().contains("is on tmpfs"), "{alone}");
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "no probe is left"
    );
}

#[test]
fn sparse_disks_take_no_space_and_a_lost_template_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    let disk = dir.path().join("cow.img");
    let size = ByteSize::gib(50);
    host.make_disk(&disk, &DiskRecipe::Sparse { size }).unwrap();
    let seen = disk.metadata().unwrap();
    assert_eq!((seen.len(), seen.blocks()), (50 << 30, 0));
    let template = dir.path().join("no-such-template");
    let error = host
        .make_disk(&disk, &DiskRecipe::CopyOf { template })
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.to_string().contains("no-such-template"), "{error}");
    let (free, total) = host.disk_space(dir.path()).unwrap();
    assert!(0 < free && free <= total);
}

#[test]
fn a_full_file_system_is_no_space() {
    needs_root!("a_full_file_system_is_no_space");
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    common::in_namespace(|| {
        use rustix::mount::{MountFlags, mount};
        mount(
            "tmpfs",
            dir.path(),
            "tmpfs",
            MountFlags::empty(),
            c"size=1m",
        )
        .unwrap();
        let path = dir.path().join("big");
        let error = host.write(&path, &vec![7; 2 << 20]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace);
        host.unlink(&path).unwrap();
    });
}

#[test]
fn the_boot_has_an_id_and_time_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let host = common::host(dir.path());
    assert_eq!(host.boot_id().unwrap().0.len(), 36);
    assert_eq!(host.boot_id().unwrap(), host.boot_id().unwrap());
    let before = host.monotonic();
    host.sleep(std::time::Duration::from_millis(2));
    assert!(host.monotonic() - before >= std::time::Duration::from_millis(2));
    assert!(host.now() > 1_700_000_000);
}
