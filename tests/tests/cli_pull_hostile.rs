//! Registries that mean harm (R-IMG-4): whatever they give, each pull ends with its reason, no image is listed, nothing is
//! staged, and the cache holds only what is what it is called.

mod registry;

use banger_testkit::Home;
use registry::{
    cached,
    hostile::{Answer, ENDLESS, Hostile, INDEX, MANIFEST},
    noise, sha256,
};
use serde_json::{Value, json};
use std::fs;

/// A tar of one file, with a name as it is.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend_from_slice(content);
    header.resize(header.len().next_multiple_of(512) + 1024, 0);
    header
}

/// A repository, and a part of what must be said of its image.
type Case = (&'static str, &'static str);

/// A layer that no other repository has.
fn layer(repository: &str) -> Vec<u8> {
    tar("etc/os-release", repository.as_bytes())
}

fn digested(repository: &str) -> (Vec<u8>, String) {
    let bytes = layer(repository);
    let hex = sha256(&bytes);
    (bytes, hex)
}

/// Layers, and what manifests say of them.
fn layers(hostile: &Hostile, canary: &Hostile) -> Vec<Case> {
    let image = |repository: &'static str, change: &dyn Fn(&mut Value, &mut Value)| {
        hostile.image(repository, &[&layer(repository)], change);
    };
    let none = |_: &mut Value, _: &mut Value| {};
    image("layer-other-bytes", &none);
    let (bytes, hex) = digested("layer-other-bytes");
    let mut other = bytes;
    other[700] ^= 1;
    hostile.blob("layer-other-bytes", &other, Some(&hex));
    image("layer-longer", &none);
    let (bytes, hex) = digested("layer-longer");
    hostile.blob("layer-longer", &[bytes, vec![0; 4096]].concat(), Some(&hex));
    image("layer-shorter", &none);
    let (bytes, hex) = digested("layer-shorter");
    hostile.blob("layer-shorter", &bytes[..700], Some(&hex));
    image("layer-none", &|m, _| {
        m["layers"][0]["digest"] = format!("sha256:{}", "0".repeat(64)).into()
    });
    image("layer-endless", &|m, _| {
        m["layers"][0]["size"] = u64::MAX.into()
    });
    image("layers-that-overflow", &|m, c| {
        let mut layer = m["layers"][0].clone();
        layer["size"] = (1_u64 << 63).into();
        m["layers"] = json!([layer, layer]);
        let id = c["rootfs"]["diff_ids"][0].clone();
        c["rootfs"]["diff_ids"] = json!([id, id]);
    });
    image("layer-negative", &|m, _| {
        m["layers"][0]["size"] = (-1).into()
    });
    image("layer-of-sha512", &|m, _| {
        m["layers"][0]["digest"] = format!("sha512:{}", "0".repeat(128)).into()
    });
    image("layer-way-out", &|m, _| {
        m["layers"][0]["digest"] = "sha256:../../../../etc/passwd".into()
    });
    image("layer-encrypted", &|m, _| {
        m["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+encrypted".into()
    });
    image("layers-too-many", &|m, _| {
        m["layers"] = vec![m["layers"][0].clone(); 1025].into()
    });
    image("layer-not-told", &|_, c| {
        c["rootfs"]["diff_ids"] = json!([])
    });
    image("layer-of-another", &|_, c| {
        c["rootfs"]["diff_ids"] = json!([format!("sha256:{}", "1".repeat(64))])
    });
    // Where the bytes of a foreign layer are is nobody's word but the registry's.
    let away = noise(3, 2000);
    image("layer-foreign", &|m, _| {
        m["layers"][0] = json!({
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": format!("sha256:{}", sha256(&away)), "size": away.len(),
            "urls": [format!("http://127.0.0.1:{}/layer", canary.port), "file:///etc/passwd"],
        });
    });
    hostile.image("layer-of-text", &[b"#!/bin/sh\n"], &|m, _| {
        m["layers"][0]["mediaType"] = "application/x-shellscript".into()
    });
    hostile.image(
        "entry-way-out",
        &[&tar("../../../../../../tmp/evil", b"x")],
        &none,
    );
    let redirect = |to: String| Answer {
        status: "307 Temporary Redirect",
        headers: vec![("Location", to)],
        body: vec![],
    };
    image("layer-round", &none);
    let blob = format!("blobs/sha256:{}", digested("layer-round").1);
    hostile.answer(
        "layer-round",
        &blob,
        redirect(format!("/v2/layer-round/{blob}")),
    );
    image("layer-of-a-file", &none);
    let blob = format!("blobs/sha256:{}", digested("layer-of-a-file").1);
    hostile.answer(
        "layer-of-a-file",
        &blob,
        redirect("file:///etc/passwd".to_owned()),
    );
    vec![
        ("layer-other-bytes", "gives other bytes than"),
        ("layer-longer", "more than 2048 bytes"),
        ("layer-shorter", "gives other bytes than"),
        ("layer-none", "has no image sha256:000"),
        ("layer-endless", "needs 17592186045439 MiB"),
        ("layers-that-overflow", "needs 17592186045439 MiB"),
        ("layer-negative", "the manifest cannot be read"),
        ("layer-of-sha512", "no sha256"),
        ("layer-way-out", "no sha256"),
        ("layer-encrypted", "encrypted"),
        ("layers-too-many", "it has 1025 layers"),
        ("layer-not-told", "its configuration knows 0"),
        ("layer-of-another", "not those of its digest"),
        ("layer-foreign", "has no image sha256:"),
        ("layer-of-text", "something else"),
        ("entry-way-out", "'../../../../../../tmp/evil'"),
        ("layer-round", "does not give"),
        ("layer-of-a-file", "does not give"),
    ]
}

