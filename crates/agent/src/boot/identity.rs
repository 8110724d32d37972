//! Who this guest is: host name, hosts, name servers.

use std::io;
use std::path::Path;

use banger_wire::guest::{BootFacts, Network};
use rustix::system::sethostname;

use super::Reason;

/// Tells the kernel the host name.
pub fn set_host_name(name: &str) -> Result<(), Reason> {
    sethostname(name.as_bytes()).map_err(|error| format!("host name {name:?} is refused: {error}"))
}

/// Writes `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` where they do not say the right thing yet. Gives a
/// sentence for each that could not be written.
pub fn write_files(facts: &BootFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut note = |file: &str, written: io::Result<()>| {
        if let Err(error) = written {
            warnings.push(format!("{file} cannot be written: {error}"));
        }
    };
    note(
        "/etc/hostname",
        replace("/etc/hostname", &format!("{}\n", facts.hostname)),
    );
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    note(
        "/etc/hosts",
        replace("/etc/hosts", &with_host(&hosts, &facts.hostname)),
    );
    if let Network::Static(network) = &facts.network
        && !network.dns.is_empty()
    {
        let lines = network
            .dns
            .iter()
            .map(|server| format!("nameserver {server}\n"));
        note(
            "/etc/resolv.conf",
            replace("/etc/resolv.conf", &lines.collect::<String>()),
        );
    }
    warnings
}

/// Adds what is missing to a hosts file and leaves what the user wrote.
fn with_host(hosts: &str, name: &str) -> String {
    let mut text = hosts.to_owned();
    let has = |text: &str, wanted: &str| {
        text.lines()
            .map(|line| line.split('#').next().unwrap_or(""))
            .any(|line| line.split_whitespace().skip(1).any(|host| host == wanted))
    };
    for (wanted, lines) in [
        (
            "localhost",
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned(),
        ),
        (name, format!("127.0.1.1 {name}\n")),
    ] {
        if !has(&text, wanted) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&lines);
        }
    }
    text
}

/// Makes a regular file with this content. A symbolic link there is replaced, not followed: an image's
/// `resolv.conf` often points to a file of a service that does not run.
fn replace(path: &str, content: &str) -> io::Result<()> {
    let path = Path::new(path);
    let is_file = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    if is_file && std::fs::read(path).is_ok_and(|found| found == content.as_bytes()) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if !is_file {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::write(path, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keep_what_the_user_wrote() {
        let made = with_host("", "dev");
        assert!(
            made.contains("127.0.0.1 localhost\n") && made.ends_with("127.0.1.1 dev\n"),
            "{made}"
        );
        assert_eq!(with_host(&made, "dev"), made);
        let own = "127.0.0.1 localhost # dev\n10.0.0.1 db";
        assert_eq!(with_host(own, "dev"), format!("{own}\n127.0.1.1 dev\n"));
    }

    #[test]
    fn links_are_replaced_and_equal_files_left() {
        let directory = std::env::temp_dir().join(format!("banger-agent-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("resolv.conf");
        std::os::unix::fs::symlink("/nonexistent/stub", &file).unwrap();
        replace(file.to_str().unwrap(), "nameserver 10.0.2.3\n").unwrap();
        assert!(std::fs::symlink_metadata(&file).unwrap().is_file());
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "nameserver 10.0.2.3\n"
        );
        let before = std::fs::metadata(&file).unwrap().modified().unwrap();
        replace(file.to_str().unwrap(), "nameserver 10.0.2.3\n").unwrap();
        assert_eq!(
            std::fs::metadata(&file).unwrap().modified().unwrap(),
            before
        );
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
