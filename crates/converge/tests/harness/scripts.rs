//! The written scripts.

use super::{
    explore::Depth,
    script::{Deed, Script, Verb, When},
    site::{Profile, vm_id},
};
use Deed::{
    Ask, CorruptHandles, GuestEnds, KillDaemons, LoseDisk, LoseHandles, LoseRow, PowerLoss,
};
use Verb::{Create, Delete, Kill, Nat, Rename, Set, Start, Stop};
use When::{After, Quiet};
use banger_host::sim::Guest;

/// Life and death of one VM.
pub fn life(profile: Profile) -> Script {
    Script::new(
        &format!("life {profile:?}"),
        &[
            (Quiet, Ask(0, 1, Create("dev", profile))),
            (Quiet, Ask(0, 1, Stop)),
            (Quiet, Ask(0, 1, Start)),
            (Quiet, Ask(0, 1, Kill)),
            (Quiet, Ask(0, 1, Delete)),
        ],
    )
}

/// Two VMs over one base, at the same time; a third gets the address of the first.
pub fn churn(profile: Profile) -> Script {
    Script::new(
        &format!("churn {profile:?}"),
        &[
            (Quiet, Ask(0, 1, Create("one", profile))),
            (After(3), Ask(0, 2, Create("two", profile))),
            (Quiet, Ask(0, 1, Delete)),
            (After(2), Ask(0, 3, Create("three", profile))),
            (After(2), Ask(0, 2, Stop)),
        ],
    )
}

/// A VM is given larger disks, twice, and other requests come between.
pub fn growth(profile: Profile) -> Script {
    Script::new(
        &format!("growth {profile:?}"),
        &[
            (Quiet, Ask(0, 1, Create("dev", profile))),
            (Quiet, Ask(0, 1, Set(2))),
            (Quiet, Ask(0, 1, Kill)),
            (Quiet, Ask(0, 1, Set(2))),
            (After(1), Ask(0, 1, Start)),
            (Quiet, Ask(0, 1, Stop)),
            (Quiet, Ask(0, 1, Set(3))),
            (Quiet, Ask(0, 1, Set(1))),
            (Quiet, PowerLoss),
            (Quiet, Ask(0, 1, Start)),
        ],
    )
}

/// All the scripts that are written down, and how thoroughly each is explored.
pub fn written() -> Vec<(Script, Depth)> {
    let (small, big) = (Profile::Everywhere, Profile::Everything);
    let mut scripts = vec![(life(small), Depth::FULL), (life(big), Depth::FULL)];
    let mut wide = vec![churn(small), churn(big), growth(small), growth(big)];
    wide.extend(cloned());
    wide.extend(concurrent(big));
    wide.extend(guests(small, big));
    wide.extend(losses(small, big));
    wide.extend(instances(big));
    scripts.extend(wide.into_iter().map(|s| (s, Depth::WIDE)));
    scripts
}

/// VMs whose root is a clone of their image, and one whose cannot be.
fn cloned() -> Vec<Script> {
    let (cloned, apart) = (Profile::Cloned, Profile::Apart);
    vec![
        life(cloned),
        growth(cloned),
        Script::new(
            "an image on another file system",
            &[
                (Quiet, Ask(0, 1, Create("dev", apart))),
                (Quiet, Ask(0, 2, Create("dev", cloned))),
                (Quiet, Ask(0, 2, Stop)),
                (Quiet, Ask(0, 2, Start)),
            ],
        ),
    ]
}

/// Scripts into which another thread's request falls between any two effects.
pub fn raced() -> Vec<(Script, Vec<Deed>)> {
    let (small, big) = (Profile::Everywhere, Profile::Everything);
    let create = |profile| (Quiet, Ask(0, 1, Create("dev", profile)));
    vec![
        (
            Script::new("create", &[create(big)]),
            vec![Ask(0, 1, Delete), Ask(0, 2, Create("dev", small))],
        ),
        (
            Script::new(
                "create, kill, start",
                &[
                    create(small),
                    (Quiet, Ask(0, 1, Kill)),
                    (Quiet, Ask(0, 1, Start)),
                ],
            ),
            vec![Ask(0, 1, Stop), Ask(0, 1, Start), Ask(0, 1, Delete)],
        ),
        (
            Script::new(
                "create, delete",
                &[create(small), (Quiet, Ask(0, 1, Delete))],
            ),
            vec![Ask(0, 2, Create("dev", small)), Ask(0, 1, Kill)],
        ),
    ]
}

