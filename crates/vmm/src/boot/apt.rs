//! Fetching one Debian package as any user.
//!
//! `apt-get download` verifies what it fetches against the signed package lists and needs no rights of its own; the
//! machine's own lists serve where they are readable and fresh, else lists are fetched into private directories from
//! the machine's own sources.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_host::{Files, ToolCall, Tools};
use thiserror::Error;

use super::control::{field, parts, real_package};
use super::source::LARGEST_IMAGE;
use crate::tree;

/// A fetched package.
#[derive(Debug)]
pub struct FetchedPackage {
    /// The real package's name, behind a meta package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The bytes of its file, and of those of the packages that its kernel is split into.
    pub debs: Vec<Vec<u8>>,
}

/// A package that apt knows.
struct Found {
    name: String,
    version: String,
    /// Packages that a kernel is split into, as `apt-get download` wants them: `name=version`.
    parts: Vec<String>,
}

/// What came of asking for a package.
#[derive(Debug)]
pub enum Fetched {
    /// It was fetched.
    Package(FetchedPackage),
    /// Nothing was fetched: the caller knows this version.
    Known {
        /// The real package's name.
        name: String,
        /// Its version.
        version: String,
    },
}

/// Why a package could not be fetched.
#[derive(Debug, Error)]
pub enum AptError {
    /// This machine has no apt.
    #[error("'{program}' is not installed")]
    Missing {
        /// The program.
        program: &'static str,
    },
    /// The lists, the machine's and freshly fetched ones, do not lead to the package.
    #[error("apt knows no package behind {package:?} in this machine's package sources")]
    Unknown {
        /// What was asked for.
        package: String,
        /// What apt said last.
        #[source]
        source: Option<banger_host::Error>,
    },
    /// apt-get could not be run, or failed with fresh lists too.
    #[error("apt-get could not fetch {package}")]
    Fetch {
        /// The real package.
        package: String,
        /// What it said.
        #[source]
        source: banger_host::Error,
    },
    /// apt-cache failed.
    #[error("apt-cache does not tell which packages there are")]
    Query {
        /// What it said.
        #[source]
        source: banger_host::Error,
    },
    /// A directory could not be made, read or removed.
    #[error("the private apt directory cannot be used")]
    Files {
        /// Why.
        #[source]
        source: banger_host::Error,
    },
    /// No package of a kernel or its source is as large.
    #[error("the package {package} has {bytes} bytes, more than {} MiB", LARGEST_IMAGE >> 20)]
    TooLarge {
        /// Which.
        package: String,
        /// How many it has.
        bytes: u64,
    },
    /// Not what was asked for.
    #[error("{package} is {wanted} packages, and apt-get left {found} files of packages")]
    Amount {
        /// Which.
        package: String,
        /// It, and those that it is split into.
        wanted: usize,
        /// What is there.
        found: usize,
    },
    /// The file that apt-get left cannot be read.
    #[error("the package that apt-get fetched cannot be read ({path})")]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Long enough for a slow line; a line that says nothing is given up by apt itself (20 s, twice).
const FETCH_TIMEOUT: Duration = Duration::from_secs(900);
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Takes the machine's hooks out (apt.conf(5), `#clear`): they are made for the machine's own directories, and some
/// clear its package cache. Other settings of the machine (proxies, pins) stay.
const CONF: &str = "apt.conf";
const CONF_TEXT: &str = "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n\
    #clear APT::Update::Post-Invoke-Success;\n";

/// Whose package lists are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    Machine,
    Private,
}

/// Whether the programs that fetch packages are there; looks only.
///
/// # Errors
/// The first that is missing.
pub fn programs<H: Tools>(host: &H) -> Result<(), AptError> {
    match ["apt-get", "apt-cache"]
        .into_iter()
        .find(|program| host.find_tool(Path::new(program)).is_none())
    {
        Some(program) => Err(AptError::Missing { program }),
        None => Ok(()),
    }
}

/// Fetches the newest version of the package behind `meta` (itself, or the first `linux-image-*` that it depends on).
///
/// `work` is a directory of ours that does not exist or holds an earlier attempt's rests; it is gone afterwards.
///
/// # Errors
/// apt missing, sources unreachable, no such package; the chain holds the end of apt's own words.
pub fn fetch_package<H: Files + Tools>(
    host: &H,
    meta: &str,
    work: &Path,
    progress: &mut dyn FnMut(&str),
    cancelled: &dyn Fn() -> bool,
) -> Result<FetchedPackage, AptError> {
    let wanted = (meta, "linux-image-");
    let unknown = || AptError::Unknown {
        package: meta.to_owned(),
        source: None,
    };
    match fetch_unless(host, wanted, work, progress, cancelled, &|_, _| false)? {
        Fetched::Package(package) => Ok(package),
        Fetched::Known { .. } => Err(unknown()),
    }
}

