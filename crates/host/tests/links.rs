//! Taps and bridges, each test in a network namespace of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use banger_host::{ErrorKind, LinkSeen, Links, linux::LinuxHost};
use banger_model::{Label, Owner, Role, TapName};
use common::{in_namespace, label, run};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const PLAY: &str = "BANGER_TEST_PLAY";

/// Not a test: a daemon that makes and deletes one tap until it is killed.
#[test]
fn helper() {
    let Ok(label) = std::env::var(PLAY) else {
        return;
    };
    let (host, label) = (common::host(Path::new("/")), label.parse().unwrap());
    println!("\nready");
    std::io::stdout().flush().unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while std::time::Instant::now() < until {
        host.tap_create(&name(&label), &label, 0).unwrap();
        host.link_delete(&name(&label), &label).unwrap();
    }
}

fn host() -> LinuxHost {
    common::host(Path::new("/"))
}

fn name(label: &Label) -> TapName {
    TapName::of_vm(label.vm_id().unwrap())
}

fn seen(host: &LinuxHost, name: &str) -> Option<LinkSeen> {
    host.links().unwrap().into_iter().find(|l| l.name == name)
}

fn attribute(link: &str, name: &str) -> String {
    fs::read_to_string(format!("/sys/class/net/{link}/{name}"))
        .unwrap()
        .trim()
        .to_owned()
}

fn bridge_label(of: &Label) -> Label {
    Label {
        owner: Owner::Pool,
        role: Role::BridgePort,
        ..*of
    }
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

#[test]
fn a_tap_is_labelled_persistent_and_its_owners() {
    needs_root!("a_tap_is_labelled_persistent_and_its_owners");
    in_namespace(|| {
        let (host, label) = (host(), label(Role::Tap));
        let tap = name(&label);
        host.tap_create(&tap, &label, 4711).unwrap();
        let link = seen(&host, tap.as_str()).unwrap();
        assert_eq!((link.alias, link.master), (label.to_string(), None));
        assert_eq!(attribute(tap.as_str(), "owner"), "4711");
        let again = host.tap_create(&tap, &label, 4711).unwrap_err();
        assert_eq!(again.kind, ErrorKind::Exists);
        let other = common::label(Role::Tap);
        for error in [
            host.tap_create(&tap, &other, 0).unwrap_err(),
            host.link_delete(&tap, &other).unwrap_err(),
            host.set_master(&tap, &other, "lo").unwrap_err(),
            host.clear_master(&tap, &other).unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Foreign, "{error}");
        }
        // The other tests fork, and a child holds a copy of every descriptor until its exec.
        common::eventually("the tap is let go", || {
            match host.link_delete(&tap, &label) {
                Err(error) if error.kind == ErrorKind::Busy => false,
                deleted => deleted.map(|()| true).unwrap(),
            }
        });
        assert_eq!(seen(&host, tap.as_str()), None);
        let gone = host.link_delete(&tap, &label).unwrap_err();
        assert_eq!(gone.kind, ErrorKind::NotFound);
    });
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the daemon of this test is not one of ours"
)]
fn a_tap_maker_killed_anywhere_leaves_no_tap_without_label() {
    needs_root!("a_tap_maker_killed_anywhere_leaves_no_tap_without_label");
    in_namespace(|| {
        let (host, label) = (host(), label(Role::Tap));
        let tap = name(&label);
        let (mut left, mut none) = (0, 0);
        for round in 0..60_u64 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "helper", "--nocapture"])
                .env(PLAY, label.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap() == "ready"));
            // Spread over one cycle of making and deleting, which takes some milliseconds.
            std::thread::sleep(Duration::from_micros(round * 397 % 10_000));
            child.kill().unwrap();
            child.wait().unwrap();
            match seen(&host, tap.as_str()) {
                None => none += 1,
                Some(link) => {
                    assert_eq!(link.alias, label.to_string(), "a tap that nobody will find");
                    host.link_delete(&tap, &label).unwrap();
                    left += 1;
                }
            }
        }
        println!("killed 60 times: {left} labelled taps left, {none} times none");
    });
}

