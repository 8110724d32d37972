//! Who asks a registry, as Docker keeps it: `config.json` with the names and passwords of `docker login`, or with the
//! programs that keep them. They are read here and sent with the request; the daemon opens nobody's files (R-OPS-3).

use crate::failure::{Failure, tell};
use crate::spawn;
use banger_model::{ImageReference, reference::DEFAULT_REGISTRY};
use banger_wire::api::Credentials;
use base64::{Engine, engine::general_purpose};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

/// What Docker calls its own registry.
const HUB: &str = "https://index.docker.io/v1/";
/// The user of an identity token.
const TOKEN_USER: &str = "<token>";

/// What is read of `config.json`. Nothing of it is ever shown.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Login>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Who this user is to the registry of an image; `None` if nobody in particular.
///
/// # Errors
/// The configuration cannot be read, or knows only what cannot be used.
pub fn for_image(reference: &ImageReference) -> Result<Option<Credentials>, Failure> {
    let Some(path) = path() else {
        return Ok(None);
    };
    let config = match fs::read(&path) {
        Ok(text) => parse(&text, &path)?,
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => {
            return Err(Failure::new(format!("cannot read {}", path.display())).caused_by(&error));
        }
    };
    let registry = reference.registry();
    if let Some(helper) = config.helper(registry)
        && let Some(found) = asked(helper, registry)?
    {
        return Ok(Some(found));
    }
    config
        .login(registry)
        .map_or(Ok(None), |login| login.credentials(registry))
}

fn path() -> Option<PathBuf> {
    let dir = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let dir = dir("DOCKER_CONFIG").or_else(|| dir("HOME").map(|home| home.join(".docker")))?;
    Some(dir.join("config.json"))
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn parse(text: &[u8], path: &Path) -> Result<Config, Failure> {
    // The parser's words may quote what it reads.
    serde_json::from_slice(text).map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        Failure::new(format!("{} is no configuration of Docker", path.display()))
            .because(&at)
            .hint("correct it, or name another directory: DOCKER_CONFIG=/tmp/none banger …")
    })
}

impl Config {
    fn helper(&self, registry: &str) -> Option<&str> {
        let own = of(&self.cred_helpers, registry);
        let helper = own.or(self.creds_store.as_ref())?;
        Some(helper.as_str()).filter(|helper| !helper.is_empty())
    }

    fn login(&self, registry: &str) -> Option<&Login> {
        of(&self.auths, registry)
    }
}

/// What a map has for a registry: its keys are hosts, or addresses of old.
fn of<'a, T>(map: &'a BTreeMap<String, T>, registry: &str) -> Option<&'a T> {
    let is = |key: &&String| host(key) == host(registry);
    let exact = map.get(registry);
    exact.or_else(|| map.iter().find(|(key, _)| is(key)).map(|(_, value)| value))
}

fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        host => host,
    }
}

impl Login {
    fn credentials(&self, registry: &str) -> Result<Option<Credentials>, Failure> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credentials::Token(self.registrytoken.clone())));
        }
        if !self.identitytoken.is_empty() {
            return Err(identity_token(registry));
        }
        if !self.username.is_empty() {
            return user(registry, &self.username, &self.password);
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let text = general_purpose::STANDARD.decode(self.auth.trim()).ok();
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_ref().and_then(|text| text.split_once(':'));
        let (username, password) = pair.ok_or_else(|| {
            Failure::new(format!(
                "Docker's configuration has a login for {registry} that cannot be read"
            ))
            .hint(format!("docker logout {registry}; docker login {registry}"))
        })?;
        user(registry, username, password.trim_end_matches('\0'))
    }
}

fn user(registry: &str, name: &str, password: &str) -> Result<Option<Credentials>, Failure> {
    if name == TOKEN_USER {
        return Err(identity_token(registry));
    }
    Ok(Some(Credentials::Password {
        username: name.to_owned(),
        password: password.to_owned(),
    }))
}

fn identity_token(registry: &str) -> Failure {
    Failure::new(format!(
        "Docker's configuration has an identity token for {registry}, which banger cannot use"
    ))
    .hint(format!(
        "log in with a password or an access token: docker login -u USER {registry}"
    ))
}