/// As [`fetch_package`], for any package: `wanted` is its name, and how the names of those begin that it may stand for.
/// Nothing is fetched of a version that is `known`.
///
/// # Errors
/// As [`fetch_package`].
pub fn fetch_unless<H: Files + Tools>(
    host: &H,
    (meta, prefix): (&str, &str),
    work: &Path,
    progress: &mut dyn FnMut(&str),
    cancelled: &dyn Fn() -> bool,
    known: &dyn Fn(&str, &str) -> bool,
) -> Result<Fetched, AptError> {
    programs(host)?;
    let files_err = |source| AptError::Files { source };
    tree::remove(host, work).map_err(files_err)?;
    host.mkdir(work).map_err(files_err)?;
    prepare(host, work).map_err(files_err)?;
    let mut apt = Apt {
        host,
        work,
        progress,
        cancelled,
        prefix,
        known,
    };
    let fetched = apt.fetch(meta);
    // What went wrong first is what is told; rests are removed by the next attempt too.
    let cleaned = tree::remove(host, work).map_err(files_err);
    let fetched = fetched?;
    cleaned?;
    Ok(fetched)
}

/// Packages of kernels that the machine's own lists know, with a line about each: those for microVMs first. Fetches nothing.
///
/// # Errors
/// There is no apt, or it fails.
pub fn kernel_packages<H: Tools>(host: &H, cwd: &Path) -> Result<Vec<(String, String)>, AptError> {
    programs(host)?;
    let call = ToolCall {
        program: "apt-cache".into(),
        args: ["search", "--names-only", "^linux-image-"]
            .map(OsString::from)
            .into(),
        env: BTreeMap::new(),
        cwd: cwd.to_owned(),
        stdin: Vec::new(),
        timeout: QUERY_TIMEOUT,
    };
    let found = host.run_tool(&call, &mut |_| {}, &|| false);
    let found = found.map_err(|source| AptError::Query { source })?;
    Ok(offered(&String::from_utf8_lossy(&found.stdout)))
}

fn offered(found: &str) -> Vec<(String, String)> {
    // Symbols for debuggers, signatures' templates, kernels of other use.
    let other = ["-dbg", "-unsigned", "-template", "-rt-", "-virtual-hwe-"];
    let mut packages: Vec<(String, String)> = found
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .filter(|(name, _)| !other.iter().any(|part| name.contains(part)))
        .map(|(name, about)| (name.to_owned(), about.to_owned()))
        .collect();
    let for_vms = |name: &str| ["cloud", "kvm", "virtual"].iter().any(|w| name.contains(w));
    packages.sort_by(|(a, _), (b, _)| (!for_vms(a), a).cmp(&(!for_vms(b), b)));
    packages
}

/// Makes what apt wants to find, in an empty directory.
fn prepare<F: Files>(files: &F, work: &Path) -> Result<(), banger_host::Error> {
    let dirs = [
        "state",
        "state/lists",
        "state/lists/partial",
        "cache",
        "cache/archives",
        "cache/archives/partial",
        "deb",
    ];
    for dir in dirs {
        files.mkdir(&work.join(dir))?;
    }
    files.write(&work.join(CONF), CONF_TEXT.as_bytes())
}

struct Apt<'a, H> {
    host: &'a H,
    work: &'a Path,
    progress: &'a mut dyn FnMut(&str),
    cancelled: &'a dyn Fn() -> bool,
    prefix: &'a str,
    known: &'a dyn Fn(&str, &str) -> bool,
}

