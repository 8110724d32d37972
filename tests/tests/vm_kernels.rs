//! Kernels in VMs (R-IMG-7).

use banger_testkit::{Home, Run, Running, in_own_mounts, kernel::vmlinux, skip, wait_until};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// A build on a machine that others use too.
const BUILD: Duration = Duration::from_secs(3 * 3600);
/// Fetching and unpacking 139 MB of source.
const FETCH: Duration = Duration::from_secs(600);

/// The kernel that every test boots, given as a directory: it boots under its new name, with its modules, and stays as
/// long as the VM is there.
#[test]
fn an_imported_kernel_boots_and_stays_while_a_vm_has_it() {
    let home = Home::new();
    let dir = home.scratch().join("kernel");
    let shelf = home.state().join("kernels/debian-cloud");
    fs::create_dir_all(dir.join("modules")).expect("a directory");
    for file in ["vmlinux", "modules.builtin"] {
        fs::copy(shelf.join(file), dir.join(file)).expect("a copy");
    }
    for module in fs::read_dir(shelf.join("modules"))
        .expect("modules")
        .flatten()
    {
        // Packed, as newer distributions have them.
        let packed = fs::read(module.path()).expect("a module");
        let packed = zstd::bulk::compress(&packed, 1).expect("packed");
        let name = format!("{}.zst", module.file_name().display());
        fs::write(dir.join("modules").join(name), packed).expect("a module");
    }
    let source = dir.to_str().expect("UTF-8");
    home.banger(&["kernel", "import", source, "--name", "mine"])
        .exits(0);
    let shown = home.banger(&["kernel", "show", "mine", "debian-cloud", "--json"]);
    let shown = shown.exits(0).json();
    assert_eq!(shown[0]["digest"], shown[1]["digest"]);
    assert_eq!(shown[0]["release"], shown[1]["release"]);

    let args = [
        "vm", "create", "--name", "dev", "--kernel", "mine", "--json",
    ];
    let vm = home.banger(&args).exits(0).json();
    assert_eq!(vm["kernel"], "mine");
    let release = home.guest_sh(
        "dev",
        "uname -r; ls /lib/modules/$(uname -r)/modules.dep.bin",
    );
    let release = release.exits(0).out();
    let said = shown[0]["release"].as_str().expect("a release");
    assert_eq!(
        release,
        format!("{said}\n/lib/modules/{said}/modules.dep.bin")
    );
    let kept = home.banger(&["kernel", "delete", "mine"]).exits(125).err();
    assert!(
        kept.contains("that of the VMs dev") && kept.contains("banger vm delete dev"),
        "{kept}"
    );
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.banger(&["kernel", "delete", "mine"]).exits(0);
    home.finish();
}

/// What a VM starts from is one kernel: another one that is to take its place waits until the VM runs.
#[test]
fn a_kernel_is_not_replaced_while_a_vm_starts_from_it() {
    let home = Home::new();
    let shelf = home.state().join("kernels/debian-cloud");
    let source = home.scratch().join("kernel");
    fs::create_dir_all(source.join("modules")).expect("a directory");
    fs::copy(shelf.join("vmlinux"), source.join("vmlinux")).expect("a copy");
    for module in fs::read_dir(shelf.join("modules"))
        .expect("modules")
        .flatten()
    {
        fs::copy(
            module.path(),
            source.join("modules").join(module.file_name()),
        )
        .expect("a copy");
    }
    let source = source.to_str().expect("UTF-8");
    home.banger(&["kernel", "import", source, "--name", "mine"])
        .exits(0);
    home.banger(&["vm", "create", "--name", "dev", "--kernel", "mine"])
        .exits(0);
    home.banger(&["vm", "stop", "dev"]).exits(0);

    let other = home.scratch().join("other");
    fs::write(&other, vmlinux("6.99.1-other", true)).expect("another kernel");
    let starting = home.start(&["vm", "start", "dev"], b"");
    wait_until("the VM to start", Duration::from_secs(30), || {
        let state = home.show("dev")["state"].clone();
        match state == "starting" {
            true => Ok(()),
            false => Err(state.to_string()),
        }
    });
    let other = other.to_str().expect("UTF-8");
    let args = ["kernel", "import", other, "--name", "mine", "--replace"];
    home.banger(&args).exits(0);
    assert_eq!(
        home.show("dev")["state"],
        "running",
        "it waited for the start"
    );
    starting.finish().exits(0);
    home.guest_sh(
        "dev",
        "ls /lib/modules/$(uname -r)/modules.dep.bin; uname -r",
    )
    .exits(0);
    let shown = home.banger(&["kernel", "show", "mine", "--json"]).exits(0);
    assert_eq!(shown.json()[0]["release"], "6.99.1-other");
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.finish();
}

