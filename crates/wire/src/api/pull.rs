//! `image.pull`: images from registries.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `image.pull`: fetches an image from an OCI registry, if it is not here already. Streams events; the image is told by
/// [`super::Event::Image`]. The daemon reads nobody's credentials (R-OPS-3): who asks sends them, and they are forgotten
/// with the pull's end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImagePull {
    /// The image as Docker refers to it: `alpine:3.20`, `ghcr.io/a/b@sha256:…`, `localhost:5000/x`. Its name here.
    pub reference: String,
    /// Another name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A registry without TLS, or with a certificate that nobody vouches for, will do. On this machine it does anyway.
    #[serde(default)]
    pub insecure: bool,
    /// Who asks the registry; anybody if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// Who asks a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Credentials {
    /// A user; with them a registry may be asked for a token.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A token of the registry itself.
    Token(String),
}

/// Without the secrets: this may come to be in a log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Password { .. } => "Password(…)",
            Credentials::Token(_) => "Token(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_sent_and_not_shown() {
        let (username, password) = ("mary".to_owned(), "swordfish".to_owned());
        let credentials = [
            Credentials::Password { username, password },
            Credentials::Token("swordfish".to_owned()),
        ];
        for credentials in credentials {
            let request = ImagePull {
                reference: "a".to_owned(),
                credentials: Some(credentials),
                ..ImagePull::default()
            };
            let text = serde_json::to_string(&request).unwrap();
            assert!(text.contains("swordfish"), "{text}");
            assert_eq!(serde_json::from_str::<ImagePull>(&text).unwrap(), request);
            let shown = format!("{request:?}");
            assert!(
                !shown.contains("swordfish") && !shown.contains("mary"),
                "{shown}"
            );
        }
    }
}
