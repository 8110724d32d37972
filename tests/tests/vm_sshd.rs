//! The image's own sshd: keys, settings, and what health says of them (R-GUEST-3, R-GUEST-4).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use banger_testkit::{Home, Run, Running, skip};
use std::{fs, process::Command};

/// The user's own `ssh` to the sshd of VM `dev`, as `ssh-config` says it is to be reached.
fn ssh(home: &Home, args: &[&str]) -> Run {
    let config = home.scratch().join("config");
    fs::write(&config, home.banger(&["ssh-config"]).exits(0).stdout).expect("a configuration");
    let text = fs::read_to_string(&config).expect("a configuration");
    let proxy = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("ProxyCommand "));
    let proxy = format!("ProxyCommand={} 22", proxy.expect("a ProxyCommand"));
    let mut command = Command::new("ssh");
    command
        .arg("-F")
        .arg(config)
        .args(["-o", &proxy])
        .args(args);
    Running::start(command, b"").finish()
}

fn warnings(home: &Home) -> String {
    let said = home.banger(&["vm", "health", "dev", "--json"]).exits(0);
    said.json()[0]["warnings"].to_string()
}

/// The user's `ssh`, with our key and with nothing but the pinned host key taken, reaches the image's sshd; all of it is the
/// same after a stop and a start; what the user changes is kept, and told where it undoes ours.
#[test]
fn an_images_sshd_is_set_up_and_reached() {
    if Command::new("ssh").arg("-V").output().is_err() {
        return skip("no ssh here: apt install openssh-client");
    }
    let home = Home::new();
    let image = match home.share_servers_image() {
        Ok(image) => image,
        Err(why) => return skip(&why),
    };
    home.banger(&["vm", "create", "--name", "dev", "--image", image])
        .exits(0);
    let start = "/usr/sbin/sshd && cat /etc/ssh/ssh_host_ed25519_key.pub";
    let key = home.guest_sh("dev", start).exits(0).out();
    let public = fs::read_to_string(home.state().join("ssh/id_ed25519.pub")).expect("a key");
    let seen = home.guest_sh(
        "dev",
        "stat -c '%U:%G %a' /root /root/.ssh; cat /etc/ssh/sshd_config.d/99-banger.conf; cat /root/.ssh/authorized_keys",
    );
    let settings = "PermitRootLogin prohibit-password\nPubkeyAuthentication yes\nPasswordAuthentication no\n\
                    KbdInteractiveAuthentication no\nAuthorizedKeysFile /root/.ssh/authorized_keys\n";
    let wanted = format!(
        "root:root 755\nroot:root 700\n{settings}{}",
        public.trim_end()
    );
    assert_eq!(seen.exits(0).out(), wanted);
    // It is the sshd that answers, and its key is the one that is pinned for the VM.
    let reached = ssh(&home, &["dev.vm", "echo \"${SSH_CONNECTION:?}\"; exit 42"]);
    assert!(reached.exits(42).out().ends_with(" 22"));
    let pins = fs::read_to_string(home.state().join("ssh/known_hosts")).expect("pins");
    assert!(
        pins.contains("dev.vm,") && pins.contains(&key),
        "{key}: {pins}"
    );
    let verb = home.banger(&["vm", "ssh", "--sshd", "dev", "--", "cat /proc/$PPID/comm"]);
    assert_eq!(verb.exits(0).out(), "sshd");
    let password = [
        "-o",
        "PubkeyAuthentication=no",
        "-o",
        "BatchMode=yes",
        "dev.vm",
        "true",
    ];
    let refused = ssh(&home, &password).exits(255).err();
    assert!(
        refused.contains("Permission denied (publickey)"),
        "{refused}"
    );
    assert_eq!(warnings(&home), "[]");

    // What the user changes: settings that come first, keys, and rights that sshd would not have.
    home.guest_sh(
        "dev",
        "set -e; cd /etc/ssh; echo PasswordAuthentication yes >sshd_config.d/01-mine.conf; rm ssh_host_ed25519_key*; \
         ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key; cd /root/.ssh; sed -i 's/banger$/mine/' authorized_keys; \
         echo 'ssh-rsa AAAA= me' >>authorized_keys; chmod 777 . ..; chmod 666 *; chown 1:1 . ..",
    )
    .exits(0);
    let told = warnings(&home);
    assert!(
        told.contains("PasswordAuthentication is yes, not no"),
        "{told}"
    );
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["vm", "start", "dev"]).exits(0);
    assert_eq!(
        home.guest_sh("dev", start).exits(0).out(),
        key,
        "the VM is who it was"
    );
    let kept = home.guest_sh(
        "dev",
        "stat -c '%U:%G %a' /root /root/.ssh; cd /root/.ssh; stat -c '%a %n' *; cat authorized_keys",
    );
    let edited = public.trim_end().replace(" banger", " mine");
    let wanted = format!(
        "root:root 755\nroot:root 700\n600 authorized_keys\n600 ssh_host_ed25519_key\n644 ssh_host_ed25519_key.pub\n\
         {edited}\nssh-rsa AAAA= me"
    );
    assert_eq!(kept.exits(0).out(), wanted);
    assert_eq!(
        ssh(&home, &["dev.vm", "echo again"]).exits(0).out(),
        "again"
    );
    home.finish();
}
