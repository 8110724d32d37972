//! Images and kernels of a catalog (R-IMG-1, R-IMG-7): a file or a URL, proven, gone on with where it broke off; no VM is made.

use banger_testkit::{Home, kernel::vmlinux};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

fn entry(name: &str, bytes: &[u8]) -> Value {
    json!({"name": name, "kind": "image", "distro": "test-1", "arch": std::env::consts::ARCH, "kernel_ref": "debian-cloud",
        "path": format!("images/{name}.tar.zst"), "sha256": sha256(bytes), "size": bytes.len()})
}

fn catalog(entries: &[Value]) -> Vec<u8> {
    json!({"version": 1, "entries": entries})
        .to_string()
        .into_bytes()
}

/// A bundle of an image of some megabytes that nothing packs.
fn bundle(home: &Home) -> Vec<u8> {
    let dir = home.scratch().join("root");
    fs::create_dir_all(dir.join("bin")).expect("a directory");
    let mut state = 7_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    let noise: Vec<u8> = (0..3_000_000).map(|_| next()).collect();
    fs::write(dir.join("bin/sh"), noise).expect("a file");
    let dir = dir.display().to_string();
    home.banger(&["image", "import", &dir, "--name", "made"])
        .exits(0);
    let bundle = home.banger(&["image", "bundle", "made"]).exits(0).stdout;
    home.banger(&["image", "delete", "made"]).exits(0);
    bundle
}

/// A daemon that knows this catalog.
fn configure(home: &Home, source: &str) {
    home.banger(&["daemon", "stop"]).exits(0);
    let text = format!("[catalog]\nsource = \"{source}\"\n");
    fs::write(home.config(), text).expect("a configuration");
}

fn images(home: &Home) -> usize {
    let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
    listed.as_array().expect("a list").len()
}

/// R-IMG-7: the name is looked for there before it is a package's.
#[test]
fn a_kernel_of_a_catalog_is_offered_pulled_by_its_name_and_proven() {
    let mut home = Home::bare();
    let dir = home.scratch().join("catalog");
    fs::create_dir_all(&dir).expect("a directory");
    let bytes = vmlinux("6.1.7-test", true);
    fs::write(dir.join("vmlinux"), &bytes).expect("a kernel");
    let entry = |name: &str, bytes: &[u8], arch: &str| {
        json!({"name": name, "kind": "kernel", "arch": arch, "path": "vmlinux", "sha256": sha256(bytes),
            "size": bytes.len()})
    };
    let here = std::env::consts::ARCH;
    let entries = [
        entry("fine", &bytes, here),
        entry("liar", b"other", here),
        entry("foreign", &bytes, "s390x"),
    ];
    let place = dir.join("catalog.json");
    fs::write(&place, catalog(&entries)).expect("a catalog");
    configure(&home, &place.display().to_string());
    let offered = home.banger(&["kernel", "list", "--available", "--json"]);
    let offered = offered.exits(0).json();
    let of_catalog = offered.as_array().expect("a list").iter();
    let of_catalog: Vec<_> = of_catalog.filter(|o| o["kind"] == "catalog").collect();
    let names: Vec<_> = of_catalog.iter().map(|offer| &offer["name"]).collect();
    assert_eq!(names, ["fine", "liar"]);
    assert_eq!(of_catalog[0]["command"], "banger kernel pull fine");

    let liar = home.banger(&["kernel", "pull", "liar"]).exits(125).err();
    assert!(liar.contains("its catalog says"), "{liar}");
    home.banger(&["kernel", "pull", "fine", "--name", "own", "--force"])
        .exits(0);
    let listed = home.banger(&["kernel", "list", "--json"]).exits(0).json();
    let [kernel] = &listed.as_array().expect("a list")[..] else {
        panic!("{listed}");
    };
    assert_eq!(
        (&kernel["name"], &kernel["release"]),
        (&json!("own"), &json!("6.1.7-test"))
    );
    assert_eq!(kernel["digest"], format!("sha256:{}", sha256(&bytes)));
    let source = kernel["source"].as_str().expect("a source");
    assert!(source.starts_with("fine of "), "{source}");
    // What the catalog has for another machine is not there; it may be a package's name.
    let foreign = home.banger(&["kernel", "pull", "foreign"]).exits(125);
    assert!(!foreign.err().contains("catalog says"), "{}", foreign.err());

    // On a machine without apt there are those of the catalog still, and without a catalog the reason why there are none.
    home.banger(&["daemon", "stop"]).exits(0);
    let empty = home.scratch().join("bin");
    fs::create_dir(&empty).expect("a PATH");
    home.set_env("PATH", Some(&empty.display().to_string()));
    let offered = home.banger(&["kernel", "list", "--available", "--json"]);
    let offered = offered.exits(0).json();
    assert_eq!(offered.as_array().map(Vec::len), Some(2), "{offered}");
    home.banger(&["daemon", "stop"]).exits(0);
    fs::write(home.config(), "").expect("no catalog");
    let none = home.banger(&["kernel", "list", "--available"]).exits(125);
    assert!(
        none.err().contains("'apt-get' is not installed"),
        "{}",
        none.err()
    );
    home.set_env("PATH", None);
    home.finish();
}

