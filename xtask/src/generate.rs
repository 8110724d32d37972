//! `cargo xtask generate [--check]`: files of this tree that are made from its code.

use std::path::Path;
use std::process::ExitCode;

/// Files made from code: paths from the root, and texts.
type Made = Result<Vec<(String, String)>, String>;

/// A file, or files below one directory, made from code.
struct Generator {
    /// What makes them, for messages.
    name: &'static str,
    /// Makes them.
    make: fn() -> Made,
}

/// Everything that is generated. Whoever makes more adds a line.
const GENERATORS: &[Generator] = &[
    Generator {
        name: "OpenAPI document of the API",
        make: openapi,
    },
    Generator {
        name: "reference of the command line",
        make: command_line,
    },
    Generator {
        name: "JSON Schema of the configuration",
        make: config_schema,
    },
];

fn openapi() -> Made {
    let document = banger_wire::api::schema::openapi()?;
    let text = serde_json::to_string_pretty(&document).map_err(|e| e.to_string())?;
    Ok(vec![("docs/openapi.json".to_owned(), format!("{text}\n"))])
}

/// What the command line says of itself: only it knows its arguments.
fn said(words: &[&str]) -> Result<String, String> {
    let mut ask = vec!["run", "--quiet", "--package", "banger", "--"];
    ask.extend(words);
    crate::run::output(&crate::root(), "cargo", &ask)
}

fn command_line() -> Made {
    let text = said(&["internal", "reference"])?;
    Ok(vec![("docs/cli.md".to_owned(), text)])
}

fn config_schema() -> Made {
    let text = said(&["config", "schema"])?;
    Ok(vec![("docs/config.schema.json".to_owned(), text)])
}

/// Writes what differs; with `--check` only says what would.
///
/// # Errors
/// Something cannot be made or written, or the arguments are none.
pub fn command(root: &Path, args: &[&str]) -> Result<ExitCode, String> {
    let check = match args {
        [] => false,
        ["--check"] => true,
        _ => return Err("usage: cargo xtask generate [--check]".to_owned()),
    };
    let mut stale = 0;
    for generator in GENERATORS {
        let files = (generator.make)().map_err(|e| format!("{}: {e}", generator.name))?;
        for (path, text) in files {
            let full = root.join(&path);
            if std::fs::read_to_string(&full).is_ok_and(|there| there == text) {
                continue;
            }
            stale += 1;
            if check {
                println!("{path}: not what the code makes of it; run cargo xtask generate");
                continue;
            }
            if let Some(dir) = full.parent() {
                std::fs::create_dir_all(dir)
                    .map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
            }
            std::fs::write(&full, text).map_err(|e| format!("cannot write {path}: {e}"))?;
            println!("{path}");
        }
    }
    if check && stale > 0 {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