#[test]
fn a_tap_that_cannot_be_labelled_is_not_left_behind() {
    needs_root!("a_tap_that_cannot_be_labelled_is_not_left_behind");
    in_namespace(|| {
        use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
        let (host, label) = (host(), label(Role::Tap));
        // Labels are written through sysfs: hidden, that step fails, and what came before shows.
        mount("tmpfs", "/sys", "tmpfs", MountFlags::empty(), None).unwrap();
        let error = host.tap_create(&name(&label), &label, 0).unwrap_err();
        unmount("/sys", UnmountFlags::empty()).unwrap();
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert_eq!(seen(&host, name(&label).as_str()), None);
    });
}

#[test]
fn ports_are_isolated_and_half_made_ones_are_none_yet() {
    needs_root!("ports_are_isolated_and_half_made_ones_are_none_yet");
    in_namespace(|| {
        let (host, label) = (host(), label(Role::Tap));
        let tap = name(&label);
        host.tap_create(&tap, &label, 0).unwrap();
        let error = host.set_master(&tap, &label, "br-test").unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoDevice);
        host.bridge_create("br-test", &bridge_label(&label), GATEWAY, 24)
            .unwrap();
        // Whoever died after the first step.
        run(
            &host,
            "ip",
            &["link", "set", tap.as_str(), "master", "br-test"],
        );
        assert_eq!(seen(&host, tap.as_str()).unwrap().master, None);
        host.set_master(&tap, &label, "br-test").unwrap();
        let master = seen(&host, tap.as_str()).unwrap().master;
        assert_eq!(master.as_deref(), Some("br-test"));
        assert_eq!(attribute(tap.as_str(), "brport/isolated"), "1");
        host.set_master(&tap, &label, "br-test").unwrap();
        host.clear_master(&tap, &label).unwrap();
        assert_eq!(seen(&host, tap.as_str()).unwrap().master, None);
        host.clear_master(&tap, &label).unwrap();
        // A port goes with its tap, a bridge with its ports on.
        host.set_master(&tap, &label, "br-test").unwrap();
        host.link_delete(&tap, &label).unwrap();
        host.bridge_delete("br-test", &bridge_label(&label))
            .unwrap();
        assert_eq!(seen(&host, "br-test"), None);
    });
}

#[test]
fn isolated_guests_hear_the_host_and_not_each_other() {
    needs_root!("isolated_guests_hear_the_host_and_not_each_other");
    in_namespace(|| {
        let (host, label) = (host(), label(Role::Tap));
        host.bridge_create("br-test", &bridge_label(&label), GATEWAY, 24)
            .unwrap();
        let taps: Vec<_> = (0..2)
            .map(|_| {
                let label = Label {
                    owner: Owner::Vm(common::vm()),
                    ..label
                };
                host.tap_create(&name(&label), &label, 0).unwrap();
                host.set_master(&name(&label), &label, "br-test").unwrap();
                name(&label)
            })
            .collect();
        let guests: Vec<_> = taps.iter().map(|tap| guest::open(tap.as_str())).collect();
        let flags = |tap: &TapName| attribute(tap.as_str(), "brport/state");
        common::eventually("both ports forward", || {
            taps.iter().all(|t| flags(t) == "3")
        });
        // An ethernet broadcast of a type nobody speaks.
        let frame = [
            &[0xff_u8; 6][..],
            &[2, 0, 0, 0, 0, 1],
            &[0x88, 0xb5],
            &[7; 50],
        ]
        .concat();
        let before: u64 = attribute("br-test", "statistics/rx_packets")
            .parse()
            .unwrap();
        guest::send(&guests[0], &frame);
        common::eventually("the host hears the frame", || {
            attribute("br-test", "statistics/rx_packets")
                .parse::<u64>()
                .unwrap()
                > before
        });
        assert!(
            !guest::heard(&guests[1], &frame),
            "the other guest heard it"
        );
        // The probe can hear: without isolation the same frame arrives.
        for tap in &taps {
            fs::write(format!("/sys/class/net/{tap}/brport/isolated"), "0").unwrap();
        }
        guest::send(&guests[0], &frame);
        common::eventually("it arrives without isolation", || {
            guest::heard(&guests[1], &frame)
        });
    });
}