#[test]
fn an_image_of_a_catalog_in_a_file_is_pulled_by_its_name() {
    let home = Home::bare();
    let bytes = bundle(&home);
    let dir = home.scratch().join("catalog");
    fs::create_dir_all(dir.join("images")).expect("a directory");
    let put = |name: &str, bytes: &[u8]| {
        fs::write(dir.join(name), bytes).expect("a file");
    };
    put("images/tiny.tar.zst", &bytes);
    put("images/liar.tar.zst", &bytes[..bytes.len() - 1]);
    let mut liar = entry("liar", &bytes);
    let mut other = entry("other", &bytes);
    other["arch"] = json!("s390x");
    let mut absent = entry("absent", &bytes);
    absent["path"] = json!("nowhere");
    put(
        "catalog.json",
        &catalog(&[entry("tiny", &bytes), liar.clone(), other, absent]),
    );
    let source = dir.join("catalog.json").display().to_string();

    let told = home.banger(&["image", "list", "--available"]).exits(125);
    assert!(
        told.err().contains("no catalog is configured"),
        "{}",
        told.err()
    );
    configure(&home, &source);
    let offered = home.banger(&["image", "list", "--available"]).exits(0);
    let line = offered
        .out()
        .lines()
        .find(|l| l.starts_with("tiny "))
        .expect("it")
        .to_owned();
    assert!(
        line.contains("test-1") && line.trim_end().ends_with("no"),
        "{line}"
    );
    for (name, why) in [
        ("liar", "and its catalog says"),
        ("absent", "cannot be read"),
    ] {
        let run = home.banger(&["image", "pull", name]).exits(125);
        assert!(run.err().contains(why), "{name}: {}", run.err());
    }
    assert_eq!(images(&home), 0, "nothing is left of them");
    let pull = ["image", "pull", "tiny", "--name", "mine", "--json"];
    let image = home.banger(&pull).exits(0).json();
    assert_eq!(image["names"], json!(["tiny", "mine"]));
    assert_eq!(
        (&image["distro"], &image["kernel"]),
        (&json!("test-1"), &json!("debian-cloud"))
    );
    let again = home.banger(&["image", "pull", "tiny"]).exits(0);
    assert!(
        again.err().contains("tiny is up to date"),
        "{}",
        again.err()
    );
    let offered = home.banger(&["image", "list", "--available", "--json"]);
    assert_eq!(offered.exits(0).json()[0]["here"], json!(true));

    // A catalog that is none is told of, and what is here works all the same.
    liar["sha256"] = json!("x");
    for (bytes, why) in [
        (b"{".to_vec(), "cannot be read"),
        (catalog(&[liar]), "'liar' has a sha256 that is none"),
        (br#"{"version":2,"entries":[]}"#.to_vec(), "version 2"),
    ] {
        put("catalog.json", &bytes);
        let run = home.banger(&["image", "pull", "absent"]).exits(125);
        assert!(run.err().contains(why), "{why}: {}", run.err());
    }
    home.banger(&["image", "show", "tiny"]).exits(0);
    home.finish();
}

/// A server of the web that breaks off in the middle the first time, and is asked for the rest.
fn serve(files: Vec<(String, Vec<u8>)>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &files, &told);
        }
    });
    (port, asked)
}

