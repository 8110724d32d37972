//! Importing on this machine: every packing, ext4 files, names that move, and what a cancelled or failed import leaves.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod archive;

use archive::{Tar, look, names, store, tool};
use banger_image::{Error, Import, Manifest, Moves, Progress, Silent};
use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};
use tar::EntryType as T;

fn small() -> Vec<u8> {
    Tar::new()
        .file("bin/sh", &[7; 100_000])
        .link(T::Symlink, "sh", "bin/sh")
        .file("root/.profile", b"mine")
        .done()
}

fn wanted(names: &[&str], moves: Moves) -> Import {
    Import {
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        moves,
        ..Import::default()
    }
}

fn import(dir: &Path, mut bytes: &[u8], name: &str) -> Result<Manifest, Error> {
    store(dir).import(&mut bytes, &wanted(&[name], Moves::None), &Silent)
}

/// An ext4 file without a tar: what a user without root can import.
fn ext4(dir: &Path, extra: &[&str]) -> Vec<u8> {
    let path = dir.join("fs.ext4");
    let _ = fs::remove_file(&path);
    let mut args = ["-q", "-t", "ext4"].map(Path::new).to_vec();
    args.extend(extra.iter().map(Path::new));
    args.extend([path.as_path(), Path::new("8M")]);
    tool("mke2fs", &args);
    fs::read(&path).unwrap()
}

#[test]
fn every_packing_gives_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let tar = small();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    xz.write_all(&tar).unwrap();
    for (name, bytes) in [
        ("plain", tar.clone()),
        ("gzip", gzip.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd::bulk::compress(&tar, 1).unwrap()),
    ] {
        let image = import(dir.path(), &bytes, name).unwrap();
        let store = store(dir.path());
        let listed = look(&store.rootfs(&image), "ls -p /bin");
        assert!(
            listed.contains("/100755/0/0/sh/100000/") || listed.contains("sh/100000/"),
            "{name}: {listed}"
        );
        let home = store.home(&image);
        let home = tool("tar", &["-xOf".as_ref(), &home, "root/.profile".as_ref()]);
        assert_eq!(home, "mine", "{name}");
        if name != "plain" {
            // Cut anywhere it is refused, and nothing of it stays.
            for cut in [bytes.len() / 3, bytes.len() - 1] {
                assert!(
                    import(dir.path(), &bytes[..cut], "cut").is_err(),
                    "{name} cut at {cut}"
                );
            }
        }
    }
    // R-IMG-3: what is in it decides, and nothing else.
    let images = names(&dir.path().join("images"));
    assert_eq!(images.len(), 1, "{images:?}");
}

#[test]
fn an_ext4_file_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = ext4(dir.path(), &[]);
    let image = import(dir.path(), &bytes, "one").unwrap();
    let kept = store(dir.path()).rootfs(&image);
    assert_eq!(fs::read(&kept).unwrap(), bytes);
    let again = import(dir.path(), &bytes, "two").unwrap();
    assert_eq!(image.id, again.id, "the same content is the same image");
    let listed = store(dir.path()).list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].names, ["one", "two"]);
    // Packed, it is the same.
    let packed = zstd::bulk::compress(&bytes, 1).unwrap();
    assert_eq!(import(dir.path(), &packed, "three").unwrap().id, image.id);
}

#[test]
fn a_file_system_that_no_guest_could_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = ext4(dir.path(), &[]);
    let mut dirty = good.clone();
    dirty[1024 + 0x60] |= 0x4; // needs_recovery
    let mut broken = good.clone();
    for at in (4096..400_000).step_by(64) {
        broken[at] ^= 0xff;
    }
    let journal = ext4(dir.path(), &["-O", "journal_dev"]);
    let cut = &good[..good.len() / 2];
    for (what, bytes, word) in [
        ("a dirty one", &dirty[..], "not unmounted cleanly"),
        ("a broken one", &broken, "faults"),
        ("half of one", cut, "cut short"),
        ("a journal", &journal, "journal"),
    ] {
        let error = import(dir.path(), bytes, "x").unwrap_err();
        let text = error.to_string();
        assert!(text.contains(word), "{what}: {text}");
        assert!(
            !matches!(error, Error::BadFileSystem(_))
                || error.hint().unwrap().contains("e2fsck -fy")
        );
    }
    assert!(names(&dir.path().join("images")).is_empty());
}