/// Builds banger's own kernel; the digest of its ELF.
fn build(home: &Home) -> String {
    let building = home.start(&["kernel", "build", "--json"], b"");
    let built = building.finish_within(BUILD).exits(0).json();
    assert_eq!(built["name"], "banger");
    assert_eq!(built["default"], true);
    assert_eq!(built["modules"], false);
    assert_eq!(built["missing"], serde_json::json!([]));
    built["digest"].as_str().expect("a digest").to_owned()
}

/// What is kept of builds.
fn kept(home: &Home) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(home.state().join("templates"))
        .expect("templates")
        .flatten();
    let paths = files.map(|file| file.path());
    paths
        .filter(|path| path.to_string_lossy().contains("/vmlinux-"))
        .collect()
}

/// The same source gives the same bytes; a kernel that was built once comes back at once; a build that is cancelled, or
/// whose daemon is killed, leaves nothing.
#[test]
#[ignore = "two builds of a kernel; ./soak runs it"]
fn the_own_kernel_is_built_alike_and_leaves_nothing() {
    let home = Home::new();
    let forget = || {
        for file in kept(&home) {
            fs::remove_file(file).expect("forgetting what was built");
        }
    };
    forget();
    let rests = || {
        let entries = fs::read_dir(home.state().join("kernels"))
            .expect("kernels")
            .flatten();
        let names = entries.map(|entry| entry.file_name().display().to_string());
        names
            .filter(|name| name.starts_with('.'))
            .collect::<Vec<_>>()
    };
    let begun = |what: &str| match rests().iter().any(|name| name.starts_with(what)) {
        true => Ok(()),
        false => Err(format!("{:?}", rests())),
    };
    let cleared = || match &rests()[..] {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    };
    for killed in [false, true] {
        let building = home.start(&["kernel", "build"], b"");
        wait_until("the source to be unpacked", FETCH, || begun(".build-"));
        if killed {
            home.kill_daemon();
        } else {
            let running = home
                .banger(&["operation", "list", "--json"])
                .exits(0)
                .json();
            let mut all = running.as_array().expect("operations").iter();
            let id = all.rfind(|o| o["method"] == "kernel.build");
            let id = id.and_then(|o| o["id"].as_str()).expect("the build");
            home.banger(&["operation", "cancel", id]).exits(0);
        }
        assert_ne!(building.finish_within(FETCH).status, 0);
        home.banger(&["kernel", "list"]).exits(0);
        wait_until("the rests to be cleared", FETCH, cleared);
    }
    let first = build(&home);
    home.banger(&["kernel", "delete", "banger"]).exits(0);
    let began = Instant::now();
    assert_eq!(build(&home), first);
    assert!(
        began.elapsed() < FETCH,
        "what was built is kept: {:?}",
        began.elapsed()
    );
    home.banger(&["kernel", "delete", "banger"]).exits(0);
    forget();
    assert_eq!(build(&home), first, "the same source gives the same bytes");
    // Removing so many files goes on behind the answer.
    wait_until("the rests to be cleared", FETCH, cleared);
    home.finish();
}

