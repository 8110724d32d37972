//! What a command becomes in a VM of this image: the image says what the request leaves open (R-CLI-1).

use super::preflight;
use banger_model::ImageConfig;
use banger_wire::api::{ApiError, Code, Command, IMAGE_USER, Program};
use banger_wire::guest::ExecRequest;

type Result<T> = std::result::Result<T, ApiError>;

/// The user of a command where neither it nor the image names one.
const ROOT: &str = "0";

/// Refuses what no guest of any image could run.
///
/// # Errors
/// What is wrong.
pub fn check(command: &Command) -> Result<()> {
    let mut command = command.clone();
    match command.program {
        Program::Shell | Program::UserShell if !command.argv.is_empty() => {
            return Err(bad("a shell has no words").hint("leave out argv, or program"));
        }
        Program::Argv => {}
        // What it is, is the image's to say.
        Program::Shell | Program::UserShell | Program::Entrypoint => {
            command.argv.insert(0, "/".to_owned());
        }
    }
    command.program = Program::Argv;
    request(command, &ImageConfig::default()).map(drop)
}

/// The command as its guest is asked for it.
///
/// # Errors
/// The image says nothing of what it is to say, or no guest could run it.
pub fn decide(command: Command, image: Option<&ImageConfig>) -> Result<ExecRequest> {
    match image {
        Some(image) => request(command, image),
        None => request(command, &ImageConfig::default()),
    }
}

fn request(command: Command, image: &ImageConfig) -> Result<ExecRequest> {
    let as_built = command.program == Program::Entrypoint;
    let mut env = image.variables();
    let login = !env.contains_key("PATH");
    env.extend(command.env);
    let argv = match command.program {
        Program::Argv => command.argv,
        Program::Entrypoint => image.program(command.argv).ok_or_else(no_program)?,
        Program::Shell => shell(
            "if command -v bash >/dev/null; then exec bash$L; else exec sh$L; fi",
            login,
        ),
        Program::UserShell => shell("exec \"${SHELL:-sh}\"$L", login),
    };
    let workdir = image
        .directory()
        .filter(|_| as_built && command.cwd.is_none());
    let request = ExecRequest {
        argv,
        env,
        // Builders may name a directory that no layer has; whoever asks for one means one that is there.
        make_cwd: workdir.is_some(),
        cwd: command.cwd.or(workdir),
        user: match command.user {
            Some(user) if user == IMAGE_USER => Some(user_of(image)),
            user => user,
        },
        tty: command.tty,
        id: command.id,
        detach: command.detach,
        stop_signal: as_built.then(|| image.stop_signal_number()),
    };
    preflight::command(&request)?;
    Ok(request)
}

/// A shell by way of the one that every image with a shell has, wherever its `PATH` leads.
fn shell(words: &str, login: bool) -> Vec<String> {
    let words = words.replace("$L", if login { " -l" } else { "" });
    ["sh", "-c", &words].map(str::to_owned).to_vec()
}

/// The user that the image says; `:GROUP` alone is root in that group.
fn user_of(image: &ImageConfig) -> String {
    let user = image.user.as_deref().unwrap_or(ROOT);
    match user.starts_with(':') {
        true => format!("{ROOT}{user}"),
        false => user.to_owned(),
    }
}

fn no_program() -> ApiError {
    let message = "the image names no program: it has neither an entrypoint nor a command";
    ApiError::new(Code::Precondition, message)
        .hint("name one: banger vm run --image IMAGE -- PROGRAM")
}

fn bad(message: &str) -> ApiError {
    ApiError::new(Code::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().copied().map(str::to_owned).collect()
    }

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: words(&["/srv"]),
            cmd: words(&["serve"]),
            env: words(&["PATH=/opt:/bin", "LEVEL=1", "TERM=dumb"]),
            workdir: Some("/work".to_owned()),
            user: Some("web:www".to_owned()),
            stop_signal: Some("SIGQUIT".to_owned()),
            exposed_ports: Vec::new(),
        }
    }

    fn command(program: Program, argv: &[&str]) -> Command {
        Command {
            program,
            argv: words(argv),
            ..Command::default()
        }
    }

    #[test]
    fn a_command_gets_the_environment_of_the_image_and_nothing_else_of_it() {
        let mut wanted = command(Program::Argv, &["env"]);
        wanted.env.insert("TERM".to_owned(), "xterm".to_owned());
        let request = decide(wanted, Some(&image())).unwrap();
        assert_eq!(request.argv, ["env"]);
        assert_eq!(request.env["PATH"], "/opt:/bin");
        assert_eq!(request.env["LEVEL"], "1");
        assert_eq!(request.env["TERM"], "xterm", "what is asked for counts");
        assert_eq!(
            (request.cwd, request.user, request.stop_signal),
            (None, None, None)
        );
        assert!(!request.make_cwd);
    }

    #[test]
    fn the_entrypoint_runs_as_it_was_built_and_as_who_is_asked_for() {
        let request = decide(command(Program::Entrypoint, &[]), Some(&image())).unwrap();
        assert_eq!(request.argv, ["/srv", "serve"]);
        assert_eq!(request.cwd.as_deref(), Some("/work"));
        assert!(request.make_cwd);
        assert_eq!((request.user, request.stop_signal), (None, Some(3)));
        let mut wanted = command(Program::Entrypoint, &["help"]);
        wanted.cwd = Some("/tmp".to_owned());
        wanted.user = Some("image".to_owned());
        let request = decide(wanted, Some(&image())).unwrap();
        assert_eq!(request.argv, ["/srv", "help"]);
        assert_eq!(
            (request.cwd.as_deref(), request.make_cwd),
            (Some("/tmp"), false)
        );
        assert_eq!(request.user.as_deref(), Some("web:www"));
    }

    #[test]
    fn the_users_an_image_may_say() {
        for (says, is) in [(None, "0"), (Some("web"), "web"), (Some(":33"), "0:33")] {
            let image = ImageConfig {
                user: says.map(str::to_owned),
                ..image()
            };
            let mut wanted = command(Program::Argv, &["id"]);
            wanted.user = Some("image".to_owned());
            assert_eq!(
                decide(wanted, Some(&image)).unwrap().user.as_deref(),
                Some(is)
            );
        }
        let mut wanted = command(Program::Argv, &["id"]);
        wanted.user = Some("image".to_owned());
        assert_eq!(decide(wanted, None).unwrap().user.as_deref(), Some("0"));
    }

    #[test]
    fn an_image_that_names_no_program_is_refused_with_a_way_out() {
        for image in [None, Some(&ImageConfig::default())] {
            let error = decide(command(Program::Entrypoint, &[]), image).unwrap_err();
            assert!(error.message.contains("names no program"), "{error:?}");
            assert!(error.hint.is_some());
        }
        // Before the image is known, nothing is wrong with it.
        check(&command(Program::Entrypoint, &[])).unwrap();
        check(&command(Program::Shell, &[])).unwrap();
        check(&command(Program::Shell, &["x"])).unwrap_err();
        check(&command(Program::Argv, &[])).unwrap_err();
        check(&command(Program::Entrypoint, &["a\0b"])).unwrap_err();
    }

    /// `/etc/profile` sets a `PATH` of its own.
    #[test]
    fn a_shell_is_no_login_shell_where_the_image_has_a_path() {
        let words = |image| decide(command(Program::Shell, &[]), image).unwrap().argv[2].clone();
        let with_path = image();
        assert!(!words(Some(&with_path)).contains("-l"));
        assert!(words(None).contains("exec bash -l; else exec sh -l;"));
    }
}