/// What a helper knows. One that is not there, or fails, is told of: the image may be anybody's to have.
fn asked(helper: &str, registry: &str) -> Result<Option<Credentials>, Failure> {
    let server = if registry == DEFAULT_REGISTRY {
        HUB
    } else {
        registry
    };
    let warn = |why: &str| {
        tell(&format!(
            "warning: docker-credential-{helper}, which Docker's configuration names, gives nothing for {registry}: {why}"
        ));
        Ok(None)
    };
    if !helper
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        return warn("that is no name of a program");
    }
    let (good, output) = match spawn::ask_helper(helper, server) {
        Ok(answer) => answer,
        Err(error) => return warn(&error.to_string()),
    };
    if !good {
        let said = String::from_utf8_lossy(&output).trim().to_owned();
        // What every helper says of what it does not have.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return warn(said.lines().next().unwrap_or("it failed"));
    }
    match serde_json::from_slice::<Answer>(&output) {
        Ok(answer) => user(registry, &answer.username, &answer.secret),
        Err(_) => warn("its answer cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(config: serde_json::Value, registry: &str) -> Result<Option<Credentials>, Failure> {
        let config = parse(config.to_string().as_bytes(), Path::new("config.json"))?;
        config
            .login(registry)
            .map_or(Ok(None), |login| login.credentials(registry))
    }

    fn mary() -> Option<Credentials> {
        Some(Credentials::Password {
            username: "mary".to_owned(),
            password: "a:b".to_owned(),
        })
    }

    #[test]
    fn logins_are_found_by_host_however_they_are_written() {
        let auth = general_purpose::STANDARD.encode("mary:a:b");
        for (key, registry) in [
            ("q.io", "q.io"),
            ("https://q.io", "q.io"),
            ("https://q.io:5000/v2/", "q.io:5000"),
            ("localhost:5000", "localhost:5000"),
            (HUB, "docker.io"),
            ("docker.io", "docker.io"),
        ] {
            let found = login(
                serde_json::json!({"auths": {key: {"auth": auth}}}),
                registry,
            );
            assert_eq!(found.unwrap(), mary(), "{key}");
            let other = login(
                serde_json::json!({"auths": {key: {"auth": auth}}}),
                "other.io",
            );
            assert_eq!(other.unwrap(), None, "{key}");
        }
        let plain = serde_json::json!({"auths": {"q.io": {"username": "mary", "password": "a:b"}}});
        assert_eq!(login(plain, "q.io").unwrap(), mary());
        let empty = serde_json::json!({"auths": {"q.io": {}}});
        assert_eq!(login(empty, "q.io").unwrap(), None);
        let token = serde_json::json!({"auths": {"q.io": {"registrytoken": "t"}}});
        assert_eq!(
            login(token, "q.io").unwrap(),
            Some(Credentials::Token("t".to_owned()))
        );
    }

    #[test]
    fn what_cannot_be_used_is_said_and_never_shown() {
        let auth = general_purpose::STANDARD.encode("swordfish");
        for bad in [
            serde_json::json!({"auths": {"q.io": {"auth": auth}}}),
            serde_json::json!({"auths": {"q.io": {"auth": "swordfish!"}}}),
            serde_json::json!({"auths": {"q.io": {"identitytoken": "swordfish"}}}),
            serde_json::json!({"auths": "swordfish"}),
        ] {
            let failure = login(bad.clone(), "q.io").expect_err("usable");
            let text = failure.text();
            assert!(
                !text.contains("swordfish") && text.contains("hint"),
                "{bad}: {text}"
            );
        }
    }

    #[test]
    fn a_registrys_own_helper_comes_before_the_store() {
        let text = br#"{"credsStore": "desktop", "credHelpers": {"q.io": "ecr", "x.io": ""}}"#;
        let config = parse(text, Path::new("x")).unwrap();
        assert_eq!(config.helper("q.io"), Some("ecr"));
        assert_eq!(config.helper("docker.io"), Some("desktop"));
        assert_eq!(config.helper("x.io"), None);
    }
}
