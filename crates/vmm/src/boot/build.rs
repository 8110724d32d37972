//! banger's own kernel: the distribution's kernel source, nothing but our options, everything built in.
//!
//! The same source, options and compiler give the same bytes: who built it, where and when are fixed, the time being that
//! of the source's changelog. What was built is kept, so that a kernel that was deleted comes back without a compiler.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_host::{Files, ToolCall, Tools};
use banger_model::hex;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::apt::{self, Fetched};
use super::cache;
use super::config::KernelConfig;
use super::deb::{self, Walk};
use super::kernel::{Kernel, KernelError};
use super::needs::{self, Evidence};
use super::package::NewKernel;
use super::shelf::{self, Shelf};
use super::source::{KernelSource, LARGEST_IMAGE, bytes_of};
use super::unpack::{Packing, unpack};

/// The options that our kernel has besides those that the kernel's own rules add.
pub const FRAGMENT: &str = include_str!("guest.config");
/// The distribution's package of kernel source; the name stands for the newest.
pub const SOURCE_PACKAGE: &str = "linux-source";

/// Bumped when the same source would be built otherwise.
const BUILD_FORMAT: u32 = 1;
/// An hour is usual for nothing else on a machine of one slow processor; four are for a busy one.
const BUILD_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
const STEP_TIMEOUT: Duration = Duration::from_secs(900);
/// Compilations of our options, to say how far it has got.
const STEPS: u64 = 2040;
/// Programs that a kernel is built with, and the packages that have them.
const PROGRAMS: [(&str, &str); 9] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
];
/// Headers that it is built with, in place of which a C compiler looks, and their packages.
const HEADERS: [(&str, &str); 2] = [("stdio.h", "libc6-dev"), ("gelf.h", "libelf-dev")];

/// Why no kernel was built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Something that it is built with is not there.
    #[error("a kernel cannot be built without {}", .missing.join(", "))]
    Missing {
        /// Programs and headers.
        missing: Vec<String>,
        /// What has them.
        packages: Vec<String>,
    },
    /// The package of the source has not what is expected in it.
    #[error("the package {package} holds no source of a kernel")]
    NoSource {
        /// The package.
        package: String,
    },
    /// What came of the options does not run banger's guests.
    #[error("the kernel would lack what banger needs: {}", .lacks.join(", "))]
    Lacks {
        /// Options, each with its reason.
        lacks: Vec<String>,
        /// Whether the user has given options.
        configured: bool,
    },
    /// A line of the user's options is none.
    #[error("'{line}' is no option: {why}")]
    Option {
        /// The line.
        line: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A step failed.
    #[error("{step} failed")]
    Step {
        /// Which.
        step: &'static str,
        /// What it said.
        #[source]
        source: banger_host::Error,
    },
    /// Something could not be read or written.
    #[error("{what}")]
    Io {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How a kernel is built.
#[derive(Debug, Clone)]
pub struct Recipe<'a> {
    /// Options of the user, besides and instead of ours.
    pub more: &'a str,
    /// Compilers at a time.
    pub jobs: u32,
    /// Directory in which what was built is kept.
    pub cache: &'a Path,
}

impl Recipe<'_> {
    /// All options; of two for the same, the later one holds.
    fn fragment(&self) -> String {
        match self.more {
            "" => FRAGMENT.to_owned(),
            more => format!("{FRAGMENT}\n{more}\n"),
        }
    }

    /// The error of a kernel that was made by this: one that lacks something was not chosen like this by anybody.
    fn of(&self, error: KernelError) -> KernelError {
        match error {
            KernelError::Lacks { lacks } => built(BuildError::Lacks {
                lacks,
                configured: !self.more.is_empty(),
            }),
            other => other,
        }
    }
}