/// A manifest that has no end.
fn endless(hostile: &Hostile) {
    let told = hostile.document("manifest-endless", &[b' '; 1 << 20], MANIFEST);
    let digest = told["digest"].as_str().expect("a digest");
    let answer = Answer {
        status: "200 OK",
        headers: vec![
            ("Content-Type", MANIFEST.to_owned()),
            ("Docker-Content-Digest", digest.to_owned()),
            ("Content-Length", (1_u64 << 40).to_string()),
            (ENDLESS, String::new()),
        ],
        body: vec![b' '; 1 << 20],
    };
    hostile.answer(
        "manifest-endless",
        &format!("manifests/{digest}"),
        answer.clone(),
    );
    // One that does not say its digest, so that it would have to be read for that.
    let mut unnamed = answer;
    unnamed
        .headers
        .retain(|(name, _)| *name != "Docker-Content-Digest");
    hostile.answer("manifest-endless-unnamed", "manifests/1", unnamed);
}

/// Manifests, indices and configurations.
fn documents(hostile: &Hostile) -> Vec<Case> {
    let text = |repository, text: &str, kind| {
        hostile.document(repository, text.as_bytes(), kind);
    };
    let config = |repository: &'static str, change: &dyn Fn(&mut Value, &mut Value)| {
        hostile.image(repository, &[&layer(repository)], change);
    };
    text(
        "manifest-of-schema-1",
        r#"{"schemaVersion":1,"name":"x","tag":"1","fsLayers":[{"blobSum":"sha256:0"}],"history":[]}"#,
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    );
    text("manifest-of-html", "<html>welcome</html>", "text/html");
    text("manifest-empty", "", MANIFEST);
    text("manifest-cut", r#"{"schemaVersion":2,"config":{"#, MANIFEST);
    text("manifest-deep", &"[".repeat(200_000), MANIFEST);
    text(
        "manifest-of-10-mb",
        &format!(r#"{{"schemaVersion":2,"x":"{}"}}"#, "x".repeat(10 << 20)),
        MANIFEST,
    );
    endless(hostile);
    text("manifest-of-nothing", "{}", "application/vnd.unknown+json");
    text(
        "manifest-without-config",
        r#"{"schemaVersion":2,"layers":[]}"#,
        MANIFEST,
    );
    text(
        "index-of-nothing",
        r#"{"schemaVersion":2,"manifests":[]}"#,
        INDEX,
    );
    text(
        "index-way-out",
        r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:../../../etc/passwd","size":7}]}"#,
        INDEX,
    );
    config("index-deep", &|_, _| {});
    let mut inner = hostile.document("index-deep", b"{}", MANIFEST);
    for _ in 0..6 {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]});
        inner = hostile.document("index-deep", index.to_string().as_bytes(), INDEX);
    }
    // A digest that is not that of the document.
    config("manifest-of-another", &|_, _| {});
    let wrong = format!("sha256:{}", "2".repeat(64));
    let lie = |digest: &str| Answer {
        status: "200 OK",
        headers: vec![
            ("Content-Type", MANIFEST.to_owned()),
            ("Docker-Content-Digest", digest.to_owned()),
        ],
        body: br#"{"schemaVersion":2}"#.to_vec(),
    };
    for name in ["1", &wrong] {
        hostile.answer(
            "manifest-of-another",
            &format!("manifests/{name}"),
            lie(&wrong),
        );
    }
    hostile.answer(
        "digest-way-out",
        "manifests/1",
        lie("sha256:../../../../../etc/passwd"),
    );
    hostile.answer("digest-of-text", "manifests/1", lie("nonsense"));
    let bytes = json!({"architecture": "amd64"}).to_string();
    config("config-of-another", &|m, _| {
        m["config"] = hostile.blob("config-of-another", bytes.as_bytes(), Some(&"3".repeat(64)))
    });
    config("config-of-text", &|m, _| {
        m["config"] = hostile.blob("config-of-text", b"text", None)
    });
    config("config-of-5-mb", &|m, _| {
        m["config"] = hostile.blob("config-of-5-mb", &vec![b' '; 5 << 20], None)
    });
    config("config-of-another-machine", &|_, c| {
        c["architecture"] = "s390x".into()
    });
    let mut cases = logins(hostile);
    cases.extend([
        ("manifest-of-schema-1", "neither layers nor manifests"),
        ("manifest-of-html", "cannot be read"),
        ("manifest-empty", "cannot be read"),
        ("manifest-cut", "cannot be read"),
        ("manifest-deep", "cannot be read"),
        ("manifest-of-10-mb", "longer than 4 MiB"),
        ("manifest-endless", "longer than 4 MiB"),
        ("manifest-endless-unnamed", "longer than 4 MiB"),
        ("manifest-of-nothing", "neither layers nor manifests"),
        ("manifest-without-config", "no config"),
        ("index-of-nothing", "not for this machine"),
        ("index-way-out", "no sha256"),
        ("index-deep", "too deep"),
        ("manifest-of-another", "gives other bytes than"),
        ("digest-way-out", "has no image"),
        ("digest-of-text", "has no image"),
        ("config-of-another", "gives other bytes than"),
        ("config-of-text", "cannot be read"),
        ("config-of-5-mb", "5242880 bytes"),
        ("config-of-another-machine", "linux/s390x"),
    ]);
    cases
}

