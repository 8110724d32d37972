# shellcheck shell=bash
# The tiers of ./test: what each runs and how its results are counted. Sourced by ./test, which sets ROOT,
# WORK (a private directory), FILTER and BANGER_SKIPPED.

START=$(now_ms)
PASSED=0
FAILED=0
ROWS=()
FAILURES=()

# prepare: what the tests need on the machine.
prepare() {
    local t nextest=cargo-nextest
    t=$(now_ms)
    install_packages "${BUILD_PACKAGES[@]}" "${RUN_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
    "$ROOT/scripts/install-qemu" >/dev/null
    find_cargo
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    NEXTEST=
    if command -v "$nextest" >/dev/null 2>&1; then NEXTEST=1; fi
    row prepare "" "" "" "$(seconds_since "$t")"
}

row() { ROWS+=("$(printf '%-10s %8s %8s %8s %9s s' "$@")"); }

skip() { printf '%s\n' "$*" >>"$BANGER_SKIPPED"; }

skipped() { wc -l <"$BANGER_SKIPPED"; }

# check NAME CMD…: one command that counts as one test.
check() {
    local name=$1
    shift
    step "$name: $*"
    if "$@" </dev/null >&2; then
        PASSED=$((PASSED + 1))
    else
        FAILED=$((FAILED + 1))
        FAILURES+=("$name: $*")
    fi
}

# run_tier NAME: one tier, its counts and its time.
run_tier() {
    local t p=$PASSED f=$FAILED s
    s=$(skipped)
    t=$(now_ms)
    step "tier $1"
    "tier_$1"
    row "$1" $((PASSED - p)) $((FAILED - f)) $(($(skipped) - s)) "$(seconds_since "$t")"
}

# number TEXT WORD: the number before WORD in TEXT, or 0.
number() {
    local n
    n=$(printf '%s\n' "$1" | grep -oE "[0-9]+ $2" | head -n 1) || true
    printf '%s' "${n:-0}" | cut -d' ' -f1
}

# count_log TIER STATUS LOG: adds the results in the log of a test runner: nextest's closing line, or libtest's
# line for each binary. A run that fails without a failed test (it did not compile) is one failure; so is a
# tier without tests, because that is how tests vanish unseen.
count_log() {
    local tier=$1 status=$2 log=$3 line passed=0 failed=0 gone skipped_here
    while IFS= read -r line; do
        passed=$((passed + $(number "$line" passed)))
        # A test may be counted by nextest as passed "(1 leaky)" and so on: those are parts of a whole.
        failed=$((failed + $(number "$line" failed) + $(number "$line" 'timed out') + $(number "$line" 'exec failed')))
    done < <(sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -E '^ *Summary \[|^test result: ')
    gone=$(skipped)
    skipped_here=$((gone - SKIPPED_BEFORE))
    PASSED=$((PASSED + passed - skipped_here))
    FAILED=$((FAILED + failed))
    if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
        FAILED=$((FAILED + 1))
        FAILURES+=("$tier: the test runner ended with status $status (see above)")
    elif [ $((passed + failed)) = 0 ] && [ -z "$FILTER" ]; then
        FAILED=$((FAILED + 1))
        FAILURES+=("$tier: no test ran")
    elif [ "$failed" != 0 ]; then
        while IFS= read -r line; do FAILURES+=("$tier: $line"); done < <(
            sed 's/\x1b\[[0-9;]*m//g' "$log" |
                sed -nE 's/^ *(FAIL|TIMEOUT|SIGABRT|SIGSEGV|SIGKILL|LEAK-FAIL) \[[^]]*\] *(\([^)]*\) *)?//p; s/^test (.*) \.\.\. FAILED$/\1/p' |
                sort -u)
    fi
}

# counted TIER CMD…: runs a test runner, shows and counts what it says.
counted() {
    local tier=$1 log=$WORK/$1.log status=0
    shift
    SKIPPED_BEFORE=$(skipped)
    "$@" </dev/null 2>&1 | tee "$log" >&2 || status=$?
    count_log "$tier" "$status" "$log"
}