/// Checks options of a user's: what `make` would run or read is none, and what it would skip without a word is told.
///
/// # Errors
/// The first line that is neither empty, a comment nor an option with a plain value.
pub fn check_options(text: &str) -> Result<(), BuildError> {
    let refused = |line: &str, why| {
        let line = line.chars().take(100).filter(|c| !c.is_control()).collect();
        Err(BuildError::Option { line, why })
    };
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return refused(line, "an option is CONFIG_NAME=VALUE");
        };
        let legal = |b: u8| {
            b.is_ascii_uppercase() || b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'
        };
        if !name
            .strip_prefix("CONFIG_")
            .is_some_and(|name| !name.is_empty() && name.bytes().all(legal))
        {
            return refused(line, "an option is CONFIG_NAME=VALUE");
        }
        let text = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        // `$` is make's, and a path would be a file of this machine in the kernel.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b" ._+,:=@-".contains(&b);
        if !text.unwrap_or(value).bytes().all(plain) || value.is_empty() {
            return refused(
                line,
                "its value is y, n, a number or plain text, and names no file",
            );
        }
    }
    Ok(())
}

/// What a kernel cannot be built without and is not there; looks only.
///
/// # Errors
/// All of it, with the packages that have it.
pub fn obstacle<H: Tools>(host: &H) -> Result<(), BuildError> {
    let there = |header: &str| {
        let multiarch = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        ["/usr/include", "/usr/local/include", &multiarch]
            .iter()
            .any(|dir| Path::new(dir).join(header).is_file())
    };
    let programs = PROGRAMS
        .iter()
        .filter(|(program, _)| host.find_tool(Path::new(program)).is_none());
    let headers = HEADERS.iter().filter(|(header, _)| !there(header));
    let (missing, packages): (Vec<String>, Vec<String>) = programs
        .chain(headers)
        .map(|(what, package)| ((*what).to_owned(), (*package).to_owned()))
        .unzip();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(BuildError::Missing { missing, packages }),
    }
}

/// Builds a kernel and puts it on the shelf, whole or not at all. One that was built of the same is not built again.
///
/// # Errors
/// See [`KernelError`]; nothing is left.
pub fn build<H: Files + Tools>(
    host: &H,
    shelf: &Shelf<'_>,
    recipe: &Recipe<'_>,
    new: &NewKernel<'_>,
    progress: &mut Progress<'_>,
) -> Result<Kernel, KernelError> {
    obstacle(host).map_err(built)?;
    shelf::check_name(new.name)?;
    let compiler = compiler(host, shelf.kernels).map_err(built)?;
    let key = |name: &str, version: &str| {
        let fragment = recipe.fragment();
        let of = format!("{BUILD_FORMAT}\n{name}\n{version}\n{compiler}\n{fragment}");
        hex::encode(&Sha256::digest(of))
    };
    let kept = |name: &str, version: &str| recipe.cache.join(kept_name(&key(name, version)));
    let (name, version, vmlinux) = match obtain(host, shelf, &kept, true, progress)? {
        Obtained::Built {
            name,
            version,
            vmlinux,
        } => {
            progress("it was built before");
            (name, version, vmlinux)
        }
        Obtained::Source(package) => {
            let work = shelf.private("build");
            let made = compile(host, &work, recipe, &package, progress, shelf.cancelled);
            // 80 000 files: whoever waits for the kernel, or for the daemon's end, does not wait for their removal.
            (shelf.discard)(&work);
            let vmlinux = made?;
            cache::keep(host, &kept(&package.name, &package.version), &vmlinux)
                .map_err(|source| KernelError::Files { source })?;
            (package.name, package.version, vmlinux)
        }
    };
    progress("checking the kernel");
    let key = key(&name, &version);
    let new = NewKernel {
        package: &name,
        version: &version,
        built_of: Some(&key),
        ..new.clone()
    };
    shelf::make(host, shelf, &KernelSource::Image(vmlinux), &new).map_err(|error| recipe.of(error))
}

/// What a kernel is made of.
enum Obtained {
    Built {
        name: String,
        version: String,
        vmlinux: Vec<u8>,
    },
    Source(apt::FetchedPackage),
}

/// What was built before of the newest source, if it is to be looked for and there; else that source.
fn obtain<H: Files + Tools>(
    host: &H,
    shelf: &Shelf<'_>,
    kept: &dyn Fn(&str, &str) -> PathBuf,
    look: bool,
    progress: &mut Progress<'_>,
) -> Result<Obtained, KernelError> {
    let fetched = apt::fetch_unless(
        host,
        (SOURCE_PACKAGE, "linux-source-"),
        &shelf.private("fetch"),
        &mut |line| progress(line),
        shelf.cancelled,
        &|name, version| look && kept(name, version).is_file(),
    );
    let (name, version) = match fetched.map_err(|source| KernelError::Fetch { source })? {
        Fetched::Package(package) => return Ok(Obtained::Source(package)),
        Fetched::Known { name, version } => (name, version),
    };
    match kept_bytes(&kept(&name, &version))? {
        Some(vmlinux) => Ok(Obtained::Built {
            name,
            version,
            vmlinux,
        }),
        // Somebody has pruned it since it was looked for.
        None => obtain(host, shelf, kept, false, progress),
    }
}

