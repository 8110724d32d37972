//! Servers that break off, shorten, and answer something else than they were asked: what can be fetched of them is, and
//! what cannot ends.

mod server;

use banger_registry::{BlobCache, Error, Web};
use server::{Patience, answer, blob, bytes, from, serve};
use std::{
    fs,
    time::{Duration, Instant},
};

/// What comes of a blob whose server answers like this, with what is here already, and how often it was asked.
fn fetched(
    here: &[u8],
    bytes: &[u8],
    answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static,
) -> (Result<Vec<u8>, Error>, usize, Vec<String>) {
    let dir = tempfile::tempdir().expect("it works");
    let (cache, blob) = (BlobCache::new(dir.path()), blob(bytes));
    let at = dir.path().join("sha256");
    if !here.is_empty() {
        fs::create_dir(&at).expect("it works");
        fs::write(at.join(format!("{}.part", blob.sha256)), here).expect("it works");
    }
    let (port, heads) = serve(answer);
    let watch = Patience::of(20);
    let web = Web::new(&watch).expect("it works");
    let done = web.blob(&cache, &blob, &format!("http://127.0.0.1:{port}/blob"));
    let asked = heads.lock().expect("it works").len();
    let left = fs::read_dir(&at).expect("it works").flatten();
    let left = left.map(|e| e.file_name().to_string_lossy().into_owned());
    (
        done.map(|path| fs::read(path).expect("it works")),
        asked,
        left.collect(),
    )
}

/// The rest that a head asks for, at most so many bytes of it.
fn part(bytes: &[u8], head: &str, most: usize) -> Vec<u8> {
    let (from, all) = (from(head), bytes.len());
    let rest = &bytes[from..(from + most).min(all)];
    let range = format!(
        "content-range: bytes {from}-{}/{all}\r\n",
        from + rest.len() - 1
    );
    match from {
        0 => answer("200 All", "", rest.len(), rest),
        _ => answer("206 Part", &range, rest.len(), rest),
    }
}

/// One that knows no ranges and breaks off, now later and now earlier, never comes further than the furthest point.
#[test]
fn who_always_begins_anew_and_breaks_off_is_left() {
    let all = bytes(1000);
    let sent = all.clone();
    let (done, asked, _) = fetched(b"", &all, move |n, _| {
        let cut = [500, 100][n % 2] + n % 5;
        answer("200 All", "", 1000, &sent[..cut])
    });
    let error = done.unwrap_err();
    assert!(matches!(error, Error::Offline { .. }), "{error:?}");
    assert!(asked < 20, "asked {asked} times");
}

/// Who sends less than all that was asked for, and says so, is asked for the rest.
#[test]
fn a_part_of_the_range_is_gone_on_with() {
    let all = bytes(1000);
    let sent = all.clone();
    let (done, asked, _) = fetched(b"", &all, move |_, head| part(&sent, head, 300));
    assert_eq!((done.unwrap(), asked), (all.clone(), 4));
    let sent = all.clone();
    let (done, asked, _) = fetched(&all[..500], &all, move |_, head| part(&sent, head, 300));
    assert_eq!((done.unwrap(), asked), (all, 2));
}

/// A blob that is too short is other bytes, once there is nothing behind its end.
#[test]
fn who_has_no_more_has_other_bytes() {
    let all = bytes(1000);
    for gone in ["416 Not Satisfiable", "200 All"] {
        let sent = all.clone();
        let (done, asked, left) = fetched(b"", &all, move |n, head| match (n, from(head)) {
            (1, 0) => answer("200 All", "", 700, &sent[..700]),
            (2, 700) if gone.starts_with("416") => answer(gone, "", 0, b""),
            (2, 700) => answer(gone, "", 700, &sent[..700]),
            other => panic!("{other:?}"),
        });
        let error = done.unwrap_err();
        assert!(
            matches!(&error, Error::Lying { found, .. } if found == "700 bytes"),
            "{error:?}"
        );
        assert_eq!((asked, left), (2, vec![]));
    }
}

/// A part that was not asked for, or that does not say which it is: all is asked for, and comes.
#[test]
fn another_part_than_was_asked_for_begins_it_anew() {
    let all = bytes(1000);
    for range in [
        "content-range: bytes 400-999/1000\r\n",
        "content-type: multipart/byteranges; boundary=x\r\n",
    ] {
        let sent = all.clone();
        let (done, asked, _) = fetched(&all[..500], &all, move |_, head| match from(head) {
            0 => answer("200 All", "", 1000, &sent),
            _ => answer("206 Part", range, 600, &sent[400..]),
        });
        assert_eq!((done.unwrap(), asked), (all.clone(), 2), "{range}");
    }
}

/// Nothing came, and nothing is left.
#[test]
fn who_has_nothing_leaves_nothing() {
    let (done, _, left) = fetched(b"", &bytes(10), |_, _| answer("404 No", "", 0, b""));
    assert!(matches!(done, Err(Error::Answer { code: 404, .. })));
    assert_eq!(left, Vec::<String>::new());
}

/// Nor does who leaves before anything comes, as other layers do when one fails.
#[test]
fn who_leaves_before_the_first_byte_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (port, _) = serve(|_, _| {
        std::thread::sleep(Duration::from_secs(5));
        answer("404 No", "", 0, b"")
    });
    let watch = Patience::of(1);
    let web = Web::new(&watch).unwrap();
    let cache = BlobCache::new(dir.path());
    let done = web.blob(
        &cache,
        &blob(b"x"),
        &format!("http://127.0.0.1:{port}/blob"),
    );
    assert!(matches!(done, Err(Error::Cancelled)), "{done:?}");
    assert_eq!(fs::read_dir(dir.path().join("sha256")).unwrap().count(), 0);
}

/// What is in the cache is hashed apart: who leaves needs not wait for its end.
#[test]
fn hashing_much_is_left_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, mut blob) = (BlobCache::new(dir.path()), blob(b"x"));
    blob.size = 1 << 40;
    fs::create_dir(dir.path().join("sha256")).unwrap();
    for end in ["", ".part"] {
        let path = dir.path().join(format!("sha256/{}{end}", blob.sha256));
        // Zeroes that take no room.
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let watch = Patience::of(1);
        let began = Instant::now();
        let web = Web::new(&watch).unwrap();
        let done = web.blob(&cache, &blob, "http://127.0.0.1:1/blob");
        drop(web);
        assert!(matches!(done, Err(Error::Cancelled)), "{done:?}");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{end} took {took:?}");
        fs::remove_file(path).unwrap();
    }
}

/// Who redirects is not told of: the query of a catalog's address may be a secret.
#[test]
fn who_is_led_to_hears_nothing_of_where_from() {
    let (port, heads) = serve(|_, _| answer("200 OK", "", 2, b"{}"));
    let to = format!("location: http://127.0.0.1:{port}/there\r\n");
    let (first, _) = serve(move |_, _| answer("302 There", &to, 0, b""));
    let watch = Patience::of(60);
    let url = format!("http://127.0.0.1:{first}/catalog.json?key=swordfish");
    let got = Web::new(&watch).unwrap().document(&url, 10);
    assert_eq!(got.unwrap(), b"{}");
    let heads = heads.lock().unwrap().clone();
    assert!(heads[0].starts_with("get /there"), "{heads:?}");
    assert!(!heads[0].contains("swordfish"), "{heads:?}");
}
