# shellcheck shell=bash
# Shared by quickstart, test, bench and soak: messages, time, and packages that never cost the machine another one.
# Sourced, never run; the caller has set ROOT. Everything a person reads goes to stderr; stdout belongs to the caller.

say() { printf '%s\n' "$*" >&2; }

# step WORDS…: a heading before something that takes long.
step() { printf '==> %s\n' "$*" >&2; }

# die WORDS…: what, why and the next command; then out.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# now_ms: milliseconds of the clock, for the breakdowns.
now_ms() { date +%s%3N; }

# seconds_since START_MS: elapsed time as "12.3".
seconds_since() {
    local ms=$(($(now_ms) - $1))
    printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

# Where programs live that could not be installed without removing others.
tools_dir() { printf '%s/banger/tools' "${XDG_DATA_HOME:-$HOME/.local/share}"; }

# as_root CMD…: runs CMD as root: directly, by sudo, or not at all (status 77).
# Without a terminal sudo must not ask, or the script would hang where nobody sees the question.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        if [ -t 0 ] && [ -t 2 ]; then sudo "$@"; else sudo -n "$@"; fi
    else
        return 77
    fi
}

can_be_root() { as_root true >/dev/null 2>&1; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# missing_packages PKG…: those that are not installed, one per line.
missing_packages() {
    local p
    for p in "$@"; do installed "$p" || printf '%s\n' "$p"; done
}

# apt_plan PKG…: apt's own simulation; needs no root.
apt_plan() { apt-get -s -o Debug::NoLocking=1 install --no-install-recommends "$@" 2>/dev/null; }

# would_remove PKG…: the packages that installing these would remove, one per line.
# Status 1 when apt cannot install them at all (unknown package, unmet dependency).
would_remove() {
    local plan
    plan=$(apt_plan "$@") || return 1
    printf '%s\n' "$plan" | sed -n 's/^Remv \([^ ]*\).*/\1/p'
}

# would_install PKG…: the packages that installing these would bring, one per line.
would_install() { apt_plan "$@" | sed -n 's/^Inst \([^ ]*\).*/\1/p'; }

# Package lists: a bare machine has none, so the first look-up that fails fetches them, once per run.
APT_UPDATED=${APT_UPDATED:-}
apt_update_once() {
    [ -z "$APT_UPDATED" ] || return 0
    APT_UPDATED=1
    step "apt-get update"
    as_root timeout 300 apt-get -q update >&2
}

apt_known() {
    apt_plan "$@" >/dev/null && return 0
    apt_update_once && apt_plan "$@" >/dev/null
}

# apt_get_install PKG…: the real thing. --no-remove is the second lock: apt itself refuses if the world
# changed since the simulation. A stale list (404) is fetched anew and the installation tried once more.
apt_get_install() {
    # Packages bring programs, and start no service here: invoke-rc.d believes in this runlevel.
    local run=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -y --no-remove -o Dpkg::Use-Pty=0
        install --no-install-recommends "$@")
    as_root timeout 1500 "${run[@]}" >&2 && return 0
    [ -z "$APT_UPDATED" ] || return 1
    apt_update_once && as_root timeout 1500 "${run[@]}" >&2
}

# install_packages PKG…: installs what is missing; refuses if that would remove a package.
install_packages() {
    local missing removed
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    can_be_root || die "missing packages: ${missing[*]}; neither root nor sudo here, so run: apt-get install ${missing[*]}"
    apt_known "${missing[@]}" || die "apt knows no way to install ${missing[*]}; see: apt-get -s install ${missing[*]}"
    removed=$(would_remove "${missing[@]}")
    [ -z "$removed" ] ||
        die "installing ${missing[*]} would remove ${removed//$'\n'/ }; nothing was done, decide yourself: apt-get install ${missing[*]}"
    step "installing ${missing[*]}"
    apt_get_install "${missing[@]}" || die "apt-get install ${missing[*]} failed (see above)"
}

# What building needs: a C compiler for the bundled SQLite, the static C library for the guest's agent.
# shellcheck disable=SC2034 # these are read by the scripts that source this
BUILD_PACKAGES=(gcc libc6-dev binutils ca-certificates curl)
# What banger itself needs to make its default image and its disks from Debian's packages (who is not root, also uidmap).
# shellcheck disable=SC2034
RUN_PACKAGES=(mmdebstrap e2fsprogs uidmap)
# What a kernel is built with, besides a compiler.
# shellcheck disable=SC2034
KERNEL_PACKAGES=(make flex bison bc libelf-dev zstd)
# shellcheck disable=SC2034
TEST_PACKAGES=(shellcheck iproute2 nftables util-linux dmsetup xfsprogs procps busybox-static openssh-client g++ umoci skopeo docker-registry attr libcap2-bin openssl)

# cargo_recent: cargo is on PATH and new enough for this workspace.
cargo_recent() {
    local want have
    want=$(rust_wanted)
    command -v cargo >/dev/null 2>&1 || return 1
    have=$(cargo --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ]
}

# rust_wanted: the oldest Rust this workspace builds with.
rust_wanted() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml"; }

# find_cargo: puts cargo on PATH. Debian 12's rustc is too old (1.63), but the one it keeps current for its
# browsers (cargo-web, rustc-web) is not; a toolchain from rustup is never replaced.
find_cargo() {
    local want version
    command -v cargo >/dev/null 2>&1 || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    cargo_recent && return 0
    want=$(rust_wanted)
    if ! command -v cargo >/dev/null 2>&1 && can_be_root; then
        apt_known cargo-web || true
        version=$(apt-cache policy cargo-web 2>/dev/null | sed -n 's/^ *Candidate: //p')
        if [ "$(printf '%s\n%s\n' "$want" "$version" | sort -V | head -n 1)" = "$want" ]; then
            install_packages cargo-web rustc-web
            cargo_recent && return 0
        fi
    fi
    die "Rust $want or newer is needed, and $(cargo --version 2>/dev/null || echo 'no cargo') is here. Get a toolchain, then run this again:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt,clippy
    (or, with rustup there: rustup update stable)"
}

# target_dir: where cargo builds.
target_dir() { printf '%s' "${CARGO_TARGET_DIR:-$ROOT/target}"; }