/// Requests that come while another one runs.
fn concurrent(big: Profile) -> Vec<Script> {
    let mut scripts = Vec::new();
    for units in [1, 4, 9, 16, 24] {
        scripts.push(Script::new(
            &format!("delete {units} steps into create"),
            &[
                (Quiet, Ask(0, 1, Create("dev", big))),
                (After(units), Ask(0, 1, Delete)),
            ],
        ));
    }
    for units in [2, 7, 13] {
        scripts.push(Script::new(
            &format!("stop {units} steps into start, then start"),
            &[
                (Quiet, Ask(0, 1, Create("dev", big))),
                (Quiet, Ask(0, 1, Kill)),
                (Quiet, Ask(0, 1, Start)),
                (After(units), Ask(0, 1, Stop)),
                (After(units), Ask(0, 1, Start)),
            ],
        ));
    }
    scripts.push(Script::new(
        "two creates of one name",
        &[
            (Quiet, Ask(0, 1, Create("dev", big))),
            (After(2), Ask(0, 2, Create("dev", big))),
            (After(6), Ask(0, 1, Delete)),
            (After(3), Ask(0, 3, Create("dev", big))),
            (Quiet, Ask(0, 4, Create("dev", big))),
        ],
    ));
    scripts.push(Script::new(
        "kill into stop into delete",
        &[
            (Quiet, Ask(0, 1, Create("dev", big))),
            (Quiet, Ask(0, 1, Stop)),
            (After(2), Ask(0, 1, Kill)),
            (After(2), Ask(0, 1, Delete)),
        ],
    ));
    scripts
}

/// Guests that do not do as they are told.
fn guests(small: Profile, big: Profile) -> Vec<Script> {
    let (one, two) = (vm_id(0, 1), vm_id(0, 2));
    vec![
        Script::new(
            "never says hello",
            &[(Quiet, Ask(0, 1, Create("dev", big)))],
        )
        .with_guests(&[(one, Guest::Mute)]),
        Script::new(
            "dies before hello",
            &[(Quiet, Ask(0, 1, Create("dev", small)))],
        )
        .with_guests(&[(one, Guest::Panics)]),
        Script::new(
            "says hello, cannot mount its root",
            &[
                (Quiet, Ask(0, 1, Create("dev", big))),
                (Quiet, Ask(0, 2, Create("dev", small))),
            ],
        )
        .with_guests(&[(one, Guest::Rootless)]),
        Script::new(
            "cannot mount its root any more",
            &[
                (Quiet, Ask(0, 1, Create("dev", small))),
                (Quiet, Ask(0, 1, Stop)),
                (Quiet, Ask(0, 1, Start)),
                (Quiet, Ask(0, 1, Delete)),
            ],
        )
        .with_guests(&[(one, Guest::Decays)]),
        Script::new(
            "ignores power-off",
            &[
                (Quiet, Ask(0, 1, Create("dev", small))),
                (Quiet, Ask(0, 1, Stop)),
                (Quiet, Ask(0, 1, Delete)),
            ],
        )
        .with_guests(&[(one, Guest::Stubborn)]),
        Script::new(
            "ends by itself, found by a restart, started again",
            &[
                (Quiet, Ask(0, 1, Create("dev", big))),
                (Quiet, GuestEnds(0, 1)),
                (Quiet, KillDaemons),
                (Quiet, Ask(0, 1, Start)),
            ],
        ),
        Script::new(
            "stuck for ever beside a healthy one",
            &[
                (Quiet, Ask(0, 1, Create("stuck", big))),
                (Quiet, Ask(0, 2, Create("well", big))),
                (Quiet, Ask(0, 1, Stop)),
                (After(2), Ask(0, 2, Stop)),
                (After(5), Ask(0, 1, Delete)),
                (After(5), Ask(0, 2, Start)),
            ],
        )
        .with_guests(&[(one, Guest::Stuck(u64::MAX))]),
        Script::new(
            "stuck for a while beside a healthy one",
            &[
                (Quiet, Ask(0, 1, Create("stuck", small))),
                (Quiet, Ask(0, 2, Create("well", small))),
                (Quiet, Ask(0, 1, Delete)),
                (After(1), Ask(0, 2, Stop)),
            ],
        )
        .with_guests(&[(one, Guest::Stuck(30_000)), (two, Guest::Stubborn)]),
    ]
}

