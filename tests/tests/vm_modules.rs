//! The kernel's modules in a guest (R-GUEST-8), and what container engines want of it.

use banger_testkit::{Home, skip};

/// Makes the root of a container in the guest: a shell, and what it calls.
const BOX: &str =
    "set -e; mkdir -p /tmp/c/bin; cp /bin/busybox /tmp/c/bin/; ln -s busybox /tmp/c/bin/sh";

/// The modules are there without a package of the image, are found by name and by alias, and load.
#[test]
fn the_guest_has_its_kernels_modules() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let loaded = home
        .guest_sh(
            "dev",
            "set -e; modprobe -a fuse br_netfilter nf_tables; modprobe fs-btrfs; modprobe ext4; \
             for m in fuse br_netfilter nf_tables btrfs; do [ -d /sys/module/$m ]; done; \
             modprobe --show-depends br_netfilter | wc -l; modinfo -F license fuse",
        )
        .exits(0);
    // stp and llc, bridge, br_netfilter.
    assert_eq!(loaded.out(), "4\nGPL");
    // Asked for by the kernel itself, when a node is opened that waits for its module.
    let opened = home.guest_sh(
        "dev",
        "stat -c '%n %a %t:%T' /dev/net/tun /dev/fuse; ls -d /sys/module/tun 2>&1; \
         : </dev/net/tun; ls -d /sys/module/tun",
    );
    assert_eq!(
        opened.exits(0).out(),
        "/dev/net/tun 666 a:c8\n/dev/fuse 666 a:e5\n\
         ls: cannot access '/sys/module/tun': No such file or directory\n/sys/module/tun"
    );
    // One disk for all VMs: nothing a guest does can change it.
    let written = home.guest_sh(
        "dev",
        "touch /lib/modules/$(uname -r)/x; mount -o remount,rw /lib/modules/$(uname -r); \
         dd if=/dev/zero of=/dev/vdd bs=512 count=1",
    );
    assert_ne!(written.status, 0);
    for refused in ["touch: ", "mount: ", "dd: "] {
        assert!(written.err().contains(refused), "{}", written.err());
    }
    home.finish();
}

/// A directory of modules that the image (or a user) has for this very kernel is not hidden.
#[test]
fn an_images_own_modules_stay() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let own = "r=$(uname -r); umount /lib/modules/$r && echo mine >/lib/modules/$r/own";
    home.guest_sh("dev", own).exits(0);
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["vm", "start", "dev"]).exits(0);
    let seen = home.guest_sh("dev", "cd /lib/modules/$(uname -r) && ls && cat own");
    assert_eq!(seen.exits(0).out(), "own\nmine");
    home.finish();
}

/// Directories of the base can be renamed, and where engines keep their overlays is no overlay.
#[test]
fn the_root_takes_what_engines_and_package_managers_do() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let done = home.guest_sh(
        "dev",
        "set -e; mv /usr/share/perl5 /usr/share/perl6; ls /usr/share/perl6 | head -n 1; \
         for e in docker containers containerd buildkit; do \
         d=/var/lib/$e; mkdir $d/l $d/u $d/w $d/m; echo lower >$d/l/f; \
         mount -t overlay o -o lowerdir=$d/l,upperdir=$d/u,workdir=$d/w $d/m; echo upper >$d/m/f; cat $d/u/f; umount $d/m; \
         done; cat /sys/fs/cgroup/cgroup.controllers",
    );
    let said = done.exits(0).out();
    assert!(said.contains("upper\nupper\nupper\nupper\n"), "{said}");
    assert!(said.ends_with("misc") && said.contains("memory"), "{said}");
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["vm", "start", "dev"]).exits(0);
    let kept = "cat /var/lib/docker/u/f; ls -d /usr/share/perl?";
    let kept = home.guest_sh("dev", kept).exits(0);
    assert_eq!(kept.out(), "upper\n/usr/share/perl6");
    home.finish();
}

/// Podman of Debian's packages runs a container made without a network, on its own bridge, with native overlays.
#[test]
fn podman_runs_a_container() {
    let home = Home::new();
    let image = match home.share_servers_image() {
        Ok(image) => image,
        Err(why) => return skip(&why),
    };
    home.banger(&["vm", "create", "--name", "dev", "--image", image])
        .exits(0);
    let made = home.guest_sh(
        "dev",
        &format!("{BOX}; tar -C /tmp/c -c . | podman import - box; podman info -f '{{{{.Store.GraphDriverName}}}}'"),
    );
    let said = made.exits(0).out();
    assert!(said.ends_with("overlay"), "{said}");
    let ran = home.guest_sh(
        "dev",
        "podman run --rm -v /etc/hostname:/h:ro box sh -c \
         'busybox cat /h; busybox ip -4 -o addr show eth0; echo said >/f; busybox cat /f; exit 7'",
    );
    let said = ran.exits(7).out();
    assert!(
        said.starts_with("dev\n") && said.ends_with("said"),
        "{said}"
    );
    assert!(said.contains("inet 10.88."), "{said}");
    home.finish();
}

/// Docker of Debian's packages does the same: native overlays, its own bridge, limits by control groups.
#[test]
#[ignore = "a minute for what Podman shows as well; ./soak runs it"]
fn docker_runs_a_container() {
    let home = Home::new();
    let image = match home.share_docker_image() {
        Ok(image) => image,
        Err(why) => return skip(&why),
    };
    home.banger(&["vm", "create", "--name", "dev", "--image", image])
        .exits(0);
    let made = home.guest_sh(
        "dev",
        &format!("{BOX}; setsid dockerd >/root/log 2>&1 </dev/null & \
         n=0; until grep -q 'API listen' /root/log; do n=$((n + 1)); [ $n -lt 120 ] || {{ cat /root/log; exit 9; }}; sleep 1; done; \
         tar -C /tmp/c -c . | docker import - box >/dev/null; grep -o 'graphdriver(s)=[a-z0-9]*' /root/log"),
    );
    assert_eq!(made.exits(0).out(), "graphdriver(s)=overlay2");
    let ran = home.guest_sh(
        "dev",
        "docker run --rm --memory 64m -v /etc/hostname:/h:ro box sh -c 'busybox cat /h /sys/fs/cgroup/memory.max; \
         busybox ip -4 -o addr show eth0; echo said >/f; busybox cat /f; exit 7'",
    );
    let said = ran.exits(7).out();
    assert!(
        said.starts_with("dev\n67108864\n") && said.ends_with("said"),
        "{said}"
    );
    assert!(said.contains("inet 172.17."), "{said}");
    home.finish();
}
