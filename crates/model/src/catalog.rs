//! A catalog: a list of images and kernels that somebody offers, as `catalog.json` (R-IMG-1).

use serde::{Deserialize, Serialize};
use std::{
    path::{Component, Path, PathBuf},
    str::FromStr,
};

/// The most bytes a catalog may have.
pub const CATALOG_MAX: u64 = 4 << 20;

/// What is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Format of the list; 1.
    pub version: u32,
    /// What there is.
    pub entries: Vec<CatalogEntry>,
}

/// One image or kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CatalogEntry {
    /// Its name: a-z, 0-9, '.', '_' and '-'.
    pub name: String,
    /// What it is.
    pub kind: CatalogKind,
    /// Distribution and release, `debian-bookworm`.
    #[serde(default)]
    pub distro: String,
    /// Architecture as `uname -m` calls it.
    pub arch: String,
    /// Kernel that suits an image, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_ref: Option<String>,
    /// Where it is: an `http` or `https` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where it is: a path, from where the catalog is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// sha256 of its bytes, in hex.
    pub sha256: String,
    /// Number of its bytes.
    pub size: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CatalogKind {
    /// A bundle, or what else can be imported.
    Image,
    /// A kernel.
    Kernel,
}

/// Where a catalog, or what it offers, is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogPlace {
    /// An absolute path of this machine.
    File(PathBuf),
    /// An `http` or `https` URL.
    Url(String),
}

/// Why something is no catalog.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// It is no such JSON.
    #[error("it cannot be read: {0}")]
    Json(String),
    /// Another format.
    #[error("it is of version {0}; this program reads version 1")]
    Version(u32),
    /// An entry that is not as it should be.
    #[error("its entry '{name}' {why}")]
    Entry {
        /// The entry, on one line.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No place a catalog can be at.
    #[error("'{0}' is neither an absolute path nor an http or https URL")]
    Place(String),
}

impl Catalog {
    /// Format this program reads.
    pub const VERSION: u32 = 1;

    /// Reads a catalog; every entry is one that could be fetched.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, CatalogError> {
        let read: Self =
            serde_json::from_slice(bytes).map_err(|e| CatalogError::Json(e.to_string()))?;
        if read.version != Self::VERSION {
            return Err(CatalogError::Version(read.version));
        }
        for (n, entry) in read.entries.iter().enumerate() {
            let same = |other: &CatalogEntry| {
                (&other.name, other.kind, &other.arch) == (&entry.name, entry.kind, &entry.arch)
            };
            let twice = read.entries[..n].iter().any(same);
            let why = match entry.fault() {
                None if twice => "is there twice",
                None => continue,
                Some(why) => why,
            };
            let name = entry.name.escape_default().take(100).collect();
            return Err(CatalogError::Entry { name, why });
        }
        Ok(read)
    }

    /// The entry of this kind and name for this machine.
    pub fn find(&self, kind: CatalogKind, name: &str) -> Option<&CatalogEntry> {
        let mut of = self.entries.iter();
        of.find(|entry| entry.kind == kind && entry.name == name && entry.is_ours())
    }
}

impl CatalogEntry {
    /// Whether it is for this machine.
    pub fn is_ours(&self) -> bool {
        self.arch == std::env::consts::ARCH
    }

    fn fault(&self) -> Option<&'static str> {
        let hex = self.sha256.len() == 64
            && self
                .sha256
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match (&self.url, &self.path) {
            _ if !is_catalog_name(&self.name) => Some("has a name that is none"),
            _ if !hex => Some("has a sha256 that is none: 64 digits 0-9, a-f"),
            (Some(_), Some(_)) => Some("has both url and path"),
            (None, None) => Some("has neither url nor path"),
            (Some(url), None) if !is_url(url) => Some("has a url that is neither http nor https"),
            (None, Some(path)) if path.is_empty() || path.contains('\0') => {
                Some("has a path that is none")
            }
            _ => None,
        }
    }

    /// Where its bytes are, for a catalog that is at this place.
    ///
    /// # Errors
    /// A catalog of the network names a file of this machine, or leads out of where it is.
    pub fn place(&self, catalog: &CatalogPlace) -> Result<CatalogPlace, CatalogError> {
        if let Some(url) = &self.url {
            return Ok(CatalogPlace::Url(url.clone()));
        }
        let path = self.path.as_deref().unwrap_or_default();
        match catalog {
            CatalogPlace::File(file) => {
                let dir = file.parent().unwrap_or(Path::new("/"));
                Ok(CatalogPlace::File(dir.join(path)))
            }
            CatalogPlace::Url(url) => {
                let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
                let odd = path.contains(['?', '#', '%', '\\']);
                if odd || !Path::new(path).components().all(plain) {
                    return Err(CatalogError::Entry {
                        name: self.name.clone(),
                        why: "has a path that does not lie beside its catalog",
                    });
                }
                let address = url.split(['?', '#']).next().unwrap_or(url);
                let dir = address.rsplit_once('/').map_or(address, |(dir, _)| dir);
                Ok(CatalogPlace::Url(format!("{dir}/{path}")))
            }
        }
    }
}

