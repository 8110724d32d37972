//! The default image: a small Debian root built by `mmdebstrap` from the host's package sources, by root or by a user,
//! packed into one read-only ext4 file. A VM's boot depends on nothing in it: the agent comes from
//! the initramfs.

use crate::error::Doing;
use crate::ext4;
use crate::manifest::{self, Manifest};
use crate::owners::Owners;
use crate::staging::Staging;
use crate::{Error, ImageStore, Import, Moves, Progress, Result, import, sources};
use banger_host::{Clock, Files, Tools};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    iter,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// What comes with the essential packages and apt.
const PACKAGES: &str = "ca-certificates,git,iproute2,kmod,procps";
/// A mirror that is slower than this is down.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(900);
/// A disk that takes longer for some hundred MB has hung.
const PACK_TIMEOUT: Duration = Duration::from_secs(600);
/// Room for the tree and apt's archives, then for the tree packed, packed as it comes in, and as a file system: 1.1 GiB; and
/// what an import leaves.
const ROOM_MIB: u64 = 1152 + import::ROOM_MIB;

/// Kept out of the tree: documentation and translations are half of its files. Licences stay.
const DPKG_OPTIONS: [&str; 6] = [
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
];
const APT_OPTIONS: [&str; 2] = [
    "Acquire::Languages \"none\"",
    "APT::Install-Recommends \"false\"",
];
/// What programs that are run by the installation take for now where they write a date (1 January 2000): two builds of the same
/// packages are one image. Of passwords it says since when they are what they are, and 0 would make them expired.
const DATE_OF_WRITING: u64 = 946_684_800;
/// mmdebstrap copies the host's name and resolver in; an image knows neither. And only where root makes devices is `/dev` as old as
/// its package.
const FORGET_HOST: &str = "echo localhost > \"$1/etc/hostname\"; : > \"$1/etc/resolv.conf\"; \
     chmod 644 \"$1/etc/hostname\" \"$1/etc/resolv.conf\"; touch \"$1/dev\"; rm -f \"$1\"/var/cache/ldconfig/aux-cache \"$1\"/var/log/apt/* \"$1\"/var/log/*.log";

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianBuild {
    /// Name of the image.
    pub name: String,
    /// Release code name; `None`: the host's, or bookworm where the host is not Debian.
    pub suite: Option<String>,
    /// Packages besides those that every image of ours has.
    pub packages: Vec<String>,
    /// What becomes of an image that has the name.
    pub taken: Taken,
}

/// What a build does with a name that another image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// That image will do.
    Use,
    /// It is refused.
    Refuse,
    /// The name moves to the new image.
    Replace,
}

impl Default for DebianBuild {
    /// The default image.
    fn default() -> Self {
        DebianBuild {
            name: DebianBuild::DEFAULT_NAME.to_owned(),
            suite: None,
            packages: Vec::new(),
            taken: Taken::Use,
        }
    }
}

impl DebianBuild {
    /// Name of the image that is used when none is named.
    pub const DEFAULT_NAME: &str = "debian";

    /// A build of what a user calls a base, `debian` or `debian:SUITE`, with these packages.
    ///
    /// # Errors
    /// `BadBase`, `BadPackage`: there is no such base, or something cannot be a package.
    pub fn of(name: &str, base: &str, packages: &[String], taken: Taken) -> Result<Self> {
        let (distro, suite) = match base.split_once(':') {
            Some((distro, suite)) => (distro, Some(suite)),
            None => (base, None),
        };
        if distro != "debian" || !suite.is_none_or(is_word) {
            return Err(Error::BadBase(crate::layer::shown(base.as_bytes())));
        }
        if let Some(bad) = packages.iter().find(|package| !is_word(package)) {
            return Err(Error::BadPackage(crate::layer::shown(bad.as_bytes())));
        }
        Ok(DebianBuild {
            name: name.to_owned(),
            suite: suite.map(str::to_owned),
            packages: packages.to_vec(),
            taken,
        })
    }
}

/// Whether a text can be a package or a release (Debian Policy 5.6.1), and so no option and no list.
fn is_word(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(legal)
}

impl<H: Files + Tools + Clock + Send + Sync> ImageStore<H> {
    /// The default image, `None` until [`ImageStore::build_debian`] has made it.
    ///
    /// # Errors
    /// The images cannot be listed.
    pub fn default_image(&self) -> Result<Option<Manifest>> {
        self.named(DebianBuild::DEFAULT_NAME)
    }

    /// Builds a Debian image. Of two builders of one name exactly one works; the other waits and is
    /// given the result. Cancelled or failed, nothing is left behind.
    ///
    /// # Errors
    /// `NoNamespace`, `ToolMissing`, `NoSpace`, `Cancelled`, a failing program, `BadName`.
    pub fn build_debian(&self, build: &DebianBuild, progress: &dyn Progress) -> Result<Manifest> {
        manifest::check_name(&build.name)?;
        if let Some(there) = self.there(build)? {
            return Ok(there);
        }
        let owners = Owners::of(&*self.host).map_err(|(first, _)| first)?;
        let _lock = self.lock(progress)?;
        if let Some(there) = self.there(build)? {
            return Ok(there);
        }
        self.check_room(ROOM_MIB)?;
        self.staged(|staging| self.build_staged(staging, build, &owners, progress))
    }

