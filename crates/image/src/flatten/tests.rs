//! Layers made by hand, and what must come of them.

use super::Flatten;
use crate::layer::{Entry, Form, Piece, What};
use crate::{Error, Limits};
use banger_ext4::{InodeId, Kind, Layout, Meta, Options, Tree};
use proptest::prelude::*;

fn entry(path: &str, what: What) -> Entry {
    let meta = Meta {
        mode: 0o640,
        uid: 7,
        ..Meta::default()
    };
    let path = path.as_bytes().to_vec();
    Entry { path, meta, what }
}

/// `d/` a directory, `l->t` a symlink, `l=>t` a hard link, `-p` a whiteout, `!d` an opaque directory, else a file.
fn said(text: &str) -> Entry {
    if let Some(path) = text.strip_prefix('-') {
        return entry(path, What::Whiteout);
    }
    if let Some(path) = text.strip_prefix('!') {
        return entry(path, What::Opaque);
    }
    if let Some((path, target)) = text.split_once("->") {
        return entry(path, What::Symlink(target.into()));
    }
    if let Some((path, target)) = text.split_once("=>") {
        return entry(path, What::HardLink(target.into()));
    }
    match text.strip_suffix('/') {
        Some(path) => entry(path, What::Directory),
        None => entry(text, file()),
    }
}

fn file() -> What {
    let piece = Piece {
        offset: 0,
        len: 5,
        from: 512,
    };
    What::File {
        size: 5,
        pieces: vec![piece],
    }
}

/// Every path with what it is: files with the layer their bytes are in, directories that nobody spoke of with `?`.
fn shown(tree: &Tree, layer_of: &dyn Fn(InodeId) -> u32) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![(String::new(), InodeId::ROOT)];
    while let Some((path, dir)) = left.pop() {
        let Kind::Directory(entries) = &tree.inodes[dir.0 as usize].kind else {
            panic!("{path} is no directory");
        };
        for entry in entries {
            let path = format!("{path}{}", String::from_utf8_lossy(&entry.name));
            let inode = &tree.inodes[entry.inode.0 as usize];
            lines.push(match &inode.kind {
                Kind::Directory(_) => {
                    left.push((format!("{path}/"), entry.inode));
                    let implied = if inode.meta.mode == 0o755 { "?" } else { "" };
                    format!("{path}/{implied}")
                }
                Kind::File { .. } => format!("{path} {}", layer_of(entry.inode)),
                Kind::Symlink(text) => format!("{path}->{}", String::from_utf8_lossy(text)),
                other => format!("{path} {other:?}"),
            });
        }
    }
    lines.sort();
    lines
}

fn flat(form: Form, layers: &[&[&str]]) -> Result<Vec<String>, Error> {
    let mut image = Flatten::new(&Limits::default(), form);
    for (n, layer) in layers.iter().enumerate() {
        if n > 0 {
            image.next_layer();
        }
        for text in *layer {
            image.take(said(text))?;
        }
    }
    let done = image.finish();
    let layer_of = |inode| {
        let winner = done.winners.iter().find(|w| w.inode == inode);
        winner.map_or(99, |w| w.layer)
    };
    Ok(shown(&done.tree, &layer_of))
}

#[track_caller]
fn gives(layers: &[&[&str]], paths: &[&str]) {
    let mut paths: Vec<_> = paths.iter().map(|p| (*p).to_owned()).collect();
    paths.sort();
    assert_eq!(flat(Form::Layer, layers).unwrap(), paths);
}

