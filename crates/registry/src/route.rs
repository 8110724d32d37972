//! How a registry is reached: with or without TLS, by which proxy, and how long is waited.

use std::time::Duration;

/// Longest a connection takes to come about.
const CONNECT: Duration = Duration::from_secs(20);
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
    /// Longest a registry is silent in the middle of an answer.
    pub(crate) const SILENCE: Duration = Duration::from_secs(30);

    /// With the proxies that this process was started with.
    pub(crate) fn of_environment(tls: bool, insecure: bool) -> Self {
        let value = |names: [&str; 2]| {
            let values = names.iter().filter_map(|name| std::env::var(name).ok());
            values.into_iter().find(|value| !value.is_empty())
        };
        let no_proxy = value(["no_proxy", "NO_PROXY"]);
        let no_proxy = no_proxy.into_iter().chain([LOCAL.to_owned()]);
        Route {
            tls,
            insecure,
            https_proxy: value(["https_proxy", "HTTPS_PROXY"]),
            http_proxy: value(["http_proxy", "HTTP_PROXY"]),
            no_proxy: no_proxy.collect::<Vec<_>>().join(","),
        }
    }

    /// The client.
    ///
    /// # Errors
    /// A proxy's address is none, or TLS has no roots.
    pub(crate) fn http(&self) -> reqwest::Result<reqwest::Client> {
        choose_cryptography();
        let no_proxy = reqwest::NoProxy::from_string(&self.no_proxy);
        let mut client = reqwest::Client::builder()
            .danger_accept_invalid_certs(self.insecure)
            .connect_timeout(CONNECT)
            .read_timeout(Self::SILENCE)
            .user_agent(USER_AGENT);
        if let Some(proxy) = &self.https_proxy {
            client = client.proxy(reqwest::Proxy::https(proxy)?.no_proxy(no_proxy.clone()));
        }
        if let Some(proxy) = &self.http_proxy {
            client = client.proxy(reqwest::Proxy::http(proxy)?.no_proxy(no_proxy));
        }
        client.build()
    }
}

/// TLS is done by ring, in all of the process.
fn choose_cryptography() {
    // An error says that there is one already: ours.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
