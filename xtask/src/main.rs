//! Tasks of this repository: `cargo xtask lint`, `cargo xtask generate [--check]`, `cargo xtask bench [guest | life | images | boots]`, `cargo xtask testhost build|run|shell`.

mod bench;
mod generate;
mod lint;
mod run;
mod testhost;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask lint
       cargo xtask generate [--check]
       cargo xtask bench [guest | life | images | boots [COUNT]]
       cargo xtask testhost build
       cargo xtask testhost run [--timeout SECONDS] [--ignored] [--with PATH]… [FILTER]
       cargo xtask testhost shell [--with PATH]…";

/// The repository's root: this crate's parent.
fn root() -> PathBuf {
    let mut dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    dir.pop();
    dir
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["lint"] => lint::command(&root()),
        ["generate", rest @ ..] => generate::command(&root(), rest),
        ["bench", rest @ ..] => bench::command(&root(), rest),
        ["testhost", rest @ ..] => testhost::command(&root(), rest),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}
