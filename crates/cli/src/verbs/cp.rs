//! `vm cp`: files into a VM or out of it.

use crate::{
    args::CpArgs,
    connection::Daemon,
    copy::{self, Source, Target},
    failure::Failure,
};
use banger_tree::Destination;
use banger_wire::{
    api::VmCopy,
    guest::{CopyIn, CopyOut, CopyRequest, PathBytes},
};
use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Side {
    /// A file here.
    Here(PathBuf),
    /// Standard input or output, as tar.
    Stream,
    /// A file in a VM.
    Guest { vm: String, path: PathBytes },
}

/// What is copied where: several sources of one side.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    In {
        sources: Vec<Side>,
        vm: String,
        path: PathBytes,
    },
    Out {
        sources: Vec<(String, PathBytes)>,
        target: Side,
    },
}

/// Copies one source after the other; the first that fails ends it.
pub async fn cp(args: CpArgs) -> Result<ExitCode, Failure> {
    let plan = plan(&args.paths)?;
    refuse_early(&plan, &args)?;
    let daemon = Daemon::of_this_user()?;
    match plan {
        Plan::In { sources, vm, path } => {
            let several = sources.len() > 1;
            for source in sources {
                let (source, name) = match source {
                    Side::Here(here) => {
                        let name = Destination::name_of(here.as_os_str().as_bytes());
                        (Source::Here(here.clone()), name.map(PathBytes::from))
                    }
                    _ => (Source::Stdin, None),
                };
                let request = VmCopy {
                    vm: vm.clone(),
                    copy: CopyRequest::In(CopyIn {
                        path: path.clone(),
                        name,
                        directory: several,
                        archive: source == Source::Stdin,
                        keep_owner: args.archive,
                    }),
                };
                let ended = copy::put(
                    daemon.frames(&request).await?,
                    &vm,
                    source,
                    args.follow_link,
                );
                if let Some(status) = ended.await? {
                    return Ok(status);
                }
            }
        }
        Plan::Out { sources, target } => {
            let several = sources.len() > 1;
            for (vm, path) in sources {
                let name = Destination::name_of(&path.0).map(PathBytes::from);
                let target = match &target {
                    Side::Here(here) => Target::Here(Destination {
                        path: here.clone(),
                        name: name.clone().map(|name| name.0),
                        directory: several,
                    }),
                    _ => Target::Stdout,
                };
                let request = VmCopy {
                    vm: vm.clone(),
                    copy: CopyRequest::Out(CopyOut {
                        path,
                        name: name.filter(|_| matches!(target, Target::Stdout)),
                        follow: args.follow_link,
                    }),
                };
                let ended = copy::get(daemon.frames(&request).await?, &vm, target);
                if let Some(status) = ended.await? {
                    return Ok(status);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A side as it was typed. A colon behind a slash or a leading dot belongs to a file's name.
fn side(text: &OsStr) -> Result<Side, Failure> {
    let bytes = text.as_bytes();
    if bytes == b"-" {
        return Ok(Side::Stream);
    }
    let colon = bytes.iter().position(|b| *b == b':');
    let colon = colon.filter(|at| !bytes[..*at].contains(&b'/') && !bytes.starts_with(b"."));
    let Some(colon) = colon else {
        if bytes.is_empty() {
            return Err(Failure::new("an empty path names nothing").hint(EXAMPLE));
        }
        return Ok(Side::Here(PathBuf::from(text)));
    };
    let vm = std::str::from_utf8(&bytes[..colon]).unwrap_or_default();
    if vm.is_empty() {
        let message = format!("'{}' names no VM before the colon", text.to_string_lossy());
        return Err(Failure::new(message).hint(EXAMPLE));
    }
    Ok(Side::Guest {
        vm: vm.to_owned(),
        path: PathBytes::from(&bytes[colon + 1..]),
    })
}

const EXAMPLE: &str = "banger vm cp FILE VM:PATH, or banger vm cp VM:PATH FILE";

/// Which way, if exactly one side is in a VM.
fn plan(paths: &[OsString]) -> Result<Plan, Failure> {
    let sides = paths.iter().map(|path| side(path));
    let mut sources = sides.collect::<Result<Vec<Side>, Failure>>()?;
    let bad = |message: &str| Err(Failure::new(message).hint(EXAMPLE));
    let Some(target) = sources.pop() else {
        return bad("nothing to copy was named");
    };
    let guests = sources
        .iter()
        .filter(|s| matches!(s, Side::Guest { .. }))
        .count();
    let streams = sources.iter().filter(|s| **s == Side::Stream).count();
    match target {
        Side::Guest { .. } if guests > 0 => bad(
            "from VM to VM goes through this machine: copy out, then in (or pipe: cp A:x - | cp - B:)",
        ),
        Side::Guest { .. } if streams > 0 && sources.len() > 1 => {
            bad("'-' is the only source when it is one")
        }
        Side::Guest { vm, path } => Ok(Plan::In { sources, vm, path }),
        _ if guests < sources.len() || guests == 0 => {
            bad("one side of a copy is in a VM: write it VM:PATH")
        }
        Side::Stream if guests > 1 => bad("one tar stream holds one source"),
        target => {
            let sources = sources.into_iter().filter_map(|source| match source {
                Side::Guest { vm, path } => Some((vm, path)),
                _ => None,
            });
            Ok(Plan::Out {
                sources: sources.collect(),
                target,
            })
        }
    }
}

/// What can be seen to fail is refused before a daemon or a VM is asked.
fn refuse_early(plan: &Plan, args: &CpArgs) -> Result<(), Failure> {
    match plan {
        Plan::In { sources, .. } => {
            for source in sources {
                match source {
                    Side::Here(path) => {
                        std::fs::symlink_metadata(path).map_err(|error| {
                            Failure::new(format!("cannot read '{}'", path.display()))
                                .caused_by(&error)
                        })?;
                    }
                    _ if io::stdin().is_terminal() => {
                        return Err(Failure::new("a tar stream is not typed by hand")
                            .hint("tar c DIR | banger vm cp - VM:PATH"));
                    }
                    _ => {}
                }
            }
        }
        Plan::Out { .. } if args.archive => {
            return Err(Failure::new(
                "what comes out of a VM belongs to you; -a is for the way in",
            )
            .hint("banger vm cp VM:PATH - | sudo tar x --numeric-owner"));
        }
        Plan::Out {
            target: Side::Here(path),
            ..
        } => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            if !path.exists() && !parent.is_dir() {
                return Err(
                    Failure::new(format!("there is no directory '{}'", parent.display()))
                        .hint(format!("mkdir -p '{}'", parent.display())),
                );
            }
        }
        Plan::Out { .. } if io::stdout().is_terminal() => {
            return Err(Failure::new("a tar stream is not written to a terminal")
                .hint("banger vm cp VM:PATH - | tar t"));
        }
        Plan::Out { .. } => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(paths: &[&str]) -> Result<Plan, String> {
        let paths: Vec<OsString> = paths.iter().map(OsString::from).collect();
        plan(&paths).map_err(|failure| failure.text())
    }

    fn guest(path: &str) -> PathBytes {
        PathBytes(path.as_bytes().to_owned())
    }

    #[test]
    fn exactly_one_side_is_in_a_vm() {
        assert_eq!(
            typed(&["a", "./b:c", "/d:e", "dev:/f:g"]),
            Ok(Plan::In {
                sources: ["a", "./b:c", "/d:e"]
                    .map(|p| Side::Here(p.into()))
                    .to_vec(),
                vm: "dev".into(),
                path: guest("/f:g"),
            })
        );
        assert_eq!(
            typed(&["dev:", "-"]),
            Ok(Plan::Out {
                sources: vec![("dev".into(), guest(""))],
                target: Side::Stream
            })
        );
        for (paths, says) in [
            (&["a", "b"][..], "VM:PATH"),
            (&["-", "-"], "VM:PATH"),
            (&["a", "dev:x", "b"], "VM:PATH"),
            (&["dev:a", "dev:b"], "through this machine"),
            (&["-", "a", "dev:b"], "only source"),
            (&["dev:a", "dev:b", "-"], "one source"),
            (&[":a", "b"], "names no VM"),
            (&["", "dev:a"], "empty path"),
        ] {
            let refused = typed(paths).unwrap_err();
            assert!(refused.contains(says), "{paths:?}: {refused}");
            assert!(refused.contains("hint: "), "{refused}");
        }
    }
}