/// The VMM's end of a tap.
mod guest {
    use rustix::ioctl::{Updater, ioctl};
    use std::{
        fs::{File, OpenOptions},
        io::{Read, Write},
        os::unix::fs::OpenOptionsExt,
    };

    pub fn open(tap: &str) -> File {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/net/tun")
            .unwrap();
        let mut request = [0_u8; 40]; // struct ifreq
        request[..tap.len()].copy_from_slice(tap.as_bytes());
        request[16..18].copy_from_slice(&0x5002_u16.to_ne_bytes()); // TAP | NO_PI | VNET_HDR
        // SAFETY: TUNSETIFF reads and writes a struct ifreq.
        unsafe { ioctl(&file, Updater::<0x4004_54ca, [u8; 40]>::new(&mut request)) }.unwrap();
        file
    }

    /// Behind an empty `struct virtio_net_hdr` of 10 bytes.
    pub fn send(mut tap: &File, frame: &[u8]) {
        tap.write_all(&[&[0; 10], frame].concat()).unwrap();
    }

    /// Whether this frame is among what has come so far.
    pub fn heard(mut tap: &File, frame: &[u8]) -> bool {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut buffer = [0; 2048];
        while let Ok(n) = tap.read(&mut buffer) {
            if buffer[10..n].starts_with(frame) {
                return true;
            }
        }
        false
    }
}

#[test]
fn a_bridge_is_whole_or_not_ours_yet() {
    needs_root!("a_bridge_is_whole_or_not_ours_yet");
    in_namespace(|| {
        let (host, label) = (host(), bridge_label(&label(Role::Tap)));
        // Whoever died before the bridge had its label.
        let draft = format!("bgr-{}", label.instance);
        run(&host, "ip", &["link", "add", &draft, "type", "bridge"]);
        host.bridge_create("br-test", &label, GATEWAY, 20).unwrap();
        assert_eq!(seen(&host, &draft), None);
        assert_eq!(seen(&host, "br-test").unwrap().alias, label.to_string());
        let address = run(
            &host,
            "ip",
            &["-o", "-4", "address", "show", "dev", "br-test"],
        );
        assert!(address.contains("172.16.0.1/20"), "{address}");
        let mac = attribute("br-test", "address");
        // Whoever died before it was up.
        run(&host, "ip", &["link", "set", "br-test", "down"]);
        let again = host
            .bridge_create("br-test", &label, GATEWAY, 20)
            .unwrap_err();
        assert_eq!(again.kind, ErrorKind::Exists);
        let link = run(&host, "ip", &["-o", "link", "show", "dev", "br-test"]);
        assert!(link.contains(",UP"), "{link}");
        // Its address does not follow its ports.
        let port = Label {
            owner: Owner::Vm(common::vm()),
            role: Role::Tap,
            ..label
        };
        host.tap_create(&name(&port), &port, 0).unwrap();
        host.set_master(&name(&port), &port, "br-test").unwrap();
        assert_eq!(attribute("br-test", "address"), mac);
        let other = bridge_label(&common::label(Role::Tap));
        for error in [
            host.bridge_create("br-test", &other, GATEWAY, 24)
                .unwrap_err(),
            host.bridge_delete("br-test", &other).unwrap_err(),
            host.bridge_create("lo", &label, GATEWAY, 24).unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Foreign, "{error}");
        }
        host.bridge_delete("br-test", &label).unwrap();
        let gone = host.bridge_delete("br-test", &label).unwrap_err();
        assert_eq!(gone.kind, ErrorKind::NotFound);
    });
}