/// A tag moves, and with it the names of the image that had it; another image's name does not, also one that was taken
/// while the pull ran.
#[test]
fn a_tag_moves_with_the_names_of_its_image_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let labelled = |label: &str| ext4(dir.path(), &["-L", label]);
    let pull = |bytes: &[u8], name: &str| {
        let tagged = wanted(&["box:1", name], Moves::First);
        store.import(&mut &bytes[..], &tagged, &Silent)
    };
    let other = import(dir.path(), &labelled("other"), "other").unwrap();
    let first = pull(&labelled("first"), "mine").unwrap();
    let second = pull(&labelled("second"), "mine").unwrap();
    assert_eq!(store.show("mine").unwrap().id, second.id);
    assert_eq!(store.inspect(&first.id).unwrap().names, [""; 0]);

    struct Meanwhile<'a, F: FnMut()>(&'a [u8], Option<F>);
    impl<F: FnMut()> Read for Meanwhile<'_, F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if let Some(mut begun) = self.1.take() {
                begun();
            }
            self.0.read(buffer)
        }
    }
    let (third, taken) = (labelled("third"), labelled("taken"));
    let mut source = Meanwhile(
        &third,
        Some(|| drop(import(dir.path(), &taken, "new").unwrap())),
    );
    let late = store.import(
        &mut source,
        &wanted(&["box:1", "new"], Moves::First),
        &Silent,
    );
    let late = late.unwrap_err();
    assert!(
        matches!(&late, Error::Exists { name, .. } if name == "new"),
        "{late}"
    );
    let refused = pull(&third, "other").unwrap_err();
    assert!(
        matches!(&refused, Error::Exists { id, .. } if *id == other.id),
        "{refused}"
    );
    let named = store.name(
        &second.id,
        &["box:1".to_owned(), "other".to_owned()],
        "r@sha256:0",
    );
    assert!(matches!(named, Err(Error::Exists { .. })), "{named:?}");
    assert_eq!(store.show("box:1").unwrap().id, second.id, "all or nothing");
}

/// R-IMG-5: a name that is taken stays, unless it is asked to move; then the image that had it has no name.
#[test]
fn names_move_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let first = import(dir.path(), &ext4(dir.path(), &[]), "name").unwrap();
    let other = ext4(dir.path(), &["-L", "other"]);
    let error = import(dir.path(), &other, "name").unwrap_err();
    assert!(
        matches!(&error, Error::Exists { id, .. } if *id == first.id),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("--replace"));
    let moved = store
        .import(
            &mut &other[..],
            &wanted(&["name", "more"], Moves::All),
            &Silent,
        )
        .unwrap();
    assert_ne!(first.id, moved.id);
    assert_eq!(store.show("name").unwrap().id, moved.id);
    assert_eq!(
        store.inspect(&first.id).unwrap().names,
        Vec::<String>::new()
    );
    assert_eq!(
        store.show(&first.id).unwrap().name,
        first.id,
        "it is called by its id"
    );

    // One of two names is taken away; by its id only with force.
    let nobody = |_: &str| Ok(Vec::new());
    let several = store.delete(&moved.id, false, &nobody, |_| ()).unwrap_err();
    assert!(matches!(several, Error::SeveralNames { .. }), "{several}");
    assert!(!store.delete("more", false, &nobody, |_| ()).unwrap().gone);
    assert!(matches!(store.show("more"), Err(Error::NotFound(_))));
    assert!(store.delete("name", false, &nobody, |_| ()).unwrap().gone);
    assert!(
        matches!(store.show("name"), Err(Error::NotFound(_))),
        "the old one does not get it back"
    );
    assert!(
        store
            .delete(&first.id[..4], false, &nobody, |_| ())
            .unwrap()
            .gone
    );
    assert!(names(&dir.path().join("images")).is_empty());
}

/// An image that lost its manifest is in no list and in the way of its own import until it is deleted by its id; what an
/// earlier delete could not unlink is in nobody's way.
#[test]
fn what_lost_its_manifest_is_deleted_by_its_id_and_imported_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, bytes) = (store(dir.path()), ext4(dir.path(), &["-L", "a"]));
    let images = dir.path().join("images");
    let import = Import {
        names: vec!["name".to_owned()],
        ..Import::default()
    };
    let id = store.import(&mut &bytes[..], &import, &Silent).unwrap().id;
    fs::remove_file(images.join(&id).join("manifest.json")).unwrap();
    assert_eq!(store.damaged().unwrap().len(), 1);
    let error = store.import(&mut &bytes[..], &import, &Silent).unwrap_err();
    assert!(error.hint().unwrap().contains(&id), "{error}");

    fs::create_dir_all(images.join(format!(".trash-{id}/stays"))).unwrap();
    let nobody = |_: &str| Ok(Vec::new());
    let part = store.delete(&id[..6], false, &nobody, |_| ());
    assert!(matches!(part, Err(Error::NotFound(_))), "only by all of it");
    let used = |_: &str| Ok(vec!["vm".to_owned()]);
    let used = store.delete(&id, false, &used, |_| ());
    assert!(matches!(used, Err(Error::InUse { .. })), "{used:?}");
    assert!(store.delete(&id, false, &nobody, |_| ()).unwrap().gone);
    assert_eq!(names(&images), [format!(".trash-{id}")]);
    let again = store.import(&mut &bytes[..], &import, &Silent).unwrap();
    assert_eq!(store.show("name").unwrap().id, again.id);
}

