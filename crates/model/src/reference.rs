//! References to images in registries, by the grammar that Docker gave them (`alpine`, `ghcr.io/a/b:tag`,
//! `localhost:5000/x@sha256:…`).

use std::{fmt, net::IpAddr, str::FromStr};

/// The registry that is meant where none is named.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// Another name it goes by.
const DEFAULT_REGISTRY_TOO: &str = "index.docker.io";
/// Where the default registry keeps images whose repository is one word.
const OFFICIAL: &str = "library/";
/// The tag that is meant where neither tag nor digest is named.
const DEFAULT_TAG: &str = "latest";
/// The longest name of a repository, its registry included.
const NAME_MAX: usize = 255;
/// The longest tag.
const TAG_MAX: usize = 128;

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no reference to an image in a registry: {why}")]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

impl ImageReference {
    /// Host of the registry, with its port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the repository there.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; there is one where there is no digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, `sha256:` and 64 hex digits. It wins over the tag.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The name without what everybody leaves out: `alpine:3.20` for `docker.io/library/alpine:3.20`.
    pub fn familiar(&self) -> String {
        let name = match self.registry == DEFAULT_REGISTRY {
            false => format!("{}/{}", self.registry, self.repository),
            true => {
                let official = self.repository.strip_prefix(OFFICIAL);
                // With a `/` in it, the short name would mean something else.
                let short = official.filter(|rest| !rest.contains('/'));
                short.unwrap_or(&self.repository).to_owned()
            }
        };
        self.with_version(name)
    }

    /// What a digest of the repository is called: `docker.io/library/alpine@sha256:…`.
    pub fn at(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.registry, self.repository)
    }

    /// Whether the registry is on this machine.
    pub fn is_loopback(&self) -> bool {
        let host = match self.registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.registry.split(':').next().unwrap_or_default(),
        };
        let address = host.parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    fn with_version(&self, mut name: String) -> String {
        for (mark, part) in [(':', &self.tag), ('@', &self.digest)] {
            if let Some(part) = part {
                name.push(mark);
                name.push_str(part);
            }
        }
        name
    }
}

/// Everything: registry, repository, tag, digest.
impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_version(format!("{}/{}", self.registry, self.repository)))
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        read(text).map_err(|why| ReferenceError {
            text: text
                .chars()
                .take(NAME_MAX)
                .flat_map(char::escape_debug)
                .collect(),
            why,
        })
    }
}

fn read(text: &str) -> Result<ImageReference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
        None => (text, None),
    };
    let (registry, path) = match rest.split_once('/') {
        Some((first, path)) if is_registry(first) => (Some(first), path),
        _ => (None, rest),
    };
    // A port is before the path, so the last colon of that is the tag's.
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) => (path, Some(check_tag(tag)?)),
        None => (path, None),
    };
    let registry = match registry {
        None | Some(DEFAULT_REGISTRY_TOO) => DEFAULT_REGISTRY,
        Some(registry) => check_registry(registry)?,
    };
    check_path(path)?;
    let is_bare = registry == DEFAULT_REGISTRY && !path.contains('/');
    // Docker keeps these for ids.
    if is_bare && path.len() == 64 && path.bytes().all(is_hex) {
        return Err("64 hex digits are an id");
    }
    let repository = match is_bare {
        true => format!("{OFFICIAL}{path}"),
        false => path.to_owned(),
    };
    if registry.len() + 1 + repository.len() > NAME_MAX {
        return Err("it is longer than 255 characters");
    }
    let tag = match (tag, digest) {
        (None, None) => Some(DEFAULT_TAG),
        (tag, _) => tag,
    };
    Ok(ImageReference {
        registry: registry.to_owned(),
        repository,
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

/// Whether the first component is a host and no directory.
fn is_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<&str, &'static str> {
    const WHY: &str = "its registry is no host name or address, with a port or without";
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(WHY)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| WHY)?;
            (
                None,
                port.strip_prefix(':').or(port.is_empty().then_some("80")),
            )
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), Some("80")),
        },
    };
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let good = host.is_none_or(|host| host.split('.').all(label)) && port.is_some_and(is_port);
    if good { Ok(registry) } else { Err(WHY) }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("it names no repository");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the name of a repository is in lower case");
    }
    match path.split('/').all(is_component) {
        true => Ok(()),
        false => Err(
            "the parts of a repository's name are of a-z and 0-9, with '.', '_', '__' or '-' between them",
        ),
    }
}

/// Letters and digits, and between them `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !text.bytes().next().is_some_and(is_word) || !text.bytes().next_back().is_some_and(is_word) {
        return false;
    }
    let mut between = text.split(|c: char| u8::try_from(c).is_ok_and(is_word));
    between.all(|mark| matches!(mark, "" | "." | "_" | "__") || mark.bytes().all(|b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<&str, &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = (1..=TAG_MAX).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    match good {
        true => Ok(tag),
        false => Err(
            "a tag has up to 128 of a-z, A-Z, 0-9, '_', '.' and '-', and begins with none of the last two",
        ),
    }
}

fn check_digest(digest: &str) -> Result<&str, &'static str> {
    let hex = digest.strip_prefix("sha256:");
    match hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex)) {
        true => Ok(digest),
        false => Err("a digest is 'sha256:' and 64 hex digits"),
    }
}

