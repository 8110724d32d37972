//! Registries behind TLS, token servers and proxies (R-IMG-1), and what a terminal shows of a pull.

mod registry;

use banger_testkit::{Home, OnTerminal};
use registry::{PASSWORD, Registry, USER, Wire, guarded::Guarded, guarded::NAME, layout};
use std::fs;

/// A home where this is Docker's configuration.
fn home(config: &str) -> Home {
    let mut home = Home::bare();
    let dir = home.scratch().join("docker");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("config.json"), config).expect("a configuration");
    home.set_env("DOCKER_CONFIG", Some(&dir.display().to_string()));
    home
}

/// The token server gives what the login is worth, the registry's certificate is proven, and only the proxy knows its name.
#[test]
fn a_registry_with_tls_and_tokens_is_reached_by_a_proxy() {
    let login =
        format!(r#"{{"auths":{{"{NAME}":{{"username":"{USER}","password":"{PASSWORD}"}}}}}}"#);
    let mut home = home("{}");
    let guarded = Guarded::start(&home);
    guarded
        .registry
        .push(&home, &layout(&home, "one", 7, true), "some/app:1");
    guarded.seen();
    let name = format!("{NAME}/some/app:1");
    let proxy = format!("http://127.0.0.1:{}", guarded.proxy);
    home.set_env("HTTPS_PROXY", Some(&proxy));
    // Nobody here vouches for the registry.
    let run = home.banger(&["image", "pull", &name]).exits(125);
    assert!(
        run.err().contains("UnknownIssuer") && run.err().contains("--insecure"),
        "{}",
        run.err()
    );
    assert!(!guarded.seen().iter().any(|line| line.starts_with("token")));
    // The daemon has the roots it was started with.
    home.banger(&["daemon", "stop"]).exits(0);
    let authority = guarded.authority.display().to_string();
    home.set_env("SSL_CERT_FILE", Some(&authority));
    let run = home.banger(&["image", "pull", &name]).exits(125);
    assert!(
        run.err().contains("does not let anybody have"),
        "{}",
        run.err()
    );
    assert!(guarded.seen().contains(&"token for nobody".to_owned()));
    fs::write(home.scratch().join("docker/config.json"), login).expect("a configuration");
    let image = home
        .banger(&["image", "pull", &name, "--json"])
        .exits(0)
        .json();
    assert_eq!(image["names"], serde_json::json!([name]));
    let mut seen = guarded.seen();
    seen.sort();
    seen.dedup();
    // The token server is on this machine: no proxy was asked for it.
    assert_eq!(
        seen,
        [format!("CONNECT {NAME}:443"), format!("token for {USER}")]
    );
    // Whoever vouches for it.
    home.banger(&["image", "delete", &name]).exits(0);
    home.banger(&["daemon", "stop"]).exits(0);
    home.set_env("SSL_CERT_FILE", None);
    home.banger(&["image", "pull", "--insecure", &name])
        .exits(0);
    drop(guarded);
    home.finish();
}

/// Layers on their way have a line each, all of them one with rate and time; at the end only plain lines are left.
#[test]
fn a_terminal_shows_each_layer_and_the_rate() {
    let home = home("{}");
    let registry = Registry::start(&home, false);
    let wire = Wire::to(registry.port);
    registry.push(&home, &layout(&home, "one", 7, false), "app:1");
    let name = format!("127.0.0.1:{}/app:1", wire.port);
    // 3.4 MB take some 15 s.
    wire.slow(300);
    let mut terminal = OnTerminal::start(&home, &["image", "pull", &name]);
    terminal.looks("shows a layer, a rate and a time", |screen| {
        let total = |line: &str| {
            line.starts_with("image: ") && line.contains(" MiB/s, ") && line.ends_with(" s left")
        };
        let layer = |line: &str| line.starts_with("  layer ") && line.ends_with(" MiB");
        screen.lines().any(total) && screen.lines().any(layer)
    });
    wire.slow(0);
    terminal.exits(0);
    terminal.looks("has no layers under way", |screen| {
        let plain = |line: &str| line.starts_with("image: ") || line.len() == 12;
        let mut lines = screen.lines().filter(|line| !line.is_empty());
        lines.clone().count() > 3 && lines.all(plain)
    });
    drop(registry);
    home.finish();
}