fn answer(mut stream: TcpStream, files: &[(String, Vec<u8>)], asked: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut from = 0;
    for line in lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
    {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().expect("a range");
        }
    }
    asked
        .lock()
        .expect("the list")
        .push(format!("{path} from {from}"));
    let Some((_, bytes)) = files.iter().find(|(name, _)| *name == path) else {
        let _ =
            stream.write_all(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return;
    };
    let (rest, all) = (&bytes[from..], bytes.len());
    let status = match from {
        0 => "200 All".to_owned(),
        _ => format!("206 Rest\r\ncontent-range: bytes {from}-{}/{all}", all - 1),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        rest.len()
    );
    let cut = match from == 0 && rest.len() > 1_000_000 {
        true => &rest[..1_000_000],
        false => rest,
    };
    // Whoever has left needs no answer.
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(cut));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0]);
}

#[test]
fn an_image_of_a_catalog_of_the_web_is_proven_and_gone_on_with() {
    let home = Home::bare();
    let bytes = bundle(&home);
    let mut wrong = bytes.clone();
    wrong[2_000_000] ^= 1;
    let mut away = entry("away", &bytes);
    away["path"] = json!("images/../../../etc/passwd");
    let mut missing = entry("missing", b"never there");
    missing["path"] = json!("images/missing");
    let mut liar = entry("liar", &bytes);
    // Other bytes than those of `tiny`, which may be in the cache.
    let mut promised = bytes.clone();
    promised[5] ^= 1;
    liar["sha256"] = json!(sha256(&promised));
    let entries = [entry("tiny", &bytes), liar, away, missing];
    let (port, asked) = serve(vec![
        ("/c/catalog.json".to_owned(), catalog(&entries)),
        ("/c/images/tiny.tar.zst".to_owned(), bytes),
        ("/c/images/liar.tar.zst".to_owned(), wrong),
    ]);
    configure(&home, &format!("http://127.0.0.1:{port}/c/catalog.json"));
    for (name, why) in [
        ("liar", "its catalog says"),
        ("away", "does not lie beside its catalog"),
        ("missing", "answers 404"),
    ] {
        let run = home.banger(&["image", "pull", name]).exits(125);
        assert!(run.err().contains(why), "{name}: {}", run.err());
    }
    assert_eq!(images(&home), 0);
    let cache = home.state().join("blobs/sha256");
    let left: Vec<_> = fs::read_dir(&cache).expect("the cache").flatten().collect();
    assert!(
        left.is_empty(),
        "nothing stays of a liar, nor of who has nothing: {left:?}"
    );
    asked.lock().expect("the list").clear();
    let image = home
        .banger(&["image", "pull", "tiny", "--json"])
        .exits(0)
        .json();
    assert_eq!(image["names"], json!(["tiny"]));
    let asked = asked.lock().expect("the list").clone();
    let of_it: Vec<_> = asked.iter().filter(|a| a.contains("tiny")).collect();
    assert_eq!(
        of_it,
        [
            "/c/images/tiny.tar.zst from 0",
            "/c/images/tiny.tar.zst from 1000000"
        ]
    );
    // What was fetched is in an image now, and nobody needs it twice.
    let pruned = home
        .banger(&["image", "prune", "--force", "--json"])
        .exits(0)
        .json();
    assert_eq!(
        pruned["blobs"].as_array().map(Vec::len),
        Some(1),
        "{pruned}"
    );
    assert_eq!(images(&home), 1);
    home.finish();
}