    /// The image that has the name, if it will do.
    fn there(&self, build: &DebianBuild) -> Result<Option<Manifest>> {
        let there = self.named(&build.name)?;
        match (build.taken, there) {
            (Taken::Refuse, Some(there)) => Err(Error::Exists {
                name: build.name.clone(),
                id: there.id,
            }),
            (Taken::Use, there) => Ok(there),
            _ => Ok(None),
        }
    }

    fn build_staged(
        &self,
        staging: &Staging,
        build: &DebianBuild,
        owners: &Owners,
        progress: &dyn Progress,
    ) -> Result<Manifest> {
        let root = staging.dir().join("root");
        let sources = sources::of_host(Path::new("/"), build.suite.as_deref());
        progress.stage(&format!(
            "building the image {} from Debian {}",
            build.name, sources.suite
        ));
        self.bootstrap(staging.dir(), &root, &sources, build, owners, progress)?;
        let cancelled = || progress.cancelled();
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }

        let packed = self.pack(staging, &root, owners, &cancelled)?;
        self.remove_tree(&root)?;
        let mut archive = File::open(&packed).map_err(|source| Error::Read {
            path: packed.clone(),
            source,
        })?;
        let import = Import {
            names: vec![build.name.clone()],
            moves: match build.taken {
                Taken::Refuse => Moves::None,
                Taken::Use | Taken::Replace => Moves::All,
            },
            distro: Some(format!("debian-{}", sources.suite)),
            source: Some(source_of(&sources.suite, &build.packages)),
            ..Import::default()
        };
        let said = self.fill(staging, &mut archive, &import, progress)?;
        self.import_staged(staging, said, &import, progress)
    }

    /// The tree as an archive, as every other image comes: the same bytes for the same packages, whoever installed them. What was
    /// written by the installation is as old as the newest package, and the devices that only root has made are left out (a
    /// guest has its own).
    fn pack(
        &self,
        staging: &Staging,
        root: &Path,
        owners: &Owners,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<PathBuf> {
        let packed = staging.dir().join("root.tar");
        let newest = newest_package(root)?.unwrap_or(DATE_OF_WRITING);
        let mut args: Vec<OsString> = [
            "--create",
            "--format=posix",
            "--numeric-owner",
            "--one-file-system",
            "--xattrs",
            "--xattrs-include=*",
            "--sort=name",
            "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
            "--exclude=./dev/*",
            "--clamp-mtime",
        ]
        .map(OsString::from)
        .to_vec();
        args.push(format!("--mtime=@{newest}").into());
        args.extend(["--file".into(), OsString::from(&packed)]);
        args.extend(["--directory".into(), root.into(), ".".into()]);
        let (program, args) = owners.call(tar(&*self.host)?, args);
        ext4::run(
            &*self.host,
            program,
            "packing the Debian root",
            args,
            BTreeMap::new(),
            PACK_TIMEOUT,
            &mut |_| {},
            cancelled,
        )?;
        Ok(packed)
    }

    /// Everything that would keep [`ImageStore::build_debian`] from building now; looks only. The build asks the
    /// same questions when it comes to them.
    pub fn build_obstacles(&self) -> Vec<Error> {
        let host = &*self.host;
        let facts = [
            mmdebstrap(host).map(drop),
            tar(host).map(drop),
            ext4::e2fsck(host).map(drop),
            self.check_room(ROOM_MIB),
        ];
        let owners = Owners::of(host).err();
        let owners = owners.map(|(first, more)| iter::once(first).chain(more));
        let facts = facts.into_iter().filter_map(Result::err);
        owners.into_iter().flatten().chain(facts).collect()
    }

    /// Runs mmdebstrap; its target directory is the one it makes itself, with a root's mode. Its other files are in the staging
    /// directory too, where they go with it if nobody else removes them.
    fn bootstrap(
        &self,
        staging: &Path,
        root: &Path,
        sources: &sources::Sources,
        build: &DebianBuild,
        owners: &Owners,
        progress: &dyn Progress,
    ) -> Result<()> {
        let list = staging.join("sources.list");
        let text = sources.lines.join("\n") + "\n";
        self.host
            .write(&list, text.as_bytes())
            .doing("write the package sources")?;
        let temporary = staging.join("tmp");
        let made = self.host.mkdir(&temporary);
        made.doing("make a directory for mmdebstrap")?;
        let mut args: Vec<OsString> = ["--mode=root", "--format=directory", "--variant=minbase"]
            .map(OsString::from)
            .to_vec();
        args.push(format!("--include={PACKAGES}").into());
        args.extend(
            build
                .packages
                .iter()
                .map(|package| format!("--include={package}").into()),
        );
        args.extend(APT_OPTIONS.map(|o| format!("--aptopt={o}").into()));
        args.extend(DPKG_OPTIONS.map(|o| format!("--dpkgopt={o}").into()));
        args.push(format!("--customize-hook={FORGET_HOST}").into());
        args.extend([OsString::from(&sources.suite), root.into(), list.into()]);
        let mut line = |line: &str| match stage_of(line) {
            Some(stage) => progress.stage(stage),
            None => progress.detail(line),
        };
        let mut env = self.proxies();
        env.insert("TMPDIR".into(), temporary.into());
        env.insert(
            "SOURCE_DATE_EPOCH".into(),
            DATE_OF_WRITING.to_string().into(),
        );
        let (program, args) = owners.call(mmdebstrap(&*self.host)?, args);
        let doing = "building a Debian root with mmdebstrap";
        ext4::run(
            &*self.host,
            program,
            doing,
            args,
            env,
            BOOTSTRAP_TIMEOUT,
            &mut line,
            &|| progress.cancelled(),
        )
        .map(drop)
    }

    /// The proxies apt is told to use on this host (mmdebstrap does not look at them): ours by
    /// environment, else apt's own configuration.
    fn proxies(&self) -> BTreeMap<OsString, OsString> {
        let mut env = BTreeMap::new();
        for name in ["http_proxy", "https_proxy", "no_proxy"] {
            if let Some(value) = std::env::var_os(name) {
                env.insert(name.into(), value);
            }
        }
        for (name, key) in [
            ("http_proxy", "Acquire::http::Proxy"),
            ("https_proxy", "Acquire::https::Proxy"),
        ] {
            if env.contains_key(&OsString::from(name)) {
                continue;
            }
            let args = ["dump", "--format", "%v%n", key]
                .map(OsString::from)
                .to_vec();
            let asked = ext4::tool(&*self.host, "apt-config", "apt").and_then(|apt_config| {
                ext4::run(
                    &*self.host,
                    apt_config,
                    "asking apt for a proxy",
                    args,
                    BTreeMap::new(),
                    Duration::from_secs(10),
                    &mut |_| {},
                    &|| false,
                )
            });
            // No apt, no proxy: the bootstrap itself says what is missing.
            let value = asked
                .map(|out| String::from_utf8_lossy(&out).trim().to_owned())
                .unwrap_or_default();
            if value.contains("://") {
                env.insert(name.into(), value.into());
            }
        }
        env
    }
}

