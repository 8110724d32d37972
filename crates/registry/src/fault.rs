//! Why a request to a registry came to nothing, and whether asking again may help.

use crate::route::Route;
use reqwest::{Response, Url, header::RETRY_AFTER};
use std::time::Duration;

/// Longest a server's word is taken for how long to wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Too many requests (RFC 6585).
const TOO_MANY: u16 = 429;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// This status.
    #[error("it answers {0}")]
    Status(u16),
    /// This status, and how long to wait before it is asked again.
    #[error("it answers {0}")]
    Wait(u16, Duration),
    /// No answer, or one that broke off.
    #[error(transparent)]
    Request(reqwest::Error),
    /// It ended before it was whole.
    #[error("it broke off")]
    Cut,
    /// One that means nothing.
    #[error("{0}")]
    Odd(String),
    /// Of the server that gives tokens for it.
    #[error("its token server {host}: {fault}")]
    Token {
        /// That server.
        host: String,
        /// What is wrong with it.
        fault: Box<Fault>,
    },
}

/// What a fault means for who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who asks must be somebody else.
    Denied,
    /// It is not there.
    Missing,
    /// No connection came about.
    Unreachable,
    /// It may be better the next time.
    Passing,
    /// It will not be better.
    Lasting,
}

impl Fault {
    /// The status of an answer that is none of success.
    pub(crate) fn of(answer: &Response) -> Self {
        let code = answer.status().as_u16();
        let after = answer.headers().get(RETRY_AFTER);
        // A date is for who has the same time.
        let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        match after.map(Duration::from_secs) {
            Some(after) if after <= PATIENCE => Fault::Wait(code, after),
            _ => Fault::Status(code),
        }
    }

    /// That of the server that gives tokens at this address.
    pub(crate) fn of_tokens(self, url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        Fault::Token {
            host: match url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            },
            fault: Box::new(self),
        }
    }

    /// The status it is, if it is one.
    pub(crate) const fn status(&self) -> Option<u16> {
        match self {
            Fault::Status(code) | Fault::Wait(code, _) => Some(*code),
            _ => None,
        }
    }

    /// How long the server wants to be left alone.
    pub(crate) fn after(&self) -> Duration {
        match self {
            Fault::Wait(_, after) => *after,
            Fault::Token { fault, .. } => fault.after(),
            _ => Duration::ZERO,
        }
    }

    /// Whether it is that too much was asked for.
    pub(crate) fn is_limit(&self) -> bool {
        match self {
            Fault::Token { fault, .. } => fault.is_limit(),
            other => other.status() == Some(TOO_MANY),
        }
    }

    /// What it means.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Fault::Status(code) | Fault::Wait(code, _) => match *code {
                401 | 403 => Kind::Denied,
                404 => Kind::Missing,
                408 | TOO_MANY | 500..=599 => Kind::Passing,
                _ => Kind::Lasting,
            },
            Fault::Cut => Kind::Passing,
            Fault::Odd(_) => Kind::Lasting,
            // What is not there is no image.
            Fault::Token { fault, .. } => match fault.kind() {
                Kind::Missing => Kind::Lasting,
                kind => kind,
            },
            Fault::Request(error) if error.is_connect() => Kind::Unreachable,
            Fault::Request(error) if error.is_builder() || error.is_redirect() => Kind::Lasting,
            Fault::Request(_) => Kind::Passing,
        }
    }

    /// It and what is behind it, on one line.
    pub(crate) fn told(&self) -> String {
        let mut text = match self {
            Fault::Request(error) if error.is_timeout() => {
                return match error.is_connect() {
                    true => format!("no connection for {} s", Route::CONNECT.as_secs()),
                    false => format!("no answer for {} s", Route::SILENCE.as_secs()),
                };
            }
            Fault::Token { host, fault } => format!("its token server {host}: {}", fault.told()),
            other => other.to_string(),
        };
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(500)
            .collect()
    }
}

/// Without its address: who redirects puts secrets into those.
impl From<reqwest::Error> for Fault {
    fn from(error: reqwest::Error) -> Self {
        Fault::Request(error.without_url())
    }
}

/// What a fault says, as the source of another error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Said(pub(crate) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for (code, means) in [
            (401, Kind::Denied),
            (403, Kind::Denied),
            (404, Kind::Missing),
            (408, Kind::Passing),
            (429, Kind::Passing),
            (500, Kind::Passing),
            (503, Kind::Passing),
            (400, Kind::Lasting),
            (416, Kind::Lasting),
        ] {
            assert_eq!(Fault::Status(code).kind(), means, "{code}");
            assert_eq!(Fault::Wait(code, PATIENCE).kind(), means, "{code}");
            let url = Url::parse("https://auth.test:444/token").unwrap();
            let of_tokens = Fault::Status(code).of_tokens(&url);
            let told = format!("its token server auth.test:444: it answers {code}");
            assert_eq!(of_tokens.told(), told);
            let means = match means {
                Kind::Missing => Kind::Lasting,
                same => same,
            };
            assert_eq!(of_tokens.kind(), means, "{code} of a token server");
        }
        assert_eq!(Fault::Cut.kind(), Kind::Passing);
    }

    /// A connection that does not come about is not one that is silent.
    #[tokio::test]
    async fn a_silence_is_told_as_it_is() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let soon = Duration::from_millis(100);
        let route = Route::of_environment(true, true);
        // Nobody shakes hands, and nobody answers.
        for (scheme, told) in [
            ("https", "no connection for 20 s"),
            ("http", "no answer for 30 s"),
        ] {
            let http = route.builder().unwrap();
            let http = http.connect_timeout(soon).read_timeout(soon * 5).build();
            let sent = http.unwrap().get(format!("{scheme}://{at}/")).send().await;
            assert_eq!(Fault::from(sent.unwrap_err()).told(), told);
        }
    }
}