/// What was built before and is kept in this file, if it is there still.
fn kept_bytes(path: &Path) -> Result<Option<Vec<u8>>, KernelError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(|error| built(io_error(path, error))),
    }
}

/// Name of the file in which what was built of this is kept.
pub(super) fn kept_name(key: &str) -> String {
    format!("vmlinux-v{BUILD_FORMAT}-{}", key.get(..16).unwrap_or(key))
}

/// Whether a file of this name is what was built once, by whatever version.
pub(super) fn is_kept(name: &str) -> bool {
    name.starts_with("vmlinux-v")
}

/// What is called with each line of progress.
pub type Progress<'a> = dyn FnMut(&str) + 'a;

fn built(source: BuildError) -> KernelError {
    KernelError::Build { source }
}

fn io_error(path: &Path, source: io::Error) -> BuildError {
    let what = format!("{} cannot be read or written", path.display());
    BuildError::Io { what, source }
}

fn compiler<H: Tools>(host: &H, cwd: &Path) -> Result<String, BuildError> {
    let call = call("gcc", &["--version"], cwd, STEP_TIMEOUT);
    let said = host.run_tool(&call, &mut |_| {}, &|| false);
    let said = said.map_err(|source| BuildError::Step {
        step: "gcc --version",
        source,
    })?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn call(program: &str, args: &[&str], cwd: &Path, timeout: Duration) -> ToolCall {
    ToolCall {
        program: program.into(),
        args: args.iter().map(OsString::from).collect(),
        env: BTreeMap::new(),
        cwd: cwd.to_owned(),
        stdin: Vec::new(),
        timeout,
    }
}

/// Unpacks, configures, compiles; the kernel's ELF without its symbols.
fn compile<H: Files + Tools>(
    host: &H,
    work: &Path,
    recipe: &Recipe<'_>,
    package: &apt::FetchedPackage,
    progress: &mut Progress<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, KernelError> {
    host.mkdir(work)
        .map_err(|source| KernelError::Files { source })?;
    let made = Maker {
        host,
        work,
        cancelled,
        progress,
    };
    made.run(recipe, package)
}

struct Maker<'a, 'p, H> {
    host: &'a H,
    work: &'a Path,
    cancelled: &'a dyn Fn() -> bool,
    progress: &'a mut Progress<'p>,
}

impl<H: Files + Tools> Maker<'_, '_, H> {
    fn run(
        mut self,
        recipe: &Recipe<'_>,
        package: &apt::FetchedPackage,
    ) -> Result<Vec<u8>, KernelError> {
        (self.progress)("unpacking the source");
        let (archive, date) = self.spill(package)?;
        let linux = self.work.join("linux");
        self.host
            .mkdir(&linux)
            .map_err(|source| KernelError::Files { source })?;
        let (archive, into) = (archive.display().to_string(), linux.display().to_string());
        let unpack = [
            "-x",
            "-f",
            &archive,
            "-C",
            &into,
            "--strip-components=1",
            "--no-same-owner",
        ];
        self.tool("tar", &unpack, "unpacking the source")?;

        (self.progress)("configuring");
        let fragment = self.work.join("fragment");
        let text = recipe.fragment();
        self.host
            .write(&fragment, text.as_bytes())
            .map_err(|source| KernelError::Files { source })?;
        let fragment = format!("KCONFIG_ALLCONFIG={}", fragment.display());
        self.make(
            &linux,
            &date,
            &[&fragment, "allnoconfig"],
            "configuring the kernel",
        )?;
        self.check(&linux, &text)
            .map_err(|error| recipe.of(error))?;

        (self.progress)("compiling; this takes minutes");
        let jobs = format!("-j{}", recipe.jobs.max(1));
        self.make(&linux, &date, &[&jobs, "vmlinux"], "compiling the kernel")?;
        let (whole, stripped) = (linux.join("vmlinux"), self.work.join("vmlinux"));
        let (from, to) = (whole.display().to_string(), stripped.display().to_string());
        self.tool(
            "strip",
            &["--strip-all", "-o", &to, &from],
            "stripping the kernel",
        )?;
        std::fs::read(&stripped).map_err(|source| built(io_error(&stripped, source)))
    }

    /// Takes the source's archive out of its package; its path, and the time of the changelog's newest entry.
    fn spill(&self, package: &apt::FetchedPackage) -> Result<(PathBuf, String), KernelError> {
        let (mut archive, mut date) = (None, None);
        let debs = package.debs.iter();
        let mut seen = |path: &str, body: &mut dyn io::Read| {
            let name = path.rsplit('/').next().unwrap_or(path);
            if path.starts_with("usr/src/")
                && name.starts_with("linux-source-")
                && name.contains(".tar.")
            {
                let into = self.work.join("linux.tar");
                banger_host::tree::spool(&into, body)?;
                archive = Some(into);
            } else if date.is_none() && name.starts_with("changelog") {
                date = changelog_date(body)?;
            }
            Ok(Walk::On)
        };
        for deb in debs {
            let walked = deb::for_each_file(deb, self.cancelled, &mut seen);
            walked.map_err(|source| KernelError::Source {
                source: source.into(),
            })?;
        }
        let archive = archive.ok_or_else(|| {
            let package = package.name.clone();
            built(BuildError::NoSource { package })
        })?;
        // Without a changelog the package's version still tells one source from another.
        Ok((archive, date.unwrap_or_else(|| package.version.clone())))
    }

    /// Refuses options that banger's guests would not run with, before minutes are spent on them.
    fn check(&mut self, linux: &Path, fragment: &str) -> Result<(), KernelError> {
        let path = linux.join(".config");
        let text = std::fs::read_to_string(&path).map_err(|e| built(io_error(&path, e)))?;
        let config = KernelConfig::parse(&text).unwrap_or_default();
        let checked = needs::check(&Evidence {
            config: Some(&config),
            ..Evidence::default()
        });
        let lacks = checked.lacks();
        if !lacks.is_empty() {
            return Err(KernelError::Lacks { lacks });
        }
        let dropped = left_out(fragment, &config);
        if !dropped.is_empty() {
            let line = format!("this release of Linux leaves out {}", dropped.join(", "));
            (self.progress)(&line);
        }
        Ok(())
    }

    fn tool(
        &mut self,
        program: &str,
        args: &[&str],
        step: &'static str,
    ) -> Result<(), KernelError> {
        let call = call(program, args, self.work, STEP_TIMEOUT);
        let done = self.host.run_tool(&call, &mut |_| {}, self.cancelled);
        done.map(drop)
            .map_err(|source| built(BuildError::Step { step, source }))
    }

    /// make, with each line it prints as progress; it gives way to whatever else this machine does.
    fn make(
        &mut self,
        linux: &Path,
        date: &str,
        args: &[&str],
        step: &'static str,
    ) -> Result<(), KernelError> {
        // Errors of compilers and names of what is compiled come the same way, in their order.
        let all = [&["-c", "exec nice -n 10 make \"$@\" >&2", "make"], args].concat();
        let mut call = call("sh", &all, linux, BUILD_TIMEOUT);
        for (name, value) in [
            ("KBUILD_BUILD_TIMESTAMP", date),
            ("KBUILD_BUILD_USER", "banger"),
            ("KBUILD_BUILD_HOST", "banger"),
            ("KBUILD_BUILD_VERSION", "1"),
            ("TZ", "UTC"),
        ] {
            call.env.insert(name.into(), value.into());
        }
        let mut steps = 0;
        let progress = &mut *self.progress;
        let mut line = |line: &str| {
            let compiled = ["CC ", "AS ", "AR ", "LD "];
            if compiled
                .iter()
                .any(|word| line.trim_start().starts_with(word))
            {
                steps += 1;
                if steps % 100 == 0 {
                    progress(&format!("compiled {steps} of about {STEPS} parts"));
                }
            }
        };
        let done = self.host.run_tool(&call, &mut line, self.cancelled);
        done.map(drop)
            .map_err(|source| built(BuildError::Step { step, source }))
    }
}

/// Options of a fragment that a configuration has not as the fragment says.
fn left_out(fragment: &str, config: &KernelConfig) -> Vec<String> {
    let wanted: BTreeMap<&str, &str> = fragment
        .lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
        .collect();
    let dropped = |(name, value): (&&str, &&str)| {
        let is = config.get(name).unwrap_or("n");
        (is != value.trim_matches('"')).then(|| (*name).to_owned())
    };
    wanted.iter().filter_map(dropped).collect()
}

/// The time of a Debian changelog's newest entry, as it stands there (deb-changelog(5)).
fn changelog_date(body: &mut dyn Read) -> io::Result<Option<String>> {
    let bytes = bytes_of(body, "the changelog", LARGEST_IMAGE)?;
    let text = match Packing::of(&bytes) {
        Some(packing) => unpack(packing, &bytes, 64 << 20).map_err(io::Error::other)?,
        None => bytes,
    };
    let text = String::from_utf8_lossy(&text);
    let entry = text.lines().find_map(|line| line.strip_prefix(" -- "));
    Ok(entry.and_then(|entry| Some(entry.split_once(">  ")?.1.trim().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_plain() {
        for good in [
            "",
            "# CONFIG_X is not set",
            "CONFIG_WIREGUARD=y\n\nCONFIG_NR_CPUS=8\n",
            "CONFIG_LOCALVERSION=\"-mine\"",
            "CONFIG_PHYSICAL_START=0x1000000",
        ] {
            assert!(check_options(good).is_ok(), "{good}");
        }
        for bad in [
            "WIREGUARD=y",
            "CONFIG_WIREGUARD",
            "CONFIG_=y",
            "CONFIG_X=",
            "CONFIG_X=\"$(shell touch /tmp/x)\"",
            "CONFIG_INITRAMFS_SOURCE=\"/etc\"",
            "CONFIG_X=`id`",
            "include /etc/passwd",
            " CONFIG_X=y",
        ] {
            assert!(check_options(bad).is_err(), "{bad}");
        }
        assert!(check_options(FRAGMENT).is_ok(), "ours");
    }

    #[test]
    fn the_time_of_the_newest_entry_is_the_kernels() {
        let text = "linux (6.1.172-1) bookworm; urgency=high\n\n  * x\n\n \
            -- A B <a@b.c>  Fri, 15 May 2026 11:58:29 +0200\n\nlinux (6.1.1-1) x\n\n \
            -- A B <a@b.c>  Thu, 01 Jan 1970 00:00:00 +0000\n";
        let date = changelog_date(&mut text.as_bytes()).unwrap();
        assert_eq!(date.as_deref(), Some("Fri, 15 May 2026 11:58:29 +0200"));
        assert_eq!(changelog_date(&mut &b"nothing"[..]).unwrap(), None);
    }

    #[test]
    fn what_a_release_leaves_out_is_named() {
        let config = KernelConfig::parse("CONFIG_A=y\nCONFIG_B=\"x\"\nCONFIG_D=64\n").unwrap();
        let fragment = "CONFIG_A=y\nCONFIG_B=\"x\"\nCONFIG_C=y\nCONFIG_D=32\nCONFIG_E=n\n# CONFIG_F is not set\n";
        assert_eq!(left_out(fragment, &config), ["CONFIG_C", "CONFIG_D"]);
    }

    #[test]
    fn what_was_built_and_is_pruned_is_built_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinux-v1-0");
        assert_eq!(kept_bytes(&path).unwrap(), None);
        std::fs::write(&path, "kernel").unwrap();
        assert_eq!(kept_bytes(&path).unwrap().unwrap(), b"kernel");
        assert!(kept_bytes(dir.path()).is_err());
    }

    #[test]
    fn options_of_the_user_come_last() {
        let cache = Path::new("/c");
        let of = |more| {
            Recipe {
                more,
                jobs: 1,
                cache,
            }
            .fragment()
        };
        assert!(of("CONFIG_VT=y").trim_end().ends_with("CONFIG_VT=y"));
        assert_eq!(of(""), FRAGMENT);
    }
}
