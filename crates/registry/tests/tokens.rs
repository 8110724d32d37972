//! Registries that want tokens, and those that have enough of somebody: what is asked again, and what is said.

mod server;

use banger_model::ImageReference;
use banger_registry::{Access, Blob, BlobCache, Error, Session};
use server::{Patience, answer, blob, bytes, serve};
use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// What comes of these blobs of `app`.
fn pulled(port: u16, blobs: &[Blob]) -> Result<Vec<PathBuf>, Error> {
    let dir = tempfile::tempdir().expect("it works");
    let reference: ImageReference = format!("127.0.0.1:{port}/app:1").parse().expect("it works");
    let watch = Patience::of(60);
    let session = Session::open(&reference, &Access::default(), &watch)?;
    session.blobs(&BlobCache::new(dir.path()), blobs)
}

/// A 401 that wants a token of this server.
fn wants(realm: &str) -> Vec<u8> {
    let wanted = format!("www-authenticate: Bearer realm=\"{realm}\"\r\n");
    answer("401 Who", &wanted, 0, b"")
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error)
        .expect("a cause")
        .to_string()
}

/// Three layers whose token runs out at once: each gets the next one, which they all share, and none is told that it may not.
#[test]
fn layers_that_renew_a_token_at_once_all_come() {
    let all: Vec<_> = (1..4).map(|n| bytes(n * 100)).collect();
    let sent = all.clone();
    let own: Arc<OnceLock<u16>> = Arc::default();
    let (port, tokens, late) = (own.clone(), AtomicUsize::new(0), AtomicUsize::new(0));
    let (at, heads) = serve(move |_, head| {
        if head.starts_with("get /token") {
            // The first is for the greeting.
            let n = tokens.fetch_add(1, Ordering::SeqCst).min(1);
            let token = format!(r#"{{"token":"t{n}"}}"#);
            return answer("200 OK", "", token.len(), token.as_bytes());
        }
        let blob = sent.iter().find(|b| head.contains(&blob(b).sha256));
        match blob {
            Some(bytes) if head.contains("bearer t1") => answer("200 OK", "", bytes.len(), bytes),
            _ => {
                if blob.is_some() {
                    // All three have asked before one is answered.
                    late.fetch_add(1, Ordering::SeqCst);
                    let began = Instant::now();
                    while late.load(Ordering::SeqCst) < 3 && began.elapsed().as_secs() < 10 {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
                wants(&format!("http://127.0.0.1:{}/token", port.wait()))
            }
        }
    });
    own.set(at).unwrap();
    let blobs: Vec<_> = all.iter().map(|b| blob(b)).collect();
    let got = pulled(at, &blobs);
    let heads = heads.lock().unwrap().clone();
    assert!(got.is_ok(), "{got:?} {heads:#?}");
    let refused = heads.iter().filter(|head| head.contains("bearer t0"));
    assert_eq!(refused.count(), 3);
}

/// What the token server has not is no image; who fails is named.
#[test]
fn a_token_server_that_fails_is_not_the_registry() {
    let (tokens, _) = serve(|_, _| answer("404 No", "", 0, b""));
    let realm = format!("http://127.0.0.1:{tokens}/token");
    let (port, _) = serve(move |_, _| wants(&realm));
    let error = pulled(port, &[]).unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error:?}");
    let told = format!("its token server 127.0.0.1:{tokens}: it answers 404");
    assert_eq!(cause(&error), told);
}

/// Who has had enough of us says when to come again, and is obeyed; else there is a way out.
#[test]
fn a_limit_is_waited_for_or_told() {
    let all = bytes(10);
    let wait = "retry-after: 2\r\n";
    let (sent, began) = (all.clone(), Instant::now());
    let (port, heads) = serve(move |n, _| match n {
        1 => answer("200 OK", "", 0, b""),
        2 => answer("429 Later", wait, 0, b""),
        _ => answer("200 OK", "", 10, &sent),
    });
    pulled(port, &[blob(&all)]).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(heads.lock().unwrap().len(), 3);
    let (port, _) = serve(|n, _| match n {
        1 => answer("200 OK", "", 0, b""),
        // Nobody waits an hour, or until a date.
        2 => answer("429 Later", "retry-after: 3600\r\n", 0, b""),
        _ => answer("429 Later", "retry-after: Mon\r\n", 0, b""),
    });
    let error = pulled(port, &[blob(&all)]).unwrap_err();
    assert_eq!(cause(&error), "it answers 429");
    let way_out = format!("docker login 127.0.0.1:{port}, or wait");
    assert!(error.hint().unwrap().contains(&way_out), "{error:?}");
}
