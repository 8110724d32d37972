//! Users and groups from the image's `/etc/passwd` and `/etc/group`.

use std::path::PathBuf;

/// Who a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name; the number as text if it is not in the file.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: String,
}

/// Finds a user in the running system's files; a sentence says why not.
pub fn find(wanted: Option<&str>) -> Result<User, String> {
    let read = |path| std::fs::read(path).unwrap_or_default();
    let passwd = read("/etc/passwd");
    let group = read("/etc/group");
    find_in(
        wanted.unwrap_or("0"),
        &String::from_utf8_lossy(&passwd),
        &String::from_utf8_lossy(&group),
    )
}

/// Finds `NAME`, `UID`, `NAME:GROUP` or `UID:GID` in the two files' texts.
fn find_in(wanted: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (who, in_group) = match wanted.split_once(':') {
        Some((who, in_group)) => (who, Some(in_group)),
        None => (wanted, None),
    };
    let number = who.parse::<u32>().ok();
    let mut user = passwd
        .lines()
        .filter_map(passwd_line)
        .find(|user| user.name == who || Some(user.uid) == number)
        .or_else(|| number.map(unlisted))
        .ok_or_else(|| format!("user {who:?} is not in the guest's /etc/passwd"))?;
    if let Some(in_group) = in_group {
        user.gid = in_group
            .parse()
            .ok()
            .or_else(|| {
                groups(group)
                    .find(|(name, ..)| *name == in_group)
                    .map(|(_, gid, _)| gid)
            })
            .ok_or_else(|| format!("group {in_group:?} is not in the guest's /etc/group"))?;
        // Who names the group means no other (as container engines read USER).
        return Ok(user);
    }
    user.groups = groups(group)
        .filter(|(.., members)| members.split(',').any(|member| member == user.name))
        .map(|(_, gid, _)| gid)
        .collect();
    Ok(user)
}

/// `name:password:uid:gid:comment:home:shell`, as in passwd(5).
fn passwd_line(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let mut numbers = fields.by_ref().skip(1);
    let uid = numbers.next()?.parse().ok()?;
    let gid = numbers.next()?.parse().ok()?;
    let home = numbers
        .nth(1)
        .filter(|home| !home.is_empty())
        .unwrap_or("/");
    let shell = numbers
        .next()
        .filter(|shell| !shell.is_empty())
        .unwrap_or("/bin/sh");
    Some(User {
        name,
        uid,
        gid,
        groups: Vec::new(),
        home: home.into(),
        shell: shell.to_owned(),
    })
}

/// A number that the image does not know; root is known even to an image without the file.
fn unlisted(uid: u32) -> User {
    let (name, home) = match uid {
        0 => ("root".to_owned(), "/root"),
        _ => (uid.to_string(), "/"),
    };
    User {
        name,
        uid,
        gid: 0,
        groups: Vec::new(),
        home: home.into(),
        shell: "/bin/sh".to_owned(),
    }
}

/// Name, number and members of every group: `name:password:gid:members`, as in group(5).
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nbad line\ndev:x:1000:1001:,,,:/home/dev:\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:dev\nvideo:x:44:other,dev\nstaff:x:50:\n";

    #[test]
    fn names_numbers_and_groups() {
        let dev = find_in("dev", PASSWD, GROUP).unwrap();
        assert_eq!((dev.uid, dev.gid), (1000, 1001));
        assert_eq!(dev.groups, [27, 44]);
        assert_eq!(
            (dev.home.to_str().unwrap(), &dev.shell[..]),
            ("/home/dev", "/bin/sh")
        );
        assert_eq!(find_in("1000", PASSWD, GROUP).unwrap(), dev);
        let staff = find_in("dev:staff", PASSWD, GROUP).unwrap();
        assert_eq!((staff.gid, &staff.groups[..]), (50, &[][..]));
        assert_eq!(find_in("0", PASSWD, GROUP).unwrap().shell, "/bin/bash");
    }

    #[test]
    fn unknown_ones() {
        assert!(
            find_in("nobody", PASSWD, GROUP)
                .unwrap_err()
                .contains("nobody")
        );
        assert!(
            find_in("dev:nogroup", PASSWD, GROUP)
                .unwrap_err()
                .contains("nogroup")
        );
        let number = find_in("4711", PASSWD, GROUP).unwrap();
        assert_eq!(
            (number.uid, number.gid, number.home.to_str().unwrap()),
            (4711, 0, "/")
        );
        assert_eq!(
            find_in("0", "", "").unwrap().home.to_str().unwrap(),
            "/root"
        );
    }
}