# tests TIER NEXTEST_PROFILE NEXTEST_FILTER CARGO_TEST_ARGS… [-- MORE…]: one tier by cargo-nextest, or by cargo
# test without it. What follows -- goes to both.
tests() {
    local tier=$1 profile=$2 filterset=$3 plain=() both=()
    shift 3
    while [ $# -gt 0 ] && [ "$1" != -- ]; do plain+=("$1"); shift; done
    [ $# -eq 0 ] || { shift; both=("$@"); }
    if [ -n "$NEXTEST" ]; then
        counted "$tier" cargo nextest run --profile="$profile" --no-tests=pass \
            "${both[@]/#--profile=/--cargo-profile=}" -E "$filterset" ${FILTER:+"$FILTER"}
    else
        counted "$tier" cargo test --no-fail-fast "${both[@]}" "${plain[@]}" ${FILTER:+"$FILTER"}
    fi
}

# The whole workspace is named each time: for one package alone, what it depends on has other features and is built once more.
# A tier's test binaries are known by how their name begins; the simulation is all of converge's.
SIM='package(banger-converge) and kind(test)'
SLOW="(binary(/^(cli|vm|host)_/) or ($SIM))"

tier_lint() {
    if cargo fmt --version >/dev/null 2>&1; then
        check fmt cargo fmt --all --check
    else skip "fmt: this toolchain has no rustfmt (rustup component add rustfmt)"; fi
    if cargo clippy --version >/dev/null 2>&1; then
        check clippy cargo clippy --workspace --all-targets --quiet -- -D warnings
    else skip "clippy: this toolchain has no clippy (rustup component add clippy)"; fi
    check architecture cargo xtask lint
    check generated cargo xtask generate --check
    local scripts
    mapfile -t scripts < <(git ls-files -co --exclude-standard | while IFS= read -r f; do
        if [ -f "$f" ] && head -c 64 "$f" | head -n 1 | grep -aqE '^#!.*\bsh\b|^#!.*bash|^# shellcheck shell='; then printf '%s\n' "$f"; fi
    done)
    check shellcheck shellcheck -x "${scripts[@]}"
    if ! command -v cargo-deny >/dev/null 2>&1; then
        # Unoptimised: it runs for a second, and is built much faster.
        step "cargo install cargo-deny (once, 1 to 3 minutes)"
        CARGO_PROFILE_DEV_DEBUG=0 timeout 1500 cargo install --locked --quiet --debug cargo-deny \
            --target-dir "$WORK/deny" >&2 || true
        rm -rf "$WORK/deny"
    fi
    # Not advisories: that is a database fetched from the network, and not a property of this tree.
    if command -v cargo-deny >/dev/null 2>&1; then
        check deny cargo deny --log-level error check licenses bans sources
    else skip "deny: cargo install cargo-deny failed (see above)"; fi
}

tier_unit() {
    local plain=(--lib --bins) f
    for f in crates/*/tests/*.rs; do
        case "${f##*/}" in cli_* | vm_* | host_*) continue ;; esac
        case "$f" in crates/converge/*) ;; *) plain+=(--test "$(basename "$f" .rs)") ;; esac
    done
    tests unit default "not $SLOW" "${plain[@]}" -- --workspace
    # Examples in the documentation, which nextest does not run.
    counted_if_any doc cargo test --workspace --doc --quiet
}

# Each target for a few seconds; hours of it are ./soak's.
tier_fuzz() {
    local target targets=()
    for target in fuzz/seeds/*; do
        target=${target##*/}
        case "$target" in *"$FILTER"*) targets+=("$target") ;; esac
    done
    [ ${#targets[@]} -eq 0 ] || counted fuzz "$ROOT/scripts/fuzz" --seconds 2 "${targets[@]}"
}

# counted_if_any TIER CMD…: like counted, where no test at all is no failure.
counted_if_any() {
    local saved=$FILTER
    FILTER=${FILTER:-any}
    counted "$@"
    FILTER=$saved
}

# Crash enumeration and random scripts on the simulated host: optimised, with overflow and debug checks on.
tier_sim() {
    tests sim sim "$SIM" --test '*' -- --package=banger-converge --profile=sim
}

# The real programs, built once: what the tests below run is what a user gets.
build_programs() {
    [ -z "${PROGRAMS_BUILT:-}" ] || return 0
    PROGRAMS_BUILT=1
    check build "$ROOT/scripts/build" --crash-points
    BANGER_BIN_DIR=$(target_dir)/release
    export BANGER_BIN_DIR
}

# The image and kernel that every home of a test links to, made before a test's deadline runs.
seed_images() {
    [ -z "${IMAGES_SEEDED:-}" ] || return 0
    IMAGES_SEEDED=1
    check images cargo run --quiet --package banger-testkit --bin testkit-seed
}

tier_cli() {
    build_programs
    tests cli default 'binary(/^cli_/)' -- --workspace --test 'cli_*'
}

# The real command line and daemon boot a real kernel, as whoever runs this.
tier_vm() {
    build_programs
    seed_images
    tests vm vm 'binary(/^vm_/)' -- --workspace --test 'vm_*'
}

# Device-mapper, loops, taps, nftables and KVM for real, inside the test host.
tier_host() {
    build_programs
    seed_images
    counted host cargo xtask testhost run ${FILTER:+"$FILTER"}
}

# report: the table, what was skipped and why, what failed, and the closing line.
report() {
    local r n
    n=$(skipped)
    say ""
    printf '%-10s %8s %8s %8s %11s\n' tier passed failed skipped time >&2
    for r in "${ROWS[@]}"; do say "$r"; done
    row all "$PASSED" "$FAILED" "$n" "$(seconds_since "$START")"
    say "${ROWS[-1]}"
    while IFS= read -r r; do say "skipped: $r"; done <"$BANGER_SKIPPED"
    for r in "${FAILURES[@]}"; do say "FAILED: $r"; done
    printf '%d passed, %d failed, %d skipped\n' "$PASSED" "$FAILED" "$n"
    [ "$FAILED" = 0 ]
}
