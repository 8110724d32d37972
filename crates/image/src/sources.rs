//! The host's Debian package sources: read from apt's own files (sources.list(5), both the one-line
//! and the deb822 form) and reduced to the archive itself, so that a vendor's repository on the host
//! does not end up in every VM.

use std::path::Path;

/// Suite used where the host is not Debian.
const FALLBACK_SUITE: &str = "bookworm";
/// Archive used where the host's files name none for the suite.
const FALLBACK_ARCHIVE: &str = "http://deb.debian.org/debian";

/// Where the packages of an image come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Release code name.
    pub suite: String,
    /// Lines in the one-line form of sources.list(5).
    pub lines: Vec<String>,
}

/// Reads the sources of the host whose root directory this is.
pub(crate) fn of_host(root: &Path, suite: Option<&str>) -> Sources {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let suite = suite
        .map(str::to_owned)
        .or_else(|| debian_suite(&read("etc/os-release")))
        .unwrap_or_else(|| FALLBACK_SUITE.to_owned());
    let mut lines = one_line(&read("etc/apt/sources.list"), &suite);
    for path in source_parts(&root.join("etc/apt/sources.list.d")) {
        // A file that cannot be read is one source less; the fallback below covers "none at all".
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        match path.extension().and_then(|e| e.to_str()) {
            Some("list") => lines.extend(one_line(&text, &suite)),
            Some("sources") => lines.extend(deb822(&text, &suite)),
            _ => {}
        }
    }
    lines.dedup();
    let has_archive = lines
        .iter()
        .any(|l| l.split_whitespace().any(|word| word == suite));
    if !has_archive {
        lines = vec![format!("deb {FALLBACK_ARCHIVE} {suite} main")];
    }
    Sources { suite, lines }
}

fn source_parts(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut paths: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    paths
}

/// The code name in os-release(5), if it is Debian's.
fn debian_suite(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        os_release.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key == name).then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    (field("ID")? == "debian")
        .then(|| field("VERSION_CODENAME"))
        .flatten()
}

/// Whether a source is the Debian archive for this suite: one of its three pockets, component main,
/// signed by Debian's own key or by whatever apt trusts.
fn is_debian(
    uri: &str,
    suite: &str,
    wanted: &str,
    components: &[&str],
    signed_by: Option<&str>,
) -> bool {
    let pocket = suite
        .strip_prefix(wanted)
        .is_some_and(|rest| matches!(rest, "" | "-updates" | "-security"));
    let reachable = ["http://", "https://", "file:", "copy:", "mirror+"]
        .iter()
        .any(|p| uri.starts_with(p));
    let ours = signed_by.is_none_or(|key| key.contains("debian-archive"));
    pocket && reachable && ours && components.contains(&"main")
}

/// Sources in the one-line form that are Debian's.
fn one_line(text: &str, wanted: &str) -> Vec<String> {
    let mut kept = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb ").map(str::trim_start) else {
            continue;
        };
        let (options, rest) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((options, rest)) => (Some(options.trim()), rest),
            None => (None, rest),
        };
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            continue;
        };
        let components: Vec<_> = words.collect();
        let signed_by = options.and_then(|o| {
            o.split_whitespace()
                .find_map(|w| w.strip_prefix("signed-by="))
        });
        if is_debian(uri, suite, wanted, &components, signed_by) {
            let options = options.map(|o| format!("[{o}] ")).unwrap_or_default();
            kept.push(format!("deb {options}{uri} {suite} main"));
        }
    }
    kept
}

/// Sources in the deb822 form that are Debian's, as lines.
fn deb822(text: &str, wanted: &str) -> Vec<String> {
    let mut kept = Vec::new();
    for stanza in stanzas(text) {
        let field = |name: &str| {
            stanza
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        let words = |name: &str| {
            field(name)
                .unwrap_or_default()
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        let enabled = !field("Enabled").is_some_and(|v| v.trim().eq_ignore_ascii_case("no"));
        // A key pasted into the file is no path; such a source is left to the host.
        let pasted = field("Signed-By").is_some_and(|key| key.contains("BEGIN PGP"));
        if !words("Types").contains(&"deb") || !enabled || pasted {
            continue;
        }
        let signed_by = field("Signed-By")
            .map(str::trim)
            .filter(|key| !key.is_empty());
        let options = signed_by
            .map(|key| format!("[signed-by={key}] "))
            .unwrap_or_default();
        for uri in words("URIs") {
            for suite in words("Suites") {
                if is_debian(uri, suite, wanted, &words("Components"), signed_by) {
                    kept.push(format!("deb {options}{uri} {suite} main"));
                }
            }
        }
    }
    kept
}

/// Fields of each stanza; continuation lines joined, comment lines dropped.
fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            all.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = all.last_mut().and_then(|s| s.last_mut()) {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let (Some((key, value)), Some(stanza)) = (line.split_once(':'), all.last_mut()) {
            stanza.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb
# http://snapshot.debian.org/archive/debian/20250520T000000Z
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://deb.debian.org/debian-security
Suites:
 bookworm-security
Components: main

Types: deb
URIs: https://deb.nodesource.com/node_20.x
Suites: nodistro
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: https://vendor.example/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
";

    #[test]
    fn only_debians_own_pockets_are_taken_from_deb822() {
        assert_eq!(
            deb822(DEB822, "bookworm"),
            [
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main",
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-updates main",
                "deb http://deb.debian.org/debian-security bookworm-security main",
            ]
        );
        assert!(deb822(DEB822, "trixie").is_empty());
    }

    #[test]
    fn only_debians_own_pockets_are_taken_from_lines() {
        let text = "\
# a comment
deb http://mirror.example/debian bookworm main contrib # tail
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.gpg] https://download.docker.com/linux/debian bookworm main
deb [arch=amd64] https://download.docker.com/linux/debian bookworm stable
deb [ signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] file:/srv/debian bookworm-updates main
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb
deb http://x
";
        assert_eq!(
            one_line(text, "bookworm"),
            [
                "deb http://mirror.example/debian bookworm main",
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] file:/srv/debian bookworm-updates main",
            ]
        );
    }

    #[test]
    fn a_host_that_is_not_debian_falls_back() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc/apt/sources.list.d");
        std::fs::create_dir_all(&etc).unwrap();
        let fallback = of_host(root.path(), None);
        assert_eq!(fallback.suite, "bookworm");
        assert_eq!(
            fallback.lines,
            ["deb http://deb.debian.org/debian bookworm main"]
        );
        std::fs::write(
            root.path().join("etc/os-release"),
            "ID=ubuntu\nVERSION_CODENAME=noble\n",
        )
        .unwrap();
        assert_eq!(of_host(root.path(), None), fallback);
        std::fs::write(
            root.path().join("etc/os-release"),
            "ID=debian\nVERSION_CODENAME=bookworm\n",
        )
        .unwrap();
        std::fs::write(etc.join("debian.sources"), DEB822).unwrap();
        let debian = of_host(root.path(), None);
        assert_eq!((debian.suite.as_str(), debian.lines.len()), ("bookworm", 3));
        // Updates alone are no archive.
        std::fs::write(
            etc.join("debian.sources"),
            DEB822.replace("bookworm bookworm-updates", "bookworm-updates"),
        )
        .unwrap();
        assert_eq!(of_host(root.path(), None).lines, fallback.lines);
    }
}
