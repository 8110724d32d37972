//! The kernel as the judge: an overlay that it mounts as the agent does, with changes of every kind made in it, is packed
//! where it is mounted and by the reader from the disks. Needs root, for mounting; everything is gone with the test's thread.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking; mounting is a program's"
)]

mod common;

use banger_ext4::Options;
use banger_tree::Pack;
use common::{Is, Maker, Sink, overlay, told};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a test in mounts of its own, if it runs as root.
fn in_own_mounts(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        banger_testkit::skip("mounting needs root");
        return;
    }
    let thread = std::thread::spawn(|| {
        // SAFETY: no memory or descriptor is unshared, only this thread's mounts and working directory.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
        sh("mount --make-rprivate /");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn sh(words: &str) {
    let out = Command::new("sh").args(["-euc", words]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{words}: {said}");
}

fn options(journal: bool) -> Options {
    let mut options = Options::new(*b"banger-disks-tst");
    options.size = Some(64 << 20);
    options.journal = journal;
    options
}

/// An image with a bit of everything, and an empty disk of changes.
fn disks(dir: &Path) -> (PathBuf, PathBuf) {
    let (base, changes) = (dir.join("base"), dir.join("changes"));
    let mut image = Maker::of(&[
        ("etc/passwd", Is::File("root:x:0:0\n")),
        ("etc/link", Is::Link("passwd")),
        ("usr/share/doc/one/copyright", Is::File("a")),
        ("usr/share/doc/two/copyright", Is::File("b")),
        ("bin", Is::Link("usr/bin")),
        ("usr/bin/tool", Is::File("#!/bin/sh\n")),
        ("usr/bin/same", Is::Same("usr/bin/tool")),
        ("usr/bin/again", Is::Same("usr/bin/tool")),
        ("opt/pipe", Is::Fifo),
        ("opt/empty", Is::Dir),
    ]);
    for at in 0..600 {
        image.put(&format!("many/d{}/f{at}", at % 7), Is::File("many"));
    }
    let made = |path: &Path| File::create_new(path).unwrap();
    image.write_to(&made(&base), &options(false));
    let empty = Maker::of(&[("upper", Is::Dir), ("work", Is::Dir)]);
    empty.write_to(&made(&changes), &options(true));
    (base, changes)
}

/// Mounts them as the agent does.
fn mount(dir: &Path) {
    let dir = dir.display();
    sh(&format!(
        "cd {dir}; mkdir -p lower over root; mount -t ext4 -o loop,ro,noload base lower
        mount -t ext4 -o loop,noatime changes over
        mount -t overlay overlay root -o \
        lowerdir=lower,upperdir=over/upper,workdir=over/work,redirect_dir=on,metacopy=off,index=off"
    ));
}

/// What is mounted, packed there, is what is read from these disks.
fn assert_alike(dir: &Path, changes: &str) {
    let mut mounted = Sink::default();
    let what = Pack {
        source: &dir.join("root"),
        follow: false,
        name: b"",
    };
    banger_tree::pack(&what, &mut mounted).unwrap();
    let open = |name: &str| File::open(dir.join(name)).unwrap();
    let view = overlay(open("base"), open(changes));
    let read = common::packed(&view, "/", false).unwrap();
    let (expected, found) = (told(&mounted.bytes), told(&read.bytes));
    assert!(expected.len() > 200, "{}", expected.len());
    for path in expected.keys().chain(found.keys()) {
        assert_eq!(found.get(path), expected.get(path), "{path}");
    }
    let left_out = |sink: &Sink| {
        let mut names: Vec<String> = sink
            .warnings
            .iter()
            .map(|w| w.rsplit('/').next().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(left_out(&read), left_out(&mounted));
}

/// The disk of changes as it would be found if the VMM were killed now.
fn torn(dir: &Path) {
    sh(&format!(
        "cd {}; sync -f root; cp --sparse=always --reflink=never changes torn",
        dir.display()
    ));
    let mut state = [0; 4];
    let torn = File::open(dir.join("torn")).unwrap();
    FileExt::read_exact_at(&torn, &mut state, 1024 + 0x60).unwrap();
    assert!(
        u32::from_le_bytes(state) & 4 != 0,
        "the journal is to be needed"
    );
}

#[test]
fn every_kind_of_change_is_seen_as_the_kernel_sees_it() {
    in_own_mounts(|| {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        disks(dir);
        mount(dir);
        sh(&format!(
            "cd {}/root
            echo more >>etc/passwd; rm etc/link; ln -s ../usr etc/link; chmod 4711 usr/bin/tool
            rm -r usr/share/doc/one; mkdir -p usr/share/doc/one/new; echo x >usr/share/doc/one/new/x
            mv usr/share/doc/two usr/share/doc/renamed; mv usr/share/doc moved; echo in >moved/renamed/in
            mv many/d0 many/d1/inside; rm -r many/d2; mv many/d3 many/d2; echo f >many/d3; rm many/d4/f4
            rm -r opt/empty; echo file >opt/empty; mkdir a; mv etc/passwd a/; ln a/passwd a/linked
            mkfifo a/fifo; mknod a/device c 1 3; ln usr/bin/same a/third
            truncate -s 40M a/sparse; printf x | dd of=a/sparse bs=1 seek=20M conv=notrunc 2>/dev/null
            head -c 300000 /dev/urandom >a/large; chown 1000:100000 a/large; touch -d '1930-01-01 00:00:00.5' a/large
            mkdir a/deep; mv a/deep moved/; mv moved a/; mv many/d5 a/moved/deep/; ln -s nowhere a/dangling",
            dir.display()
        ));
        torn(dir);
        assert_alike(dir, "torn");
        sh(&format!(
            "cd {}; sync -f root; mount -o remount,ro over",
            dir.display()
        ));
        assert_alike(dir, "changes");
    });
}

/// A row of numbers that looks like chance, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from((self.0 >> 33) % n as u64).unwrap()
    }
}

/// Any directory or file below, never the root.
fn anything(root: &Path, dice: &mut Dice) -> Option<PathBuf> {
    let mut here = root.to_owned();
    loop {
        let mut names: Vec<_> = fs::read_dir(&here)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        names.sort();
        if names.is_empty() {
            return (here != root).then_some(here);
        }
        here = names.swap_remove(dice.below(names.len()));
        if !here.symlink_metadata().unwrap().is_dir() || dice.below(3) == 0 {
            return Some(here);
        }
    }
}

/// A directory of a few files.
fn few(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else {
        return false;
    };
    let files: Vec<bool> = entries
        .map(|e| e.unwrap().file_type().unwrap().is_file())
        .collect();
    files.len() < 20 && files.iter().all(|is_file| *is_file)
}

/// A change; one that the system refuses is none.
fn change(root: &Path, dice: &mut Dice) -> Option<()> {
    let one = anything(root, dice)?;
    let other = anything(root, dice)?;
    let is_dir = |path: &Path| path.symlink_metadata().is_ok_and(|m| m.is_dir());
    let place = if is_dir(&other) {
        other.clone()
    } else {
        other.parent()?.to_owned()
    };
    let name = ["a", "b", "d1", "f3", "new"][dice.below(5)];
    let target = place.join(name);
    match dice.below(9) {
        0 => fs::remove_file(&one).or_else(|_| fs::remove_dir(&one)),
        // Not so much that nothing is left.
        1 if few(&one) => fs::remove_dir_all(&one),
        2 => fs::rename(&one, target),
        3 => fs::rename(&one, &other),
        4 => fs::create_dir(target),
        // A fifo would wait for its reader.
        5 if target.symlink_metadata().is_err() => fs::write(target, format!("{}", dice.0)),
        6 if !is_dir(&one) => fs::hard_link(&one, target),
        7 => std::os::unix::fs::symlink("../x", target),
        _ if one.symlink_metadata().is_ok_and(|m| m.is_file()) => fs::write(&one, "changed"),
        _ => Ok(()),
    }
    .ok()
}

#[test]
fn any_row_of_changes_is_seen_as_the_kernel_sees_it() {
    in_own_mounts(|| {
        for seed in 1..=6 {
            let home = tempfile::tempdir().unwrap();
            let dir = home.path();
            disks(dir);
            mount(dir);
            let mut dice = Dice(seed);
            let changed = (0..400)
                .filter_map(|_| change(&dir.join("root"), &mut dice))
                .count();
            assert!(changed > 100, "{changed}");
            torn(dir);
            assert_alike(dir, "torn");
            let dir = dir.display();
            sh(&format!("cd {dir}; umount root over lower"));
        }
    });
}