#[test]
fn later_layers_win_and_directories_are_merged() {
    gives(
        &[&["d/", "d/a", "d/b"], &["d/b", "d/c"]],
        &["d/", "d/a 0", "d/b 1", "d/c 1"],
    );
    gives(&[&["x/y/z"]], &["x/?", "x/y/?", "x/y/z 0"]);
    gives(&[&["a", "a", "a->b", "a"]], &["a 0"]);
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_else() {
    gives(&[&["d/", "d/a", "d/b"], &["-d/a"]], &["d/", "d/b 0"]);
    gives(&[&["d/", "d/a", "d/s/", "d/s/b"], &["-d"]], &[]);
    gives(&[&["a"], &["-nothing", "-no/where", "-a/b"]], &["a 0"]);
    // Before or behind what the same layer has.
    for layer in [["-d", "d/new"], ["d/new", "-d"]] {
        gives(
            &[&["d/", "d/old", "d/s/", "d/s/t"], &layer],
            &["d/?", "d/new 1"],
        );
    }
    for layer in [["-a", "a"], ["a", "-a"]] {
        gives(&[&["a"], &layer], &["a 1"]);
    }
    gives(
        &[
            &["d/", "d/s/", "d/s/old", "d/t/", "d/t/old"],
            &["d/s/new", "-d"],
        ],
        &["d/?", "d/s/?", "d/s/new 1"],
    );
    // Through a symlink of a lower layer.
    gives(&[&["d/", "d/a", "l->d"], &["-l/a"]], &["d/", "l->d"]);
    // A third layer sees what the second left.
    gives(&[&["d/", "d/a"], &["-d/a"], &["d/a"]], &["d/", "d/a 2"]);
}

#[test]
fn opaque_directories_hide_only_lower_layers() {
    let lower = &["d/", "d/a", "d/s/", "d/s/b", "e"][..];
    for layer in [["!d", "d/new"], ["d/new", "!d"]] {
        gives(&[lower, &layer], &["d/", "d/new 1", "e 0"]);
    }
    gives(
        &[lower, &["d/s/c", "!d"]],
        &["d/", "d/s/?", "d/s/c 1", "e 0"],
    );
    gives(&[lower, &["d/s/", "!d"]], &["d/", "d/s/", "e 0"]);
    gives(&[lower, &["x", "!"]], &["x 1"]);
    gives(
        &[lower, &["!nowhere", "!e"]],
        &["d/", "d/a 0", "d/s/", "d/s/b 0", "e 0"],
    );
}

/// A marker is about the directory its layer has there, in whatever order they come; where a symlink leads to is another.
#[test]
fn an_opaque_marker_does_not_follow_a_symlink_at_its_place() {
    let lower = &["d/", "d/a", "l->d"][..];
    for layer in [&["!l", "l/"][..], &["l/", "!l"]] {
        gives(&[lower, layer], &["d/", "d/a 0", "l/"]);
    }
    gives(&[lower, &["!l"]], &["d/", "d/a 0", "l->d"]);
    // On the way to it they are followed.
    gives(
        &[&["d/", "d/s/", "d/s/a", "l->d"], &["!l/s"]],
        &["d/", "d/s/", "l->d"],
    );
}

/// Markers cost what they hide, not all that is there each time.
#[test]
fn a_flood_of_markers_ends() {
    const MANY: usize = 30_000;
    let fill = |image: &mut Flatten| {
        let names = (0..MANY).map(|n| format!("d/s/{n}"));
        names.for_each(|name| image.take(said(&name)).unwrap());
    };
    for (what, layer, markers) in [
        ("in the oldest layer", 0, ["!d", "-d"]),
        ("on what is of their own layer", 1, ["!d", "!d/s"]),
        ("of both kinds", 1, ["-d", "!d/s"]),
    ] {
        let mut image = Flatten::new(&Limits::default(), Form::Layer);
        image.take(said("d/old")).unwrap();
        (0..layer).for_each(|_| image.next_layer());
        fill(&mut image);
        let start = std::time::Instant::now();
        for _ in 0..MANY {
            for marker in markers {
                image.take(said(marker)).unwrap();
            }
        }
        // A look at each name for each marker takes a minute.
        let took = start.elapsed();
        assert!(took.as_secs() < 10, "{what}: {took:?}");
        let files = image.finish().winners.len();
        assert_eq!(files, MANY + usize::from(layer == 0), "{what}");
    }
}

/// What was pruned in one layer is not pruned in the next, and what is pruned by itself is of its parent too.
#[test]
fn markers_of_each_layer_are_their_own() {
    let lower = &["d/", "d/a", "d/s/", "d/s/b", "d/t/", "d/t/c"][..];
    gives(
        &[lower, &["!d/s", "d/s/n", "!d", "d/t/m", "!d/t"], &["!d"]],
        &["d/"],
    );
    for layer in [["!d/s", "d/s/n", "!d"], ["!d", "d/s/n", "!d/s"]] {
        gives(
            &[lower, &layer, &["d/s/o"]],
            &["d/", "d/s/?", "d/s/n 1", "d/s/o 2"],
        );
    }
    gives(
        &[lower, &["!d", "d/s/n"], &["d/s/o", "!d/s"], &["-d/s"]],
        &["d/"],
    );
}

#[test]
fn types_are_replaced() {
    gives(&[&["d/", "d/a", "d/s/", "d/s/b"], &["d"]], &["d 1"]);
    gives(
        &[&["t/", "t/a", "l->t"], &["l/", "l/b"]],
        &["l/", "l/b 1", "t/", "t/a 0"],
    );
    gives(&[&["f"], &["f/", "f/a"]], &["f/", "f/a 1"]);
    gives(&[&["d/", "d/a"], &["d->x"]], &["d->x"]);
}

#[test]
fn what_is_written_through_a_symlink_lands_where_it_leads() {
    gives(
        &[&["usr/", "usr/lib/", "lib->usr/lib"], &["lib/x", "lib/n/y"]],
        &[
            "lib->usr/lib",
            "usr/",
            "usr/lib/",
            "usr/lib/n/?",
            "usr/lib/n/y 1",
            "usr/lib/x 1",
        ],
    );
    gives(
        &[
            &["a/", "a/up->../../../b", "b/", "abs->/b"],
            &["a/up/x", "abs/y", "abs/x"],
        ],
        &["a/", "a/up->../../../b", "abs->/b", "b/", "b/x 1", "b/y 1"],
    );
    gives(&[&["here->.", "here/here"]], &["here 0"]);
}

#[test]
fn hard_links_are_one_file_in_all_layers() {
    let layers: [&[&str]; 3] = [&["a", "d/", "d/b"], &["c=>a", "l=>d/b"], &["-a", "-d"]];
    gives(&layers, &["c 0", "l 0"]);
    // The name that is replaced may be where the file was.
    gives(&[&["d/", "d/a"], &["d=>d/a"]], &["d 0"]);
    gives(&[&["a", "b=>a", "a"]], &["a 0", "b 0"]);
    gives(&[&["s->x", "t=>s"]], &["s->x", "t->x"]);
}

#[test]
fn ways_that_lead_nowhere_refuse_the_entry() {
    for (layers, entry, word) in [
        (&[&["f", "f/x"][..]][..], "f/x", "no directory"),
        (&[&["l->gone", "l/x"]], "l/x", "no directory"),
        (&[&["l->gone/", "l/m/x"]], "l/m/x", "no directory"),
        (&[&["a->b", "b->a", "a/x"]], "a/x", "circle"),
        (&[&["a"], &["-a", "b=>a"]], "'b'", "no entry"),
        (&[&["d/", "b=>d"]], "'b'", "hard link to a directory"),
        (&[&["b=>b"]], "'b'", "no entry"),
    ] {
        let error = flat(Form::Layer, layers).unwrap_err().to_string();
        assert!(error.contains(entry) && error.contains(word), "{error}");
    }
    let full = flat(Form::Flat, &[&["d/", "d/a", "d->x"]]).unwrap_err();
    assert!(
        full.to_string().contains("directory with entries"),
        "{full}"
    );
}

/// A path of another's making may be as deep as it likes.
#[test]
fn depth_costs_no_stack() {
    let mut image = Flatten::new(&Limits::default(), Form::Layer);
    let step = "d/".repeat(2000);
    let mut at = "top".to_owned();
    image.take(said("top/")).unwrap();
    for n in 0..60 {
        let deep = format!("{at}/{step}");
        image.take(said(&deep)).unwrap();
        let link = format!("link{n}");
        image.take(said(&format!("{link}->{deep}"))).unwrap();
        at = link;
        if n % 30 == 29 {
            // Ways through more links than a kernel follows end.
            break;
        }
    }
    image.next_layer();
    image.take(said("-top")).unwrap();
    let done = image.finish();
    assert!(done.tree.inodes.len() < 100, "{}", done.tree.inodes.len());
}

/// A short path may be a long way, and there may be millions of it.
#[test]
fn ways_have_an_end_together() {
    let limits = Limits {
        entries: 2000,
        ..Limits::default()
    };
    let mut image = Flatten::new(&limits, Form::Layer);
    image.take(said("d/")).unwrap();
    for n in 0..30 {
        let back = if n == 0 {
            "d/..".to_owned()
        } else {
            format!("l{}", n - 1)
        };
        let link = format!("l{n}->{}{back}", "d/../".repeat(500));
        image.take(said(&link)).unwrap();
    }
    // Each is 30 000 components on.
    let taken = (0..limits.entries).take_while(|_| image.take(said("l29/x")).is_ok());
    let taken = taken.count();
    assert!((10..30).contains(&taken), "{taken}");
    let error = image.take(said("l29/x")).unwrap_err().to_string();
    assert!(
        error.contains("l29/x") && error.contains("too many directories"),
        "{error}"
    );
}

#[test]
fn every_directory_that_is_made_counts() {
    let limits = Limits {
        entries: 10,
        in_directory: 3,
        ..Limits::default()
    };
    let mut image = Flatten::new(&limits, Form::Flat);
    let error = image.take(said(&"d/".repeat(11))).unwrap_err();
    assert!(error.to_string().contains("more than 10"), "{error}");
    let mut image = Flatten::new(&limits, Form::Flat);
    for name in ["a", "b", "a", "c", "b"] {
        image.take(said(name)).unwrap();
    }
    let error = image.take(said("d/x")).unwrap_err();
    assert!(
        error.to_string().contains("'d/x'") && error.to_string().contains("in its directory"),
        "{error}"
    );
}

fn any_path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop::sample::select(vec!["a", "b", "c", "l"]), 1..4)
        .prop_map(|parts| parts.join("/"))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let target = prop_oneof![
        any_path(),
        any_path().prop_map(|p| format!("/../{p}")),
        Just("..".to_owned())
    ];
    (any_path(), target, any_path(), 0..7).prop_map(|(path, text, other, kind)| match kind {
        0 => entry(&path, What::Directory),
        1 => entry(&path, What::Symlink(text.into())),
        2 => entry(&path, What::HardLink(other.into())),
        3 => entry(&path, What::Whiteout),
        4 => entry(&path, What::Opaque),
        5 => entry(&path, What::Fifo),
        _ => entry(&path, file()),
    })
}

proptest! {
    /// Whatever layers do to each other, what comes of it is a tree that can be a file system: no loops, no directory
    /// of two names, every file's bytes where it has room for them, none fetched of what is gone.
    #[test]
    fn what_comes_of_any_layers_is_a_file_system(
        layers in proptest::collection::vec(proptest::collection::vec(any_entry(), 0..25), 1..4),
        flat in any::<bool>(),
    ) {
        let form = if flat { Form::Flat } else { Form::Layer };
        let mut image = Flatten::new(&Limits::default(), form);
        for layer in layers {
            for entry in layer {
                let _ = image.take(entry); // a refused one ends an import; here the others go on
            }
            image.next_layer();
        }
        let done = image.finish();
        let layout = Layout::new(&done.tree, &Options::new([1; 16])).unwrap();
        for pair in done.winners.windows(2) {
            prop_assert!((pair[0].layer, pair[0].from) <= (pair[1].layer, pair[1].from));
        }
        for winner in &done.winners {
            prop_assert!(layout.position(winner.inode, winner.offset).is_some());
        }
        let files = done.tree.inodes.iter().filter(|i| matches!(i.kind, Kind::File { .. }));
        prop_assert_eq!(files.count(), done.winners.len());
    }
}
