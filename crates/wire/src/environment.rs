//! The environment of the daemon: what the command line hands on, and what the daemon keeps of what it was given.

/// Where the state is.
pub const STATE_DIR: &str = "BANGER_STATE_DIR";
/// Where the sockets are.
pub const RUNTIME_DIR: &str = "BANGER_RUNTIME_DIR";
/// Which file the configuration is.
pub const CONFIG: &str = "BANGER_CONFIG";
/// The variables that say which instance is meant (R-PROG-6).
pub const PLACES: [&str; 3] = [STATE_DIR, RUNTIME_DIR, CONFIG];

/// The variables a daemon may have of its caller's environment (R-PROG-5). They say where things are or how to reach
/// a mirror; none changes how a program works. A `GIT_DIR` from a hook, an `LD_PRELOAD`, a `TMPDIR` that goes away do
/// not come along.
pub const INHERITED: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    STATE_DIR,
    RUNTIME_DIR,
    CONFIG,
    // Of test builds; a release build of the daemon reads neither.
    "BANGER_CRASH_AT",
    "BANGER_EFFECT_LOG",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
