//! What is on the machine that could be left behind: loops, mounts, links, dm devices, nft tables,
//! processes with one of our labels.

use std::{collections::BTreeSet, fs, path::Path};

/// A snapshot of everything a leak would show in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    things: BTreeSet<String>,
}

impl Machine {
    /// Looks at the machine now. Processes count only if their arguments carry a label of the
    /// instance (or any, if `None`).
    pub fn look(instance: Option<&str>) -> Self {
        let mut things = BTreeSet::new();
        for (kind, dir, wanted) in [
            ("link", "/sys/class/net", ""),
            ("dm", "/dev/mapper", "banger1"),
        ] {
            for name in names(Path::new(dir)).filter(|n| n.contains(wanted)) {
                things.insert(format!("{kind} {name}"));
            }
        }
        for name in names(Path::new("/sys/block")).filter(|n| n.starts_with("loop")) {
            if let Ok(backing) = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"))
            {
                things.insert(format!("loop {name} over {}", backing.trim()));
            }
        }
        for line in fs::read_to_string("/proc/self/mounts")
            .unwrap_or_default()
            .lines()
        {
            things.insert(format!("mount {line}"));
        }
        let label = instance.map_or_else(|| "banger1/".to_owned(), |i| format!("banger1/{i}/"));
        for pid in names(Path::new("/proc")).filter(|n| n.bytes().all(|b| b.is_ascii_digit())) {
            let Ok(argv) = fs::read(format!("/proc/{pid}/cmdline")) else {
                continue;
            };
            for argument in argv
                .split(|b| *b == 0)
                .filter(|a| a.starts_with(label.as_bytes()))
            {
                things.insert(format!(
                    "process {pid} {}",
                    String::from_utf8_lossy(argument)
                ));
            }
        }
        Machine { things }
    }

    /// Asserts that nothing came to be since `self` was looked at.
    ///
    /// # Panics
    /// Naming each thing left behind or gone.
    #[track_caller]
    pub fn assert_as_before(&self, after: &Machine) {
        let left: Vec<_> = after.things.difference(&self.things).collect();
        let gone: Vec<_> = self.things.difference(&after.things).collect();
        assert!(
            left.is_empty() && gone.is_empty(),
            "left behind: {left:#?}\ngone: {gone:#?}"
        );
    }
}

fn names(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
}

impl Machine {
    /// The things that belong to a home: labelled by its instance, or over its files.
    pub fn ours<'a>(&'a self, instance: &str, root: &Path) -> impl Iterator<Item = &'a String> {
        let marks = [
            format!("banger1/{instance}"),
            format!("banger1-{instance}"),
            root.display().to_string(),
        ];
        self.things
            .iter()
            .filter(move |t| marks.iter().any(|m| t.contains(m)))
    }

    /// Process ids among the things.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.things
            .iter()
            .filter_map(|t| t.strip_prefix("process ")?.split(' ').next()?.parse().ok())
    }

    /// The labels that live processes carry, one item per process.
    pub fn process_labels(&self) -> impl Iterator<Item = String> {
        self.things
            .iter()
            .filter_map(|t| Some(t.strip_prefix("process ")?.split(' ').nth(1)?.to_owned()))
    }
}
