//! The few words the agent says on the console: that the guest is up, how it ends, and failures.

use std::fs::OpenOptions;
use std::io::Write;

use banger_wire::guest::last_word::AGENT;

/// Prints one line on the console, or into the kernel's log if there is no console. Failure to do so is borne:
/// there is nobody left to tell.
pub fn say(message: &str) {
    let line = format!("{AGENT}{message}\n");
    for path in ["/dev/console", "/dev/kmsg"] {
        if let Ok(mut file) = OpenOptions::new().write(true).open(path)
            && file.write_all(line.as_bytes()).is_ok()
        {
            return;
        }
    }
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Prints one line on the console and waits until it is there, as long as that takes a serial line.
pub fn say_first(message: &str) {
    say(message);
    if let Ok(console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = rustix::termios::tcdrain(console);
    }
}

/// Prints one line on the console that is there before the machine ends: the kernel writes it out at once, which a
/// terminal does not.
pub fn say_now(message: &str) {
    let emergency = format!("<0>{AGENT}{message}\n");
    let kernel = OpenOptions::new().write(true).open("/dev/kmsg");
    if kernel
        .and_then(|mut log| log.write_all(emergency.as_bytes()))
        .is_err()
    {
        say(message);
    }
}

/// Makes a panic of PID 1 visible before the kernel panics over the end of init.
pub fn show_panics() {
    std::panic::set_hook(Box::new(|info| say(&format!("panicked: {info}"))));
}
