//! Tests that cannot run here, and the place where all can.

use std::{fs::OpenOptions, io::Write};

/// Says that the running test cannot run here, and why; the test then returns. `./test` prints the line and
/// counts the test as skipped, not as passed (it reads the file named by `BANGER_SKIPPED`).
///
/// # Panics
/// When that file cannot be written: a skip that nobody counts would be a pass.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let line = format!("{test}: {}\n", reason.replace('\n', " "));
    eprint!("skipped: {line}");
    if let Some(path) = std::env::var_os("BANGER_SKIPPED") {
        let file = OpenOptions::new().append(true).create(true).open(&path);
        // One write, so that tests running at once do not mix their lines.
        file.and_then(|mut f| f.write_all(line.as_bytes()))
            .unwrap_or_else(|e| panic!("cannot append to {}: {e}", path.display()));
    }
}

/// True inside the test host (`cargo xtask testhost run`), where device-mapper, taps and KVM are real and
/// nobody else's.
pub fn in_test_host() -> bool {
    std::env::var_os("BANGER_TEST_HOST").is_some_and(|v| v == "1")
}
