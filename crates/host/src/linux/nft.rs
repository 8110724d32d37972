//! Our nftables table, swapped whole by `nft -f -` in one transaction. Its comment is our label and
//! the digest of the text it was rendered from.

use super::{LinuxHost, locked, tools::ToolFailed};
use crate::{Effect, Error, ErrorKind, Firewall, ToolCall, Tools, effects::Result};
use banger_model::{Instance, Label, Owner, Role};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt::Write, path::PathBuf, time::Duration};

/// Loading a table of a thousand guests takes well below a second.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The family of our tables: guests speak IPv4 only.
const FAMILY: &str = "ip";

/// The comment of the table that was rendered from this text. The kernel keeps at most 128 bytes of
/// it (libnftnl), so half a SHA-256.
fn comment(label: &Label, text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut comment = format!("{label} ");
    for byte in &digest[..16] {
        // Writing to a String cannot fail.
        let _ = write!(comment, "{byte:02x}");
    }
    comment
}

/// The comment in what `nft list table` prints: the line after the first.
fn listed_comment(listing: &str) -> Option<&str> {
    let line = listing.lines().nth(1)?.trim();
    line.strip_prefix("comment \"")?.strip_suffix('"')
}

/// The label of a table: its name ends with the instance.
fn label_of(table: &str) -> Option<Label> {
    let instance: Instance = table.rsplit(['_', '-']).next()?.parse().ok()?;
    Some(Label {
        instance,
        owner: Owner::Pool,
        role: Role::NftView,
    })
}

/// The rendered text with the comment as the table's first line.
fn commented(table: &str, text: &str, comment: &str) -> Option<String> {
    let head = format!("table {FAMILY} {table} {{\n");
    let rest = text.strip_prefix(&head)?;
    Some(format!("{head}\tcomment \"{comment}\"\n{rest}"))
}

fn error(
    effect: Effect,
    what: &'static str,
    table: &str,
    kind: ErrorKind,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::new(effect, what, format!("{FAMILY} {table}"), kind, why)
}

/// What asking for our table may fail with and still be an answer: without nft or without the right
/// to ask we have made none; and the kernel's "no such table".
fn means_none(e: &Error) -> bool {
    match e.source.downcast_ref() {
        Some(ToolFailed::Absent(_)) => true,
        Some(ToolFailed::Status { stderr, .. }) => ["No such file", "Operation not permitted"]
            .iter()
            .any(|text| stderr.contains(text)),
        _ => false,
    }
}

impl LinuxHost {
    fn nft(&self, args: &[&str], stdin: String) -> Result<String> {
        let call = ToolCall {
            program: PathBuf::from("nft"),
            args: args.iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            cwd: PathBuf::from("/"),
            stdin: stdin.into_bytes(),
            timeout: TIMEOUT,
        };
        let output = self.run_tool(&call, &mut |_| {}, &|| false)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The table as nft prints it.
    fn list_table(
        &self,
        effect: Effect,
        what: &'static str,
        table: &str,
    ) -> Result<Option<String>> {
        match self.nft(&["list", "table", FAMILY, table], String::new()) {
            Ok(listing) => Ok(Some(listing)),
            Err(e) if means_none(&e) => Ok(None),
            Err(e) => Err(error(effect, what, table, e.kind, e)),
        }
    }
}

impl Firewall for LinuxHost {
    /// The text of the last swap while the kernel's table carries its digest; else the listing of
    /// what is there, which equals no rendered text and so is swapped away (after our restart once).
    fn ruleset(&self, table: &str) -> Result<Option<String>> {
        let listing = self.list_table(Effect::RulesetRead, "read the table", table)?;
        let Some(listing) = listing else {
            return Ok(None);
        };
        let known = locked(&self.rulesets).get(table).cloned();
        let same = |text: &String| {
            label_of(table).is_some_and(|label| {
                listed_comment(&listing) == Some(comment(&label, text).as_str())
            })
        };
        Ok(Some(known.filter(same).unwrap_or(listing)))
    }

    fn ruleset_swap(&self, table: &str, text: &str) -> Result<()> {
        let (effect, what) = (Effect::RulesetSwap, "swap the table");
        let refuse = |kind, why: &str| error(effect, what, table, kind, why);
        let label = label_of(table)
            .ok_or_else(|| refuse(ErrorKind::Other, "its name does not end with an instance"))?;
        let there = self.list_table(effect, what, table)?;
        if let Some(listing) = &there
            && !listed_comment(listing).is_some_and(|c| c.starts_with(&format!("{label} ")))
        {
            let why = "its comment is not our label";
            return Err(refuse(ErrorKind::Foreign, why));
        }
        if text.is_empty() && there.is_none() {
            return Ok(());
        }
        // Added first, so that deleting it never fails; nobody sees the moment between.
        let mut script = format!("add table {FAMILY} {table}\ndelete table {FAMILY} {table}\n");
        if !text.is_empty() {
            let new = commented(table, text, &comment(&label, text))
                .ok_or_else(|| refuse(ErrorKind::Other, "the text does not render this table"))?;
            script.push_str(&new);
        }
        self.nft(&["-f", "-"], script)
            .map_err(|e| error(effect, what, table, e.kind, e))?;
        locked(&self.rulesets).insert(table.to_owned(), text.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_is_short_enough_for_the_kernel_and_read_back() {
        let label = label_of("banger1_00c0ffee").unwrap();
        let comment = comment(&label, "some text");
        assert!(comment.len() < 128 && comment.starts_with("banger1/00c0ffee/pool/nft-view "));
        let text = "table ip banger1_00c0ffee {\n\tchain forward {\n\t}\n}\n";
        let full = commented("banger1_00c0ffee", text, &comment).unwrap();
        assert_eq!(listed_comment(&full), Some(&*comment));
        assert_eq!(listed_comment(text), None);
        assert_eq!(commented("banger1_00c0ffef", text, &comment), None);
        assert_eq!(label_of("filter"), None);
    }
}