/// Token servers.
fn logins(hostile: &Hostile) -> Vec<Case> {
    let wants = |repository: &str, realm: &str| {
        let who = format!("Bearer realm=\"{realm}\",service=\"x\"");
        let denied = Answer {
            status: "401 Unauthorized",
            headers: vec![("WWW-Authenticate", who)],
            body: vec![],
        };
        hostile.answer(repository, "manifests/1", denied);
    };
    let server = |repository: &str, answer: Answer| {
        let realm = format!("http://127.0.0.1:{}/v2/{repository}/token", hostile.port);
        wants(repository, &realm);
        let asked = format!("token?service=x&scope=repository%3A{repository}%3Apull");
        hostile.answer(repository, &asked, answer);
    };
    let sends = |body: &[u8]| Answer {
        status: "200 OK",
        headers: vec![],
        body: body.to_vec(),
    };
    wants("login-of-a-file", "file:///etc/passwd");
    wants("login-of-text", "somewhere");
    let mut endless = sends(&[b' '; 1 << 20]);
    endless.headers = vec![
        ("Content-Length", (1_u64 << 40).to_string()),
        (ENDLESS, String::new()),
    ];
    server("login-endless", endless);
    server("login-of-html", sends(b"<html>welcome</html>"));
    server(
        "login-of-nothing",
        sends(br#"{"token":"","expires_in":60}"#),
    );
    server("login-of-lines", sends(br#"{"token":"a\r\nHost: b"}"#));
    // A token that is never good enough.
    server("login-in-a-circle", sends(br#"{"access_token":"x"}"#));
    let mut never = sends(b"");
    never.status = "403 Forbidden";
    server("login-of-nobody", never);
    vec![
        ("login-of-a-file", "not of the web"),
        ("login-of-text", "has no address"),
        ("login-endless", "more than any token has"),
        ("login-of-html", "sends no token"),
        ("login-of-nothing", "sends no token"),
        ("login-of-lines", "does not give"),
        ("login-in-a-circle", "does not let"),
        ("login-of-nobody", "does not let"),
    ]
}

#[test]
fn a_hostile_registry_is_refused_and_nothing_is_left() {
    let mut home = Home::bare();
    let docker = home.scratch().join("docker");
    fs::create_dir_all(&docker).expect("a directory");
    home.set_env("DOCKER_CONFIG", Some(&docker.display().to_string()));
    let (hostile, canary) = (Hostile::start(), Hostile::start());
    let mut cases = layers(&hostile, &canary);
    cases.extend(documents(&hostile));
    assert_eq!(cases.len(), 46, "docs/design/registry.md says how many");
    let images = home.state().join("images");
    let mut wrong = Vec::new();
    for (repository, word) in &cases {
        let name = format!("127.0.0.1:{}/{repository}:1", hostile.port);
        let run = home.banger(&["image", "pull", &name]);
        let told = run.err();
        println!("{repository}: {}", told.trim());
        if !told.contains(word) || run.status != 125 {
            wrong.push(format!("{repository}: '{told}' does not say '{word}'"));
            continue;
        }
        let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
        assert_eq!(listed, json!([]), "{repository}");
        let left: Vec<_> = fs::read_dir(&images)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name())
            .collect();
        let left: Vec<_> = left
            .iter()
            .filter(|name| *name != ".lock" && *name != ".publish.lock")
            .collect();
        assert!(left.is_empty(), "{repository} leaves {left:?}");
        for name in cached(&home) {
            let bytes = fs::read(home.state().join("blobs/sha256").join(&name)).expect("a blob");
            assert!(
                name.ends_with(".part") || name == sha256(&bytes),
                "{repository} leaves {name}"
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!fs::exists("/tmp/evil").expect("a look"));
    assert_eq!(
        canary.asked(),
        Vec::<String>::new(),
        "nobody goes where a manifest says"
    );
    // The same server with nothing wrong: what was refused was refused for its wrongs.
    hostile.image(
        "good",
        &[&tar("etc/os-release", b"ID=hostile\n")],
        &|_, _| {},
    );
    let name = format!("127.0.0.1:{}/good:1", hostile.port);
    home.banger(&["image", "pull", &name]).exits(0);
    home.finish();
}