/// Daemons, hosts, files and rows that are lost.
fn losses(small: Profile, big: Profile) -> Vec<Script> {
    let up = (Quiet, Ask(0, 1, Create("dev", big)));
    vec![
        Script::new(
            "the daemon is killed, the VM lives on",
            &[
                up,
                (Quiet, KillDaemons),
                (Quiet, Ask(0, 1, Stop)),
                (Quiet, Ask(0, 1, Delete)),
            ],
        ),
        Script::new(
            "the host loses power",
            &[
                up,
                (Quiet, Ask(0, 2, Create("two", small))),
                (Quiet, PowerLoss),
                (Quiet, Ask(0, 1, Start)),
                (Quiet, Ask(0, 2, Delete)),
            ],
        ),
        Script::new(
            "handles corrupt, then lost",
            &[
                up,
                (Quiet, CorruptHandles(0, 1)),
                (Quiet, KillDaemons),
                (Quiet, Ask(0, 1, Stop)),
                (Quiet, Ask(0, 1, Start)),
                (Quiet, LoseHandles(0, 1)),
                (Quiet, Ask(0, 1, Delete)),
            ],
        ),
        Script::new(
            "a row is lost",
            &[
                (Quiet, Ask(0, 1, Create("one", big))),
                (Quiet, Ask(0, 2, Create("two", small))),
                (Quiet, LoseRow(0, 1)),
                (Quiet, KillDaemons),
                (Quiet, Ask(0, 2, Delete)),
            ],
        ),
        Script::new(
            "a disk is lost",
            &[
                up,
                (Quiet, Ask(0, 1, Stop)),
                (Quiet, LoseDisk(0, 1)),
                (Quiet, Ask(0, 1, Start)),
            ],
        ),
    ]
}

/// Guests let out and closed in again, while they run, are on their way, and are stopped.
pub fn networks(profile: Profile) -> Script {
    Script::new(
        &format!("networks {profile:?}"),
        &[
            (Quiet, Ask(0, 1, Create("dev", profile))),
            (Quiet, Ask(0, 1, Nat(false))),
            (Quiet, Ask(0, 1, Stop)),
            (After(1), Ask(0, 1, Nat(true))),
            (Quiet, Ask(0, 1, Nat(true))),
            (Quiet, Ask(0, 1, Start)),
            (Quiet, PowerLoss),
            (Quiet, Ask(0, 1, Nat(false))),
            (Quiet, KillDaemons),
        ],
    )
}

/// Other names for what runs and what is stopped, one of them taken.
pub fn names(small: Profile) -> Script {
    Script::new(
        "renamed while it runs and while it is stopped",
        &[
            (Quiet, Ask(0, 1, Create("dev", small))),
            (Quiet, Ask(0, 1, Rename("other"))),
            (Quiet, Ask(0, 2, Create("dev", small))),
            (Quiet, Ask(0, 1, Stop)),
            (Quiet, Ask(0, 1, Rename("third"))),
            (Quiet, Ask(0, 1, Rename("dev"))),
            (Quiet, KillDaemons),
            (Quiet, Ask(0, 1, Start)),
        ],
    )
}

/// Two instances on one host.
fn instances(big: Profile) -> Vec<Script> {
    vec![
        Script::new(
            "another instance's VM runs",
            &[
                (Quiet, Ask(1, 1, Create("theirs", big))),
                (Quiet, Ask(0, 1, Create("ours", big))),
                (Quiet, Ask(0, 1, Delete)),
            ],
        ),
        Script::new(
            "both instances at work",
            &[
                (Quiet, Ask(0, 1, Create("ours", big))),
                (After(2), Ask(1, 1, Create("theirs", big))),
                (Quiet, Ask(1, 1, Stop)),
                (After(1), Ask(0, 1, Kill)),
            ],
        ),
    ]
}