impl FromStr for CatalogPlace {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_url(text) {
            return Ok(CatalogPlace::Url(text.to_owned()));
        }
        match Path::new(text).is_absolute() && !text.contains('\0') {
            true => Ok(CatalogPlace::File(text.into())),
            false => Err(CatalogError::Place(text.to_owned())),
        }
    }
}

/// For people: without the password that a URL may have.
impl std::fmt::Display for CatalogPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CatalogPlace::File(path) => write!(f, "{}", path.display()),
            CatalogPlace::Url(url) => f.write_str(&url_without_secrets(url)),
        }
    }
}

/// A URL whose user and query, which may be secrets, are left out (RFC 3986, section 3).
pub fn url_without_secrets(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    let Some((scheme, rest)) = plain.split_once("://") else {
        return plain.to_owned();
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Whether a catalog can have something of this name: no reference to a registry that says more than a name is one.
pub fn is_catalog_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=63).contains(&name.len())
        && name.bytes().all(legal)
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

fn is_url(text: &str) -> bool {
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(|b| b.is_ascii_graphic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry() -> serde_json::Value {
        json!({"name": "debian-12", "kind": "image", "distro": "debian-bookworm", "arch": std::env::consts::ARCH,
            "kernel_ref": "debian-cloud", "path": "images/d.tar.zst", "sha256": "a".repeat(64), "size": 7})
    }

    fn catalog(entries: &[serde_json::Value]) -> Result<Catalog, CatalogError> {
        let text = json!({"version": 1, "entries": entries}).to_string();
        Catalog::parse(text.as_bytes())
    }

    #[test]
    fn entries_are_found_and_their_bytes_lie_beside_the_catalog() {
        let mut kernel = entry();
        kernel["kind"] = "kernel".into();
        let mut other = entry();
        other["arch"] = "s390x".into();
        let all = catalog(&[other, kernel, entry()]).unwrap();
        let found = all.find(CatalogKind::Image, "debian-12").unwrap();
        assert_eq!(found.kernel_ref.as_deref(), Some("debian-cloud"));
        assert!(found.is_ours() && all.find(CatalogKind::Image, "x").is_none());
        for (source, place) in [
            ("/srv/c/catalog.json", "/srv/c/images/d.tar.zst"),
            (
                "https://x.org/c/catalog.json?v=/1",
                "https://x.org/c/images/d.tar.zst",
            ),
        ] {
            let source: CatalogPlace = source.parse().unwrap();
            assert_eq!(found.place(&source).unwrap().to_string(), place);
        }
        for bad in [
            "catalog.json",
            "ftp://x/y",
            "http://",
            "https:///x",
            "http://a b",
        ] {
            assert!(bad.parse::<CatalogPlace>().is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        for (url, shown) in [
            ("https://x.org/c.json", "https://x.org/c.json"),
            (
                "https://me:word@x.org:8/c@d.json?sig=1",
                "https://x.org:8/c@d.json",
            ),
            ("http://a@b@x.org", "http://x.org"),
        ] {
            let place: CatalogPlace = url.parse().unwrap();
            assert_eq!(place.to_string(), shown);
            assert!(
                place == CatalogPlace::Url(url.to_owned()),
                "kept to be asked"
            );
        }
    }

    #[test]
    fn a_catalog_of_the_network_names_no_file_here() {
        let source: CatalogPlace = "http://x.org/c/catalog.json".parse().unwrap();
        for path in ["/etc/shadow", "../x", "a/../../x", "a?b", "%2e%2e/x"] {
            let mut entry = entry();
            entry["path"] = path.into();
            let all = catalog(&[entry]).unwrap();
            assert!(all.entries[0].place(&source).is_err(), "{path}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_of_its_entry() {
        for (key, value, why) in [
            ("name", json!("a/b"), "a name that is none"),
            ("sha256", json!("A".repeat(64)), "sha256"),
            ("url", json!("http://x/y"), "both url and path"),
            ("path", json!(null), "neither url nor path"),
            ("path", json!("a\0"), "a path that is none"),
            ("kind", json!("disk"), "unknown variant"),
            ("size", json!(-1), "cannot be read"),
        ] {
            let mut entry = entry();
            entry[key] = value;
            let told = catalog(&[entry]).unwrap_err().to_string();
            assert!(told.contains(why), "{key}: {told}");
        }
        assert!(
            catalog(&[entry(), entry()])
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
        let newer = Catalog::parse(br#"{"version": 2, "entries": []}"#);
        assert_eq!(newer, Err(CatalogError::Version(2)));
    }
}
