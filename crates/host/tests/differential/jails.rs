//! Jail directories, under a root of the test's own.

use super::{Answer, Group, Pair, Rng, done, instances, labels, shown};
use banger_host::Jails;
use banger_model::{Label, Role};
use std::path::PathBuf;

#[derive(Debug)]
pub enum Op {
    JailCreate(usize),
    /// Not an effect: what a VMM leaves in its jail, which goes with it.
    Filled(usize),
    JailRemove(usize),
    Jails,
}

pub struct JailGroup {
    pair: Pair,
    labels: Vec<Label>,
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl JailGroup {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("jails");
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(root.join("somebody.elses")).unwrap();
        JailGroup {
            pair: Pair::new(dir.path(), dir.path()),
            labels: labels(&instances(), &[Role::Jail]),
            root,
            _dir: dir,
        }
    }
}

fn apply<H: Jails>(host: &H, labels: &[Label], op: &Op) -> Answer {
    match op {
        Op::JailCreate(n) => done(host.jail_create(&labels[*n])),
        Op::Filled(_) => Ok(String::new()),
        Op::JailRemove(n) => done(host.jail_remove(&labels[*n])),
        Op::Jails => shown(host.jails()),
    }
}

impl Group for JailGroup {
    type Op = Op;

    fn draw(&mut self, rng: &mut Rng) -> Op {
        let n = rng.below(self.labels.len());
        match rng.below(7) {
            0..=2 => Op::JailCreate(n),
            3 => Op::Filled(n),
            4 | 5 => Op::JailRemove(n),
            _ => Op::Jails,
        }
    }

    fn sim(&mut self, op: &Op) -> Answer {
        apply(&self.pair.sim[0], &self.labels, op)
    }

    fn real(&mut self, op: &Op, _: &Answer) -> Answer {
        if let Op::Filled(n) = op {
            let jail = self
                .root
                .join(self.labels[*n].to_string().replace('/', "."));
            if jail.exists() {
                std::fs::create_dir_all(jail.join("dev/net")).unwrap();
                std::fs::write(jail.join("vmlinux"), b"kernel").unwrap();
            }
        }
        apply(&self.pair.real[0], &self.labels, op)
    }

    fn seen_sim(&mut self) -> Vec<String> {
        let all = self.pair.sim[0].jails().unwrap();
        all.iter().map(Label::to_string).collect()
    }

    fn seen_real(&mut self) -> Vec<String> {
        assert!(self.root.join("somebody.elses").exists());
        let all = self.pair.real[0].jails().unwrap();
        all.iter().map(Label::to_string).collect()
    }
}
