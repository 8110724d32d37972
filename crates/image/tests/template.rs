//! Templates of empty disks, on this machine: whole, small, the same for every maker, and cheap to
//! copy.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod archive;

use archive::{Tar, header, store};
use banger_host::linux::{LinuxConfig, LinuxHost};
use banger_host::{DiskRecipe, Files, ToolCall, Tools};
use banger_image::template::{Volume, ext4};
use banger_image::{Error, Import, Manifest, Silent};
use banger_model::ByteSize;
use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};
use tar::EntryType;

const WORK: Volume<'_> = Volume::Work {
    image: "0123456789ab",
};

fn host() -> LinuxHost {
    LinuxHost::new(LinuxConfig::default())
}

fn run(host: &LinuxHost, program: &str, args: &[&str]) -> String {
    let call = ToolCall {
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        env: Default::default(),
        cwd: "/".into(),
        stdin: Vec::new(),
        timeout: Duration::from_secs(60),
    };
    let output = host.run_tool(&call, &mut |_| {}, &|| false).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn make(host: &LinuxHost, dir: &Path, volume: Volume<'_>, size: ByteSize) -> std::path::PathBuf {
    ext4(host, dir, volume, size, None, &|| false).unwrap()
}

#[test]
fn a_template_is_whole_small_and_needs_no_lazy_work_in_the_guest() {
    let (host, dir) = (host(), tempfile::tempdir().unwrap());
    for size in [ByteSize::mib(16), ByteSize::gib(8), ByteSize::gib(300)] {
        let path = make(&host, dir.path(), Volume::Overlay, size);
        let text = path.to_str().unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), size.bytes());
        assert!(
            meta.blocks() * 512 < 8 << 20,
            "{size}: {} KiB allocated",
            meta.blocks() / 2
        );
        run(&host, "e2fsck", &["-fn", text]);
        let dump = run(&host, "dumpe2fs", &[text]);
        for feature in [
            "has_journal",
            "resize_inode",
            "extent",
            "metadata_csum",
            "64bit",
        ] {
            assert!(dump.contains(feature), "{feature}");
        }
        assert!(dump.contains("banger-overlay"));
        let groups = dump
            .lines()
            .filter(|l| l.starts_with("Group ") && l.contains(": (Blocks "))
            .count();
        assert_eq!(
            dump.matches("ITABLE_ZEROED").count(),
            groups,
            "an inode table is left to the guest"
        );
    }
    let left: Vec<_> = host
        .list(dir.path())
        .unwrap()
        .into_iter()
        .filter(|n| n.ends_with(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// R-GUEST-7: a work disk starts as a copy of the image's `/root`, whoever owns what in it and whoever we are.
#[test]
fn a_work_disk_starts_with_the_images_home() {
    let (host, dir) = (host(), tempfile::tempdir().unwrap());
    let mut of_another = header(EntryType::Regular, "root/.config/a", 5);
    of_another.set_mode(0o4640);
    of_another.set_uid(1000);
    of_another.set_gid(70_000);
    of_another.set_cksum();
    let home = Tar::new()
        .file("etc/hosts", b"not kept")
        .pax(&[("mtime", b"-1.5"), ("SCHILY.xattr.user.note", b"n\0te")])
        .raw(of_another, b"words")
        .link(EntryType::Link, "root/again", "root/.config/a")
        .link(EntryType::Symlink, "root/link", ".config/a")
        .bytes_name(b"root/odd\n\xff", b"")
        .device("root/null", 1, 3)
        .pax(&[
            ("GNU.sparse.map", b"4096,4"),
            ("GNU.sparse.size", b"100000000"),
        ])
        .file("root/holes", b"data");
    let image = |name: &str, tar: Vec<u8>| {
        let import = Import {
            names: vec![name.to_owned()],
            ..Import::default()
        };
        let store = store(dir.path());
        store.import(&mut &tar[..], &import, &Silent).unwrap()
    };
    let made = |image: &Manifest, name: &str, size| {
        let to = dir.path().join(name);
        fs::create_dir(&to).unwrap();
        let home = store(dir.path()).home(image);
        ext4(&host, &to, WORK, size, Some(&home), &|| false).unwrap()
    };
    let look = |disk: &Path, command: &str| {
        run(&host, "debugfs", &["-R", command, disk.to_str().unwrap()])
    };
    let disk = made(&image("small", home.done()), "fits", ByteSize::gib(1));
    run(&host, "e2fsck", &["-fn", disk.to_str().unwrap()]);
    assert_eq!(look(&disk, "cat /root/.config/a"), "words");
    assert_eq!(look(&disk, "cat /root/again"), "words");
    let file = look(&disk, "stat /root/.config/a");
    for word in ["Mode:  04640", "User:  1000", "Group: 70000", "Links: 2"] {
        assert!(file.contains(word), "{word}: {file}");
    }
    assert!(file.contains("mtime: 0xfffffffe:77359400"), "{file}");
    assert!(look(&disk, "ea_get /root/.config/a user.note").contains("te"));
    assert!(look(&disk, "stat /root/link").contains("Fast link dest: \".config/a\""));
    assert!(look(&disk, "stat /root/null").contains("01:03"));
    let holes = look(&disk, "stat /root/holes");
    assert!(
        holes.contains("Size: 100000000") && holes.contains("Blockcount: 8"),
        "{holes}"
    );
    assert!(!look(&disk, "ls /").contains("etc"));

    // More than half of the disk: the guest copies it.
    let large = Tar::new().file("root/large", &vec![1; 9 << 20]).done();
    let large = image("large", large);
    let small = made(&large, "small", ByteSize::mib(16));
    assert!(!look(&small, "ls /").contains("root"));
    let fits = made(&large, "half", ByteSize::mib(20));
    assert!(look(&fits, "ls /").contains("root"));
}

#[test]
fn a_copy_is_whole_sparse_and_can_grow() {
    let (host, dir) = (host(), tempfile::tempdir().unwrap());
    let template = make(&host, dir.path(), WORK, ByteSize::gib(8));
    let copy = dir.path().join("copy.ext4");
    host.make_disk(
        &copy,
        &DiskRecipe::CopyOf {
            template: template.clone(),
        },
    )
    .unwrap();
    let (of_template, of_copy) = (
        fs::metadata(&template).unwrap(),
        fs::metadata(&copy).unwrap(),
    );
    assert_eq!(of_copy.len(), of_template.len());
    assert!(
        of_copy.blocks() <= of_template.blocks(),
        "holes were filled"
    );
    let text = copy.to_str().unwrap();
    run(&host, "e2fsck", &["-fn", text]);
    fs::OpenOptions::new()
        .write(true)
        .open(&copy)
        .unwrap()
        .set_len(64 << 30)
        .unwrap();
    run(&host, "e2fsck", &["-fp", text]);
    run(&host, "resize2fs", &[text]);
    run(&host, "e2fsck", &["-fn", text]);
    assert!(run(&host, "dumpe2fs", &["-h", text]).contains("Block count:              16777216"));
}

#[test]
fn a_template_is_made_once_and_volumes_differ() {
    let (host, dir) = (host(), tempfile::tempdir().unwrap());
    let size = ByteSize::gib(8);
    let paths: Vec<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| make(&host, dir.path(), WORK, size)))
            .collect();
        makers.into_iter().map(|m| m.join().unwrap()).collect()
    });
    assert!(paths.windows(2).all(|w| w[0] == w[1]));
    let inode = fs::metadata(&paths[0]).unwrap().ino();
    assert_eq!(make(&host, dir.path(), WORK, size), paths[0]);
    assert_eq!(fs::metadata(&paths[0]).unwrap().ino(), inode, "made again");

    let other = make(&host, dir.path(), Volume::Overlay, size);
    let uuid = |path: &Path| {
        let dump = run(&host, "dumpe2fs", &["-h", path.to_str().unwrap()]);
        dump.lines()
            .find(|l| l.starts_with("Filesystem UUID"))
            .unwrap()
            .to_owned()
    };
    assert_ne!(uuid(&paths[0]), uuid(&other));
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(
        uuid(&make(&host, elsewhere.path(), WORK, size)),
        uuid(&paths[0])
    );
}

