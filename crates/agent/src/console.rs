//! The few words the agent says on the console: failures only.

use std::fs::OpenOptions;
use std::io::Write;

/// Prints one line on the console, or into the kernel's log if there is no console. Failure to do so is borne:
/// there is nobody left to tell.
pub fn say(message: &str) {
    let line = format!("banger-agent: {message}\n");
    for path in ["/dev/console", "/dev/kmsg"] {
        if let Ok(mut file) = OpenOptions::new().write(true).open(path)
            && file.write_all(line.as_bytes()).is_ok()
        {
            return;
        }
    }
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Makes a panic of PID 1 visible before the kernel panics over the end of init.
pub fn show_panics() {
    std::panic::set_hook(Box::new(|info| say(&format!("panicked: {info}"))));
}