impl<H: Files + Tools> Apt<'_, H> {
    fn fetch(&mut self, meta: &str) -> Result<Fetched, AptError> {
        match self.with_machines_lists(meta) {
            Some(fetched) => fetched,
            // No lists, unreadable ones, or ones that name a version which the mirror has dropped.
            None => self.with_fresh_lists(meta),
        }
    }

    fn with_machines_lists(&mut self, meta: &str) -> Option<Result<Fetched, AptError>> {
        let found = self.resolve(meta, Lists::Machine).ok().flatten()?;
        if (self.known)(&found.name, &found.version) {
            return Some(Ok(found.known()));
        }
        self.download(&found, Lists::Machine).ok()?;
        Some(self.read(found))
    }

    fn with_fresh_lists(&mut self, meta: &str) -> Result<Fetched, AptError> {
        (self.progress)("fetching package lists");
        // Its status says nothing: one of the machine's sources may be broken and another one have what we want.
        let updated = self.run("apt-get", &["update"], Lists::Private, FETCH_TIMEOUT);
        let unknown = |source| AptError::Unknown {
            package: meta.to_owned(),
            source,
        };
        let found = self
            .resolve(meta, Lists::Private)
            .map_err(|source| unknown(Some(source)))?;
        let found = found.ok_or_else(|| unknown(updated.err()))?;
        if (self.known)(&found.name, &found.version) {
            return Ok(found.known());
        }
        self.download(&found, Lists::Private)
            .map_err(|source| AptError::Fetch {
                package: found.name.clone(),
                source,
            })?;
        self.read(found)
    }

    fn resolve(&mut self, meta: &str, lists: Lists) -> Result<Option<Found>, banger_host::Error> {
        let shown = self.run(
            "apt-cache",
            &["show", "--no-all-versions", meta],
            lists,
            QUERY_TIMEOUT,
        )?;
        let Some(real) = real_package(meta, self.prefix, &shown) else {
            return Ok(None);
        };
        let shown = if real == meta {
            shown
        } else {
            self.run(
                "apt-cache",
                &["show", "--no-all-versions", &real],
                lists,
                QUERY_TIMEOUT,
            )?
        };
        Ok(field(&shown, "Version").map(|version| Found {
            version: version.to_owned(),
            parts: parts(&real, &shown),
            name: real,
        }))
    }

    fn download(&mut self, found: &Found, lists: Lists) -> Result<(), banger_host::Error> {
        // Packages of a download that failed half-way are of another version.
        let dir = self.work.join("deb");
        tree::remove(self.host, &dir)?;
        self.host.mkdir(&dir)?;
        let Found { name, version, .. } = found;
        (self.progress)(&format!("fetching {name} {version}"));
        let package = format!("{name}={version}");
        let parts = found.parts.iter().map(String::as_str);
        let args: Vec<&str> = ["download", &package].into_iter().chain(parts).collect();
        self.run("apt-get", &args, lists, FETCH_TIMEOUT).map(drop)
    }

    fn read(&self, found: Found) -> Result<Fetched, AptError> {
        let dir = self.work.join("deb");
        let files = self
            .host
            .list(&dir)
            .map_err(|source| AptError::Files { source })?;
        let debs = files.iter().filter(|file| file.ends_with(".deb"));
        let paths: Vec<PathBuf> = debs.map(|file| dir.join(file)).collect();
        let Found {
            name,
            version,
            parts,
        } = found;
        if paths.len() != 1 + parts.len() {
            return Err(AptError::Amount {
                package: name,
                wanted: 1 + parts.len(),
                found: paths.len(),
            });
        }
        let debs = paths.iter().map(|path| read(&name, path));
        let debs = debs.collect::<Result<_, _>>()?;
        Ok(Fetched::Package(FetchedPackage {
            name,
            version,
            debs,
        }))
    }

    fn run(
        &mut self,
        program: &str,
        args: &[&str],
        lists: Lists,
        timeout: Duration,
    ) -> Result<String, banger_host::Error> {
        let call = ToolCall {
            program: program.into(),
            args: options(self.work, lists)
                .into_iter()
                .chain(args.iter().map(OsString::from))
                .collect(),
            env: proxies(),
            cwd: self.work.join("deb"),
            stdin: Vec::new(),
            timeout,
        };
        let output = self.host.run_tool(&call, &mut |_| {}, self.cancelled)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Found {
    fn known(self) -> Fetched {
        Fetched::Known {
            name: self.name,
            version: self.version,
        }
    }
}

/// The file of a package, or of a part of it.
fn read(package: &str, path: &Path) -> Result<Vec<u8>, AptError> {
    let unread = |source| AptError::Read {
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::metadata(path).map_err(unread)?.len();
    if bytes > LARGEST_IMAGE {
        return Err(AptError::TooLarge {
            package: package.to_owned(),
            bytes,
        });
    }
    std::fs::read(path).map_err(unread)
}

/// A machine behind a proxy says so in its environment, and tools inherit nothing by themselves.
fn proxies() -> BTreeMap<OsString, OsString> {
    let names = ["http_proxy", "https_proxy", "no_proxy"];
    names
        .iter()
        .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)))
        .collect()
}