/// Where an image comes from, for a person.
fn source_of(suite: &str, packages: &[String]) -> String {
    match packages {
        [] => format!("packages of Debian {suite}"),
        more => format!("packages of Debian {suite}, with {}", more.join(" ")),
    }
}

/// When the newest of the packages was built, in Unix seconds: dpkg keeps the dates of what packages say of themselves.
fn newest_package(root: &Path) -> Result<Option<u64>> {
    let dir = root.join("var/lib/dpkg/info");
    let failed = |source| Error::Read {
        path: dir.clone(),
        source,
    };
    let mut newest = None;
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().extension().is_some_and(|e| e == "md5sums") {
            let mtime = entry.metadata().map_err(failed)?.mtime();
            newest = newest.max(u64::try_from(mtime).ok());
        }
    }
    Ok(newest)
}

/// What makes archives.
fn tar<H: Tools>(host: &H) -> Result<PathBuf> {
    ext4::tool(host, "tar", "tar")
}

/// What makes Debian roots.
fn mmdebstrap<H: Tools>(host: &H) -> Result<PathBuf> {
    ext4::tool(host, "mmdebstrap", "mmdebstrap")
}

/// mmdebstrap's own headlines, as stages for a person; its other lines are detail.
fn stage_of(line: &str) -> Option<&'static str> {
    let said = line.strip_prefix("I: ")?;
    let stages = [
        ("running apt-get update", "reading the package lists"),
        ("downloading packages", "downloading packages"),
        ("extracting archives", "extracting packages"),
        ("installing essential", "installing the essential packages"),
        ("installing remaining", "installing the other packages"),
        ("cleaning", "cleaning up"),
    ];
    stages
        .into_iter()
        .find(|(head, _)| said.starts_with(head))
        .map(|(_, stage)| stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_debian_and_packages_are_words() {
        let of = |base: &str, packages: &[&str]| {
            let packages: Vec<_> = packages.iter().map(ToString::to_string).collect();
            DebianBuild::of("x", base, &packages, Taken::Refuse)
        };
        let built = of("debian:trixie", &["g++", "libstdc++6", "0ad"]).unwrap();
        assert_eq!(built.suite.as_deref(), Some("trixie"));
        assert_eq!(built.packages, ["g++", "libstdc++6", "0ad"]);
        assert_eq!(of("debian", &[]).unwrap().suite, None);
        for base in [
            "",
            "alpine",
            "debian:",
            "debian:-x",
            "debian:a b",
            "debian:a/b",
            "Debian",
        ] {
            assert!(matches!(of(base, &[]), Err(Error::BadBase(_))), "{base}");
        }
        for package in [
            "", "-y", "a,b", "a b", "A", "a=1", "a;b", "?name", "a\nb", "x",
        ] {
            let refused = of("debian", &[package]);
            assert!(matches!(refused, Err(Error::BadPackage(_))), "{package}");
        }
    }
}