#[test]
fn sizes_no_file_system_can_have_are_refused_before_anything_is_made() {
    let (host, dir) = (host(), tempfile::tempdir().unwrap());
    for size in [0, 4096, (64 << 20) + 1] {
        let made = ext4(&host, dir.path(), WORK, ByteSize(size), None, &|| false);
        assert!(
            matches!(made, Err(Error::BadSize(n)) if n == size),
            "{made:?}"
        );
    }
    let left: Vec<_> = host
        .list(dir.path())
        .unwrap()
        .into_iter()
        .filter(|n| n != ".lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Nobody may ever ask for it again.
#[test]
fn a_template_that_was_not_finished_leaves_nothing() {
    let (host, dir) = (host(), tempfile::tempdir().unwrap());
    let content = dir.path().join("home.tar");
    fs::write(&content, b"cut").unwrap();
    let size = ByteSize::gib(8);
    let made = ext4(&host, dir.path(), WORK, size, Some(&content), &|| false);
    assert!(made.is_err());
    let left = || -> Vec<_> {
        let names = host.list(dir.path()).unwrap();
        names.into_iter().filter(|n| n.contains("ext4-v")).collect()
    };
    assert_eq!(left(), [""; 0]);
    // A killed maker's goes when the next daemon starts.
    let path = banger_image::template::path(dir.path(), WORK, size);
    let part = banger_host::state_file::temporary(&path);
    fs::write(&part, b"half").unwrap();
    banger_image::template::keep_only(&host, dir.path(), &["0123456789ab".to_owned()]).unwrap();
    assert_eq!(left(), [""; 0]);
}
