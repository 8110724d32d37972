//! A registry as the world has them: TLS with somebody's certificate, tokens from a server of its own, and a proxy before
//! it all.

use super::{PASSWORD, Registry, USER, sh};
use banger_testkit::Home;
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// A name that no resolver knows: only the proxy does.
pub const NAME: &str = "registry.test";

/// Such a registry, its token server and its proxy.
pub struct Guarded {
    pub registry: Registry,
    /// The certificate of who vouches for it.
    pub authority: PathBuf,
    /// Port of the proxy.
    pub proxy: u16,
    seen: Seen,
}

type Seen = Arc<Mutex<Vec<String>>>;

impl Guarded {
    /// Starts all three.
    pub fn start(home: &Home) -> Self {
        let dir = home.scratch().join("guarded");
        fs::create_dir_all(&dir).expect("a directory");
        certificates(home, &dir);
        let seen = Seen::default();
        let tokens = serve(&seen, {
            let dir = dir.clone();
            move |stream, seen| token(stream, seen, &dir)
        });
        let d = dir.display();
        let registry = Registry::configured(
            home,
            &dir,
            &format!("tls: {{certificate: {d}/leaf.crt, key: {d}/leaf.key}}",),
            &format!(
                "auth: {{token: {{realm: 'http://127.0.0.1:{tokens}/token', service: {NAME}, \
                 issuer: tests, rootcertbundle: {d}/authority.crt}}}}\n"
            ),
        );
        let port = registry.port;
        let proxy = serve(&seen, move |stream, seen| tunnel(stream, seen, port));
        Guarded {
            registry,
            authority: dir.join("authority.crt"),
            proxy,
            seen,
        }
    }

    /// What proxy and token server were asked for since the last look.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().expect("the list"))
    }
}

/// An authority, and what it vouches for: the registry's key, with which tokens are signed as well.
fn certificates(home: &Home, dir: &Path) {
    let words = format!(
        "cd {} && new='openssl req -x509 -newkey rsa:2048 -noenc -days 2' \
         && $new -subj /CN=authority -keyout authority.key -out authority.crt \
         && $new -subj /CN={NAME} -addext subjectAltName=DNS:{NAME} -addext basicConstraints=critical,CA:FALSE \
            -CA authority.crt -CAkey authority.key -keyout leaf.key -out leaf.crt \
         && openssl x509 -in leaf.crt -outform DER -out leaf.der",
        dir.display()
    );
    sh(home, &words);
}

/// Answers whoever connects, each in a thread of its own; the port.
fn serve(seen: &Seen, each: impl Fn(TcpStream, &Seen) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let seen = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (each, seen) = (each.clone(), seen.clone());
            thread::spawn(move || each(stream, &seen));
        }
    });
    port
}

/// The lines of a request's head.
fn head(stream: &TcpStream) -> Vec<String> {
    // Byte by byte: what follows the head is not ours.
    let mut reader = BufReader::with_capacity(1, stream);
    let mut lines = Vec::new();
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
        lines.push(std::mem::take(&mut line).trim_end().to_owned());
    }
    lines
}

/// A token server as Docker's specification has it: who has no password gets a token that opens nothing.
fn token(mut stream: TcpStream, seen: &Seen, dir: &Path) {
    let head = head(&stream);
    let line = head.first().cloned().unwrap_or_default();
    let login = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let login = format!("basic {}", login.to_lowercase());
    let known = head
        .iter()
        .filter_map(|line| line.split_once(": "))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("authorization") && value.to_lowercase() == login
        });
    let who = if known { USER } else { "nobody" };
    seen.lock()
        .expect("the list")
        .push(format!("token for {who}"));
    let query = line.split([' ', '?']).nth(2).unwrap_or_default();
    let scope = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("scope="))
        .unwrap_or_default()
        .replace("%3A", ":")
        .replace("%2F", "/")
        .replace("%2C", ",");
    let mut scope = scope.splitn(3, ':').skip(1);
    let (name, actions) = (scope.next().unwrap_or_default(), scope.next());
    let actions: Vec<_> = actions.unwrap_or_default().split(',').collect();
    let access = match known {
        true => json!([{"type": "repository", "name": name, "actions": actions}]),
        false => json!([]),
    };
    let body = json!({"token": signed(dir, &access), "expires_in": 300}).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes());
}

/// A JSON Web Token (RFC 7519) signed with the registry's key, with its certificate.
#[allow(
    clippy::disallowed_methods,
    reason = "a token server of the test, in a thread of its own"
)]
fn signed(dir: &Path, access: &serde_json::Value) -> String {
    let der = fs::read(dir.join("leaf.der")).expect("a certificate");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a clock").as_secs();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [STANDARD.encode(der)]});
    let claims = json!({
        "iss": "tests", "sub": USER, "aud": NAME, "exp": now + 300, "nbf": now - 60, "iat": now,
        "jti": "1", "access": access,
    });
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encode(&header), encode(&claims));
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(dir.join("leaf.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    let mut stdin = openssl.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("a pipe");
    drop(stdin);
    let signature = openssl.wait_with_output().expect("openssl").stdout;
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A proxy (RFC 9110, CONNECT) that knows one name.
fn tunnel(mut client: TcpStream, seen: &Seen, port: u16) {
    let line = head(&client).first().cloned().unwrap_or_default();
    let target = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    seen.lock().expect("the list").push(target.clone());
    if target != format!("CONNECT {NAME}:443") {
        let _ = client.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else {
        return;
    };
    let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    let (mut from, mut to) = match (client.try_clone(), server.try_clone()) {
        (Ok(from), Ok(to)) => (from, to),
        _ => return,
    };
    thread::spawn(move || copy(&mut from, &mut to));
    copy(&mut server, &mut client);
}

fn copy(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = [0; 1 << 14];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