fn options(work: &Path, lists: Lists) -> Vec<OsString> {
    let mut out = vec![OsString::from("-c"), work.join(CONF).into_os_string()];
    let mut set = |key: &str, value: &Path| {
        let mut option = OsString::from(format!("{key}="));
        option.push(value);
        out.extend([OsString::from("-o"), option]);
    };
    // Never the machine's cache directory: a user cannot write it, and root has no business leaving files there.
    set("Dir::Cache", &work.join("cache"));
    if lists == Lists::Private {
        set("Dir::State", &work.join("state"));
        set("Dir::State::status", Path::new("/var/lib/dpkg/status"));
    }
    // apt as root drops to the user _apt, who cannot enter a private directory.
    set("APT::Sandbox::User", Path::new("root"));
    set("Acquire::Retries", Path::new("2"));
    set("Acquire::http::Timeout", Path::new("20"));
    set("Acquire::https::Timeout", Path::new("20"));
    // Translations and desktop metadata triple what an update fetches.
    set("Acquire::Languages", Path::new("none"));
    set(
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
        Path::new("false"),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_host::linux::{LinuxConfig, LinuxHost};

    #[test]
    fn kernels_for_vms_are_offered_first_and_what_is_none_is_not() {
        let found = "linux-image-amd64 - Linux for 64-bit PCs (meta-package)\n\
            linux-image-amd64-dbg - Debugging symbols\n\
            linux-image-6.1.0-1-rt-amd64 - Linux 6.1 for 64-bit PCs, PREEMPT_RT\n\
            linux-image-cloud-amd64 - Linux for x86-64 cloud (meta-package)\n";
        let names: Vec<_> = offered(found).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["linux-image-cloud-amd64", "linux-image-amd64"]);
    }

    #[test]
    fn private_lists_leave_the_machines_state_alone() {
        let words = |lists| {
            let options = options(Path::new("/w"), lists);
            options
                .iter()
                .map(|o| o.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert!(
            words(Lists::Private)
                .contains("-o Dir::State=/w/state -o Dir::State::status=/var/lib/dpkg/status")
        );
        assert!(!words(Lists::Machine).contains("Dir::State"));
        assert!(words(Lists::Machine).contains("-o Dir::Cache=/w/cache"));
    }

    fn in_apt<R>(work: impl FnOnce(&mut Apt<'_, LinuxHost>) -> R) -> R {
        let host = LinuxHost::new(LinuxConfig::default());
        let dir = tempfile::tempdir().unwrap();
        prepare(&host, dir.path()).unwrap();
        let (progress, cancelled) = (&mut |_: &str| {}, &|| false);
        work(&mut Apt {
            host: &host,
            work: dir.path(),
            progress,
            cancelled,
            prefix: "linux-image-",
            known: &|_, _| false,
        })
    }

    #[test]
    fn a_package_without_measure_is_not_read() {
        let told = in_apt(|apt| {
            let file = std::fs::File::create(apt.work.join("deb/x.deb")).unwrap();
            file.set_len(LARGEST_IMAGE + 1).unwrap();
            let (name, version) = ("x".to_owned(), "1".to_owned());
            apt.read(Found {
                name,
                version,
                parts: Vec::new(),
            })
            .unwrap_err()
        });
        assert!(told.to_string().contains("more than 512 MiB"), "{told}");
    }

    #[test]
    fn more_or_fewer_packages_than_were_asked_for_are_no_kernel() {
        for (there, parts) in [(0, 0), (2, 0), (1, 1), (3, 1)] {
            let read = in_apt(|apt| {
                for i in 0..there {
                    std::fs::write(apt.work.join(format!("deb/{i}.deb")), "x").unwrap();
                }
                apt.read(Found {
                    name: "x".to_owned(),
                    version: "1".to_owned(),
                    parts: vec!["y=1".to_owned(); parts],
                })
            });
            let told = read.unwrap_err().to_string();
            assert!(told.contains(&format!("left {there} files")), "{told}");
        }
    }

    /// A machine whose own lists are missing or stale: they are fetched, from its own sources, to our place.
    #[test]
    fn fresh_lists_lead_to_a_package() {
        let fetched = in_apt(|apt| {
            // Of a download with the machine's lists that did not come to its end.
            let old = apt.work.join("deb/hostname_0_all.deb");
            std::fs::write(old, "!<arch>\nof another version").unwrap();
            apt.with_fresh_lists("hostname")
        })
        .unwrap();
        let Fetched::Package(fetched) = fetched else {
            panic!("{fetched:?}")
        };
        assert_eq!(fetched.name, "hostname");
        assert_eq!(fetched.debs.len(), 1);
        assert!(fetched.debs[0].starts_with(b"!<arch>\n"));
    }

    #[test]
    fn an_unknown_package_is_named_after_one_look_at_fresh_lists() {
        let error = in_apt(|apt| apt.fetch("linux-image-of-nobody")).unwrap_err();
        assert!(
            matches!(&error, AptError::Unknown { package, .. } if package == "linux-image-of-nobody"),
            "{error:?}"
        );
    }
}