/// Everything that guests are made for works on our own kernel: systemd comes up whole, docker runs a container on its
/// own bridge with native overlays, nftables, vsock and VMGENID are there.
#[test]
#[ignore = "a build of a kernel; ./soak runs it"]
fn the_own_kernel_carries_systemd_and_docker() {
    let home = Home::new();
    build(&home);
    let (systemd, docker) = match (home.share_systemd_image(), home.share_docker_image()) {
        (Ok(systemd), Ok(docker)) => (systemd, docker),
        (Err(why), _) | (_, Err(why)) => return skip(&why),
    };
    let create = [
        "vm", "create", "--name", "s", "--image", systemd, "--init", "image",
    ];
    home.banger(&create).exits(0);
    assert_eq!(home.show("s")["kernel"], "banger");
    wait_until("systemd to be up", Duration::from_secs(110), || {
        let said = home
            .guest_sh("s", "systemctl is-system-running --wait")
            .out();
        if said == "running" { Ok(()) } else { Err(said) }
    });
    let address = home.guest_sh("s", "ip -4 -o addr show eth0").exits(0).out();
    assert!(address.contains("10.0.2.15/24"), "{address}");
    home.banger(&["vm", "delete", "--force", "s"]).exits(0);

    home.banger(&["vm", "create", "--name", "d", "--image", docker])
        .exits(0);
    let there = "ls -l /dev/vsock /dev/fuse /dev/net/tun; zcat /proc/config.gz | grep -c -e CONFIG_VMGENID=y -e CONFIG_NF_TABLES=y; \
                 stat -f -c %T /";
    let there = home.guest_sh("d", there).exits(0).out();
    assert!(
        there.ends_with("2\noverlayfs") && there.contains("crw-rw-rw-"),
        "{there}"
    );
    let engine = "set -e; mkdir -p /tmp/c/bin; cp /bin/busybox /tmp/c/bin/; ln -s busybox /tmp/c/bin/sh; \
         setsid dockerd >/root/log 2>&1 </dev/null & \
         n=0; until grep -q 'API listen' /root/log; do n=$((n + 1)); [ $n -lt 120 ] || { cat /root/log; exit 9; }; sleep 1; done; \
         tar -C /tmp/c -c . | docker import - box >/dev/null; grep -o 'graphdriver(s)=[a-z0-9]*' /root/log";
    assert_eq!(
        home.guest_sh("d", engine).exits(0).out(),
        "graphdriver(s)=overlay2"
    );
    let ran = home.guest_sh(
        "d",
        "docker run --rm --memory 64m box sh -c 'busybox cat /sys/fs/cgroup/memory.max; busybox ip -4 -o addr show eth0; exit 7'",
    );
    let said = ran.exits(7).out();
    assert!(
        said.starts_with("67108864\n") && said.contains("inet 172.17."),
        "{said}"
    );
    home.finish();
}

/// Runs banger where the machine's package sources are those of this directory.
fn with_sources(home: &Home, sources: &Path, args: &[&str]) -> Run {
    const ENTER: &str = "set -e; mount --bind \"$1\" /etc/apt/sources.list.d
        [ ! -e /etc/apt/sources.list ] || mount --bind /dev/null /etc/apt/sources.list
        shift; exec \"$@\"";
    let banger = home.command(args);
    let mut command = in_own_mounts(ENTER);
    let told = banger.get_envs();
    command
        .arg(sources)
        .arg(banger.get_program())
        .args(banger.get_args())
        .envs(told.filter_map(|(name, value)| Some((name, value?))));
    Running::start(command, b"").finish_within(FETCH)
}

/// Debian's oldest release with a mirror, its newest, and what is being made: each kernel is fetched by apt as on a machine of
/// that release, and reads every file of an image as the kernel does that the image was made beside.
#[test]
#[ignore = "fetches kernels of other releases from Debian's mirrors; ./soak runs it"]
fn kernels_of_debians_oldest_and_newest_release_boot() {
    if !rustix::process::geteuid().is_root() {
        return skip("other package sources take mounts, and so root");
    }
    let home = Home::new();
    let all = "uname -r; cd /usr && find . -xdev -path ./lib/modules -prune -o -type f -print0 | LC_ALL=C sort -z | \
               xargs -0 sha256sum | sha256sum";
    let run = |kernel: &str| {
        let args = [
            "vm", "run", "--rm", "--kernel", kernel, "--", "sh", "-c", all,
        ];
        let said = home.start(&args, b"").finish_within(FETCH).exits(0).out();
        let (release, digest) = said.split_once('\n').expect("two lines");
        (release.to_owned(), digest.to_owned())
    };
    let (_, wanted) = run("debian-cloud");
    let mut releases = Vec::new();
    for suite in ["bullseye", "trixie", "sid"] {
        let sources = home.scratch().join(suite);
        fs::create_dir(&sources).expect("a directory");
        let mirror = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian";
        fs::write(
            sources.join("its.list"),
            format!("deb {mirror} {suite} main\n"),
        )
        .expect("sources");
        // The daemon is in the mounts of who starts it.
        home.banger(&["daemon", "stop"]).exits(0);
        let pull = ["kernel", "pull", "linux-image-cloud-amd64", "--name", suite];
        with_sources(&home, &sources, &pull).exits(0);
        let (release, digest) = run(suite);
        assert_eq!(digest, wanted, "{suite}, {release}");
        releases.push(release);
    }
    eprintln!("{releases:?}");
    releases.dedup();
    assert_eq!(releases.len(), 3, "{releases:?}");
    home.finish();
}