const fn is_hex(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn of(text: &str) -> (String, String) {
        let read: ImageReference = text.parse().unwrap_or_else(|e| panic!("{e}"));
        (read.to_string(), read.familiar())
    }

    #[test]
    fn references_are_read_as_docker_reads_them() {
        for (text, whole, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            (
                "alpine:3.20",
                "docker.io/library/alpine:3.20",
                "alpine:3.20",
            ),
            (
                "docker.io/library/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            (
                "docker.io/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            ("index.docker.io/a/b:x", "docker.io/a/b:x", "a/b:x"),
            (
                "library/x/y",
                "docker.io/library/x/y:latest",
                "library/x/y:latest",
            ),
            (
                "ghcr.io/a/b__c.d-e--f:V1",
                "ghcr.io/a/b__c.d-e--f:V1",
                "ghcr.io/a/b__c.d-e--f:V1",
            ),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/x:tag",
                "localhost:5000/x:tag",
                "localhost:5000/x:tag",
            ),
            ("LOCAL/x", "LOCAL/x:latest", "LOCAL/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("a:5000", "docker.io/library/a:5000", "a:5000"),
        ] {
            assert_eq!(of(text), (whole.to_owned(), familiar.to_owned()), "{text}");
        }
        let (whole, familiar) = of(&format!("alpine@{DIGEST}"));
        assert_eq!(whole, format!("docker.io/library/alpine@{DIGEST}"));
        assert_eq!(familiar, format!("alpine@{DIGEST}"));
        let both: ImageReference = format!("q.io/a:1@{DIGEST}").parse().unwrap();
        assert_eq!((both.tag(), both.digest()), (Some("1"), Some(DIGEST)));
        assert_eq!(both.at("sha256:x"), "q.io/a@sha256:x");
    }

    #[test]
    fn what_is_none_is_refused_with_a_reason() {
        let (id, long) = ("0".repeat(64), "a".repeat(256));
        let (upper, tag) = (DIGEST.to_uppercase(), "t".repeat(129));
        for (text, why) in [
            ("", "names no repository"),
            ("ghcr.io/", "names no repository"),
            (":tag", "names no repository"),
            ("Alpine", "lower case"),
            ("ghcr.io/A", "lower case"),
            ("/a", "parts"),
            ("a//b", "parts"),
            ("a/", "parts"),
            ("../a", "no host name"),
            ("a/../b", "parts"),
            ("-a", "parts"),
            ("a___b", "parts"),
            ("a..b", "parts"),
            ("a b", "parts"),
            ("ä", "parts"),
            ("a\nb", "parts"),
            ("http://a.b/c", "no host name"),
            ("a.b:99999/c", "no host name"),
            ("a.b:/c", "no host name"),
            ("a.b:+1/c", "no host name"),
            ("-a.b/c", "no host name"),
            ("[::1/c", "no host name"),
            ("a:", "a tag has"),
            ("a:.x", "a tag has"),
            ("a:b:c", "parts"),
            (&format!("a:{tag}"), "a tag has"),
            ("a@sha256:12", "a digest is"),
            ("a@", "a digest is"),
            (&format!("a@{upper}"), "a digest is"),
            (&format!("a@{DIGEST}@{DIGEST}"), "a digest is"),
            (&id, "an id"),
            (&long, "longer"),
        ] {
            let error = text.parse::<ImageReference>().expect_err(text).to_string();
            assert!(error.contains(why), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn loopback_is_told_by_the_host_alone() {
        let is = |text: &str| text.parse::<ImageReference>().unwrap().is_loopback();
        for here in [
            "localhost/x",
            "localhost:5000/x",
            "127.0.0.1:5000/x",
            "127.9.9.9:1/x",
            "[::1]:5000/x",
        ] {
            assert!(is(here), "{here}");
        }
        for there in [
            "localhost",
            "x.localhost.evil.io/x",
            "128.0.0.1/x",
            "127.0.0.1.evil.io/x",
            "a/localhost",
        ] {
            assert!(!is(there), "{there}");
        }
    }

    proptest! {
        /// Whatever is read means the same however it is written again, and no text makes it panic.
        #[test]
        fn both_forms_mean_the_same(text in "[a-zA-Z0-9:/@._\\[\\]-]{0,40}|\\PC{0,20}") {
            if let Ok(read) = text.parse::<ImageReference>() {
                prop_assert_eq!(&read.to_string().parse::<ImageReference>().unwrap(), &read);
                prop_assert_eq!(&read.familiar().parse::<ImageReference>().unwrap(), &read);
                prop_assert!(read.tag().is_some() || read.digest().is_some());
                prop_assert!(!read.repository().split('/').any(|part| part.is_empty() || part == ".."));
            }
        }

        /// Every reference of the grammar is read.
        #[test]
        fn the_grammar_is_read_whole(
            registry in proptest::option::of("[a-z][a-z0-9]{0,5}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?"),
            path in "[a-z0-9]{1,5}((_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,5}){0,2}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}"),
        ) {
            let name = registry.iter().cloned().chain([path.clone()]).collect::<Vec<_>>().join("/");
            let text = tag.iter().fold(name, |name, tag| format!("{name}:{tag}"));
            let read: ImageReference = text.parse().unwrap();
            prop_assert_eq!(read.registry(), registry.as_deref().unwrap_or(DEFAULT_REGISTRY));
            prop_assert!(read.repository().ends_with(&path));
            prop_assert_eq!(read.tag(), Some(tag.as_deref().unwrap_or("latest")));
        }
    }
}
