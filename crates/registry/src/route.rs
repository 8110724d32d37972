//! How a registry is reached: with or without TLS, by which proxy, and how long is waited.

use std::time::Duration;

/// Hosts that no proxy is asked for.
const LOCAL: &str = "localhost,127.0.0.0/8,::1";
/// Who asks.
const USER_AGENT: &str = concat!("banger/", env!("CARGO_PKG_VERSION"));

/// What our HTTP clients are made from.
pub(crate) struct Route {
    /// TLS, or plain HTTP.
    pub(crate) tls: bool,
    /// Whoever vouches for the registry.
    insecure: bool,
    https_proxy: Option<String>,
    http_proxy: Option<String>,
    no_proxy: String,
}

impl Route {
    /// Longest a connection takes to come about.
    pub(crate) const CONNECT: Duration = Duration::from_secs(20);
    /// Longest a registry is silent in the middle of an answer.
    pub(crate) const SILENCE: Duration = Duration::from_secs(30);

    /// With the proxies that this process was started with.
    pub(crate) fn of_environment(tls: bool, insecure: bool) -> Self {
        Self::of(&|name| std::env::var(name).ok(), tls, insecure)
    }

    fn of(variable: &dyn Fn(&str) -> Option<String>, tls: bool, insecure: bool) -> Self {
        let value = |names: [&str; 2]| {
            let mut values = names.iter().filter_map(|name| variable(name));
            values.find(|value| !value.is_empty())
        };
        let no_proxy = value(["no_proxy", "NO_PROXY"]);
        let no_proxy = no_proxy.into_iter().chain([LOCAL.to_owned()]);
        let any = value(["all_proxy", "ALL_PROXY"]);
        Route {
            tls,
            insecure,
            https_proxy: value(["https_proxy", "HTTPS_PROXY"]).or_else(|| any.clone()),
            http_proxy: value(["http_proxy", "HTTP_PROXY"]).or(any),
            no_proxy: no_proxy.collect::<Vec<_>>().join(","),
        }
    }

    /// The client.
    ///
    /// # Errors
    /// A proxy's address is none, or TLS has no roots.
    pub(crate) fn http(&self) -> reqwest::Result<reqwest::Client> {
        self.builder()?.build()
    }

    pub(crate) fn builder(&self) -> reqwest::Result<reqwest::ClientBuilder> {
        choose_cryptography();
        let no_proxy = reqwest::NoProxy::from_string(&self.no_proxy);
        let mut client = reqwest::Client::builder()
            // Those of reqwest know nothing of this machine's own hosts.
            .no_proxy()
            // An address may have a secret, which is not for whom it leads to.
            .referer(false)
            .danger_accept_invalid_certs(self.insecure)
            .connect_timeout(Self::CONNECT)
            .read_timeout(Self::SILENCE)
            .user_agent(USER_AGENT);
        if let Some(proxy) = &self.https_proxy {
            client = client.proxy(reqwest::Proxy::https(proxy)?.no_proxy(no_proxy.clone()));
        }
        if let Some(proxy) = &self.http_proxy {
            client = client.proxy(reqwest::Proxy::http(proxy)?.no_proxy(no_proxy));
        }
        Ok(client)
    }
}

/// TLS is done by ring, in all of the process.
fn choose_cryptography() {
    // An error says that there is one already: ours.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    /// A server that says of every request who it is; its port.
    fn server(who: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                    head.push(byte[0]);
                }
                let len = who.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n");
                let answer = format!("{head}connection: close\r\n\r\n{who}");
                // The test fails without it.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        port
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_all_but_this_machine() {
        let (proxy, own) = (server("the proxy"), server("the server"));
        for name in ["all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY"] {
            let variable =
                |asked: &str| (asked == name).then(|| format!("http://127.0.0.1:{proxy}"));
            let http = Route::of(&variable, false, false).http().unwrap();
            for (url, who) in [
                (format!("http://127.0.0.1:{own}/"), "the server"),
                (format!("http://localhost:{own}/"), "the server"),
                ("http://registry.test/".to_owned(), "the proxy"),
            ] {
                let answer = http.get(&url).send().await.unwrap();
                assert_eq!(answer.text().await.unwrap(), who, "{name} {url}");
            }
        }
        let both = |asked: &str| match asked {
            "https_proxy" => Some("http://a:1".to_owned()),
            "ALL_PROXY" => Some("http://b:2".to_owned()),
            _ => None,
        };
        let route = Route::of(&both, true, false);
        assert_eq!(route.https_proxy.as_deref(), Some("http://a:1"));
        assert_eq!(route.http_proxy.as_deref(), Some("http://b:2"));
    }
}