/// R-IMG-5: of two at once with one name exactly one wins, and the loser leaves nothing.
/// Ids are the beginnings of digests: that two begin alike must not give one the other's name.
#[test]
fn an_image_is_never_taken_for_another_of_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let first = import(dir.path(), &small(), "a").unwrap();
    let manifest = dir
        .path()
        .join("images")
        .join(&first.id)
        .join("manifest.json");
    let other = first.digest.replace(&first.digest[20..], "0");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace(&first.digest, &other)).unwrap();
    let second = import(dir.path(), &small(), "b");
    assert!(
        matches!(second, Err(Error::OtherDigest { .. })),
        "{second:?}"
    );
    let names: Vec<_> = store(dir.path()).list().unwrap();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].names, ["a"]);
}

#[test]
fn an_image_that_cannot_be_read_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let first = import(dir.path(), &small(), "a").unwrap();
    let whole = import(dir.path(), &ext4(dir.path(), &[]), "b").unwrap();
    let manifest = dir
        .path()
        .join("images")
        .join(&first.id)
        .join("manifest.json");
    fs::remove_file(&manifest).unwrap();
    fs::create_dir(&manifest).unwrap();
    let store = store(dir.path());
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.show("b").unwrap().id, whole.id);
    assert_eq!(store.damaged().unwrap().len(), 1);
}

#[test]
fn of_two_imports_of_one_name_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let both = [
        ext4(dir.path(), &["-L", "a"]),
        ext4(dir.path(), &["-L", "b"]),
    ];
    let barrier = std::sync::Barrier::new(2);
    let results = std::thread::scope(|scope| {
        let threads = both.each_ref().map(|bytes| {
            let (dir, barrier) = (dir.path(), &barrier);
            scope.spawn(move || {
                let mut slow = Gate {
                    bytes,
                    barrier,
                    passed: false,
                };
                store(dir).import(&mut slow, &wanted(&["name"], Moves::None), &Silent)
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    let won: Vec<_> = results.iter().flatten().collect();
    assert_eq!(won.len(), 1, "{results:?}");
    let lost = results.iter().find_map(|r| r.as_ref().err()).unwrap();
    assert!(matches!(lost, Error::Exists { .. }), "{lost}");
    assert_eq!(names(&dir.path().join("images")), [won[0].id.as_str()]);
}

/// Bytes whose first come when both importers have begun.
struct Gate<'a> {
    bytes: &'a [u8],
    barrier: &'a std::sync::Barrier,
    passed: bool,
}

impl Read for Gate<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.passed {
            self.barrier.wait();
            self.passed = true;
        }
        self.bytes.read(buffer)
    }
}

/// Cancels when it is asked for the n-th time.
struct After {
    asked: AtomicUsize,
    limit: usize,
}

impl Progress for After {
    fn stage(&self, _: &str) {}
    fn detail(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst) >= self.limit
    }
}

/// Cancelled at whatever moment, nothing is registered and nothing stays; or it was done before.
#[test]
fn a_cancelled_import_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cancelled, mut limit) = (0, 0);
    loop {
        let progress = After {
            asked: AtomicUsize::new(0),
            limit,
        };
        let import = wanted(&["name"], Moves::None);
        match store(dir.path()).import(&mut &small()[..], &import, &progress) {
            Err(Error::Cancelled) => cancelled += 1,
            Ok(_) => break,
            Err(other) => panic!("asked {limit} times: {other}"),
        }
        assert!(
            names(&dir.path().join("images")).is_empty(),
            "asked {limit} times"
        );
        limit += 1;
    }
    assert!(cancelled > 5, "only {cancelled} moments");
}

/// A source that breaks off is an error of the source, never a shorter image.
#[test]
fn a_source_that_breaks_off_is_no_image() {
    struct Breaks<'a>(&'a [u8]);
    impl Read for Breaks<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::ErrorKind::ConnectionAborted.into()),
                n => Ok(n),
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let whole = ext4(dir.path(), &[]);
    let mut kinds = vec![whole.clone(), whole[..100_000].to_vec()];
    kinds.push(small());
    kinds.push(zstd::bulk::compress(&small(), 1).unwrap());
    for bytes in kinds {
        let imported =
            store(dir.path()).import(&mut Breaks(&bytes), &wanted(&["x"], Moves::None), &Silent);
        assert!(matches!(imported, Err(Error::Source(_))), "{imported:?}");
        assert!(names(&dir.path().join("images")).is_empty());
    }
}
