//! The test host: a Debian VM under QEMU's emulation, in which device-mapper, loops, taps, nftables and KVM
//! are real and belong to nobody else (docs/design/testhost.md).

mod build;
mod payload;
mod vm;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long a run may take that is not told otherwise: ten times what it takes on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// What a run is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options<'a> {
    /// Only tests whose name contains this.
    filter: &'a str,
    /// Also those that run by request alone.
    ignored: bool,
    /// For the whole run, from the first boot on.
    timeout: Duration,
    /// Files and directories to have in `/payload/with`.
    with: Vec<&'a Path>,
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a str]) -> Result<Self, String> {
        let mut options = Self {
            filter: "",
            ignored: false,
            timeout: TIMEOUT,
            with: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--timeout" => {
                    let value = args.next().ok_or("--timeout wants seconds")?;
                    let seconds = value
                        .parse()
                        .map_err(|e| format!("--timeout {value}: {e}"))?;
                    options.timeout = Duration::from_secs(seconds);
                }
                "--ignored" => options.ignored = true,
                "--with" => options
                    .with
                    .push(Path::new(*args.next().ok_or("--with wants a path")?)),
                flag if flag.starts_with('-') => {
                    return Err(format!("unknown flag {flag}\n{}", crate::USAGE));
                }
                filter if options.filter.is_empty() => options.filter = filter,
                more => {
                    return Err(format!(
                        "one filter, please: {:?} and {more:?}",
                        options.filter
                    ));
                }
            }
        }
        Ok(options)
    }

    /// How long one test binary may take: less than the whole, so that its end is told from inside.
    fn seconds_each(&self) -> u64 {
        self.timeout.as_secs() * 3 / 4
    }
}

/// `cargo xtask testhost …`. The status is the run's own: 0 when every test in it passed.
///
/// # Errors
/// When the arguments are wrong, or the host cannot be built or booted in time.
pub fn command(root: &Path, args: &[&str]) -> Result<ExitCode, String> {
    match args {
        ["build"] => {
            let host = build::ensure(root)?;
            println!("{}", host.dir.display());
            Ok(ExitCode::SUCCESS)
        }
        ["run", rest @ ..] => run(root, &Options::parse(rest)?),
        ["shell", rest @ ..] => shell(root, &Options::parse(rest)?),
        _ => Err(crate::USAGE.to_owned()),
    }
}

/// Runs the payload, once more if the machine itself failed: under QEMU's emulation of AMD-V, in which the VMs inside
/// run, the host's kernel falls over an entry into one of them, or stands still, now and then. A test that brings a
/// kernel down does so each time.
fn run(root: &Path, options: &Options<'_>) -> Result<ExitCode, String> {
    let host = build::ensure(root)?;
    let mut failed = false;
    let run = loop {
        let payload = payload::make(root, options)?;
        let ended = vm::run(root, &host, &payload, options.timeout);
        payload.remove();
        match ended {
            Ok(run) => break run,
            Err(vm::Failed::Machine(words)) if !failed => {
                eprintln!(
                    "test host: the machine failed, everything in it runs once more: {words}"
                );
                failed = true;
            }
            Err(vm::Failed::Machine(why) | vm::Failed::Other(why)) => return Err(why),
        }
    };
    payload::report_skipped(&run.skipped)?;
    Ok(if run.status == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn shell(root: &Path, options: &Options<'_>) -> Result<ExitCode, String> {
    let host = build::ensure(root)?;
    let payload = payload::make(root, options)?;
    let ended = vm::shell(root, &host, &payload);
    payload.remove();
    ended.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_in_any_order_and_nonsense_is_refused() {
        let options = Options::parse(&["--timeout", "9", "dm_", "--with", "a"]).expect("options");
        assert_eq!(options.filter, "dm_");
        assert_eq!(options.timeout, Duration::from_secs(9));
        assert_eq!(options.seconds_each(), 6);
        assert_eq!(options.with, [Path::new("a")]);
        assert!(!options.ignored);
        assert!(Options::parse(&["--ignored"]).expect("options").ignored);
        for bad in [
            &["--timeout"][..],
            &["--timeout", "x"],
            &["--what"],
            &["a", "b"],
            &["--with"],
        ] {
            assert!(Options::parse(bad).is_err(), "{bad:?}");
        }
    }
}
