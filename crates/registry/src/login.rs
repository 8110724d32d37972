//! How a registry finds out who asks: the challenge of its 401 (RFC 7235), a user and a password (RFC 7617), or a token
//! that a server named in the challenge gives for them (RFC 6750; Distribution's "Token Authentication").

use crate::Auth;
use crate::answer::{good, whole};
use crate::fault::Fault;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use std::{cell::RefCell, net::IpAddr};

/// Longest answer of a token server, in bytes. Tokens have some kilobytes.
const LONGEST: u64 = 1 << 20;

/// Who asks, and what shows it.
pub(crate) struct Login {
    auth: Auth,
    /// What may be asked for, as tokens are asked for it: `repository:library/alpine:pull`.
    scope: String,
    /// Whether the registry is spoken to by TLS: a password does not leave it then.
    tls: bool,
    proof: RefCell<Proof>,
}

/// What shows who asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing does.
    Nothing,
    /// The user's.
    Password,
    /// This one.
    Token(String),
}

/// What a registry wants.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    /// A user and a password.
    Basic,
    /// A token.
    Bearer {
        /// Where there is one.
        realm: String,
        /// For whom.
        service: Option<String>,
    },
}

impl Login {
    /// Nobody has asked for anything yet.
    pub(crate) fn new(auth: &Auth, scope: String, tls: bool) -> Self {
        Login {
            auth: auth.clone(),
            scope,
            tls,
            proof: RefCell::new(Proof::Nothing),
        }
    }

    /// The request with what shows who asks, and that.
    pub(crate) fn sign(&self, request: RequestBuilder) -> (RequestBuilder, Proof) {
        let proof = self.proof.borrow().clone();
        let signed = match (&proof, &self.auth) {
            (Proof::Token(token), _) => request.bearer_auth(token),
            (Proof::Password, Auth::Basic(user, password)) => {
                request.basic_auth(user, Some(password))
            }
            _ => request,
        };
        (signed, proof)
    }

    /// Takes up what an answer of the registry wants; whether asking again can bring another answer than the one to a
    /// request that showed this. What others that ask at the same time show by now says nothing of that.
    ///
    /// # Errors
    /// The token server refuses or fails, or it must not have the password.
    pub(crate) async fn answer(
        &self,
        http: &Client,
        answer: &Response,
        shown: &Proof,
    ) -> Result<bool, Fault> {
        let wanted = match answer.status() {
            StatusCode::UNAUTHORIZED => challenge(answer.headers()),
            _ => return Ok(false),
        };
        let proof = match (wanted, &self.auth) {
            (_, Auth::Bearer(token)) => Proof::Token(token.clone()),
            (Some(Challenge::Bearer { realm, service }), _) => {
                Proof::Token(self.token(http, &realm, service.as_deref()).await?)
            }
            (Some(Challenge::Basic), Auth::Basic(..)) => Proof::Password,
            _ => return Ok(false),
        };
        let other = proof != *shown;
        *self.proof.borrow_mut() = proof;
        Ok(other)
    }

    /// A token for what is asked for.
    async fn token(
        &self,
        http: &Client,
        realm: &str,
        service: Option<&str>,
    ) -> Result<String, Fault> {
        let none = |_| Fault::Odd("its token server has no address".to_owned());
        let url = Url::parse(realm).map_err(none)?;
        let token = self.token_of(http, url.clone(), service).await;
        token.map_err(|fault| fault.of_tokens(&url))
    }

    async fn token_of(
        &self,
        http: &Client,
        mut url: Url,
        service: Option<&str>,
    ) -> Result<String, Fault> {
        let odd = |what: &str| Fault::Odd(format!("it {what}"));
        let plain = url.scheme() == "http";
        if !plain && url.scheme() != "https" {
            return Err(odd("is not of the web"));
        }
        let secret = matches!(self.auth, Auth::Basic(..));
        if secret && plain && self.tls && !is_here(&url) {
            return Err(odd("wants the password without TLS"));
        }
        let scope = ("scope", self.scope.as_str());
        let service = service.map(|service| ("service", service));
        url.query_pairs_mut()
            .extend_pairs(service.into_iter().chain([scope]));
        let mut request = http.get(url);
        if let Auth::Basic(user, password) = &self.auth {
            request = request.basic_auth(user, Some(password));
        }
        let answer = good(request.send().await?)?;
        let Some(body) = whole(answer, LONGEST).await? else {
            return Err(odd("sends more than any token has"));
        };
        let told: Answer = serde_json::from_slice(&body).map_err(|_| odd("sends no token"))?;
        let tokens = [told.token, told.access_token].into_iter().flatten();
        let mut tokens = tokens.filter(|token| !token.is_empty());
        tokens.next().ok_or_else(|| odd("sends no token"))
    }
}

/// Whether a URL leads to this machine.
fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What a token server sends, of which one is enough.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// What is wanted, a token before a password; `None` if it is nothing that we have.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let challenges = value.to_str().ok().map(http_auth::parse_challenges);
        for one in challenges.and_then(Result::ok).into_iter().flatten() {
            let param = |name: &str| {
                let mut params = one.params.iter();
                let found = params.find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if one.scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = param("realm") {
                    let service = param("service");
                    return Some(Challenge::Bearer { realm, service });
                }
            } else if one.scheme.eq_ignore_ascii_case("basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn wanted(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        challenge(&headers)
    }

    #[test]
    fn a_challenge_says_what_is_wanted() {
        let bearer = |realm: &str, service: Option<&str>| {
            let (realm, service) = (realm.to_owned(), service.map(str::to_owned));
            Some(Challenge::Bearer { realm, service })
        };
        let docker = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull\"";
        let asked = bearer("https://auth.docker.io/token", Some("registry.docker.io"));
        assert_eq!(wanted(&[docker]), asked);
        assert_eq!(wanted(&["Basic realm=\"x\"", docker]), asked);
        assert_eq!(
            wanted(&["basic realm=\"a, \\\"b\\\"\", BEARER Realm=\"http://x/t?a=1\""]),
            bearer("http://x/t?a=1", None)
        );
        assert_eq!(wanted(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        for none in [
            "",
            "Bearer",
            "Bearer service=\"x\"",
            "Negotiate",
            "Basic realm=\"x",
            ",,",
        ] {
            assert_eq!(wanted(&[none]), None, "{none}");
        }
    }
}
