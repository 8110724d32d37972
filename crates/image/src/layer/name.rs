//! Names of archive entries (R-IMG-4), and names as a person reads them.

/// Bytes of a path, as Linux has it without the NUL.
const PATH_MAX: usize = 4095;

/// Why a name is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadName {
    /// A component is `..`.
    DotDot,
    /// There is a NUL in it.
    Nul,
    /// A component has more than 255 bytes, or the whole more than 4095.
    TooLong,
}

impl BadName {
    /// The reason as a sentence's end.
    pub(crate) fn why(self) -> &'static str {
        match self {
            BadName::DotDot => "its name has a component '..'",
            BadName::Nul => "its name has a NUL byte",
            BadName::TooLong => "its name is longer than a file system takes",
        }
    }
}

/// A path inside the image, without `/` at its ends, `.` and empty components; empty for the root itself.
pub(crate) fn clean(name: &[u8]) -> Result<Vec<u8>, BadName> {
    if name.contains(&0) {
        return Err(BadName::Nul);
    }
    // A name of slashes may be long, and its path is kept.
    let mut path = Vec::with_capacity(name.len().min(PATH_MAX));
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(BadName::DotDot),
            long if long.len() > 255 => return Err(BadName::TooLong),
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
        if path.len() > PATH_MAX {
            return Err(BadName::TooLong);
        }
    }
    path.shrink_to_fit();
    Ok(path)
}

/// A name in a message: on one line, whatever is in it, and not endless.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        chunk.valid().chars().for_each(|c| match c {
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        });
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
        if text.len() > 300 {
            return text.chars().take(300).chain("…".chars()).collect();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn leading_dots_and_slashes_go_and_the_rest_stays() {
        for (name, path) in [
            ("./etc/passwd", "etc/passwd"),
            ("/etc/passwd", "etc/passwd"),
            (".//./etc//x/", "etc/x"),
            ("./", ""),
            ("/", ""),
            ("", ""),
            ("...", "..."),
            ("..a/b..", "..a/b.."),
            ("a\nb\\x2d", "a\nb\\x2d"),
        ] {
            assert_eq!(clean(name.as_bytes()).unwrap(), path.as_bytes(), "{name}");
        }
        assert_eq!(clean(b"a\xff").unwrap(), b"a\xff");
    }

    /// A path is kept for as long as an import takes: it has no room beyond itself.
    #[test]
    fn paths_take_no_more_room_than_they_need() {
        for name in [
            [b'/'; 1 << 20].to_vec(),
            b"./a/".repeat(500),
            b"/a".to_vec(),
        ] {
            let path = clean(&name).unwrap();
            assert_eq!(path.capacity(), path.len());
        }
    }

    #[test]
    fn what_leads_out_is_refused() {
        for bad in ["..", "../x", "a/../b", "/..", "a/..", "./../etc"] {
            assert_eq!(clean(bad.as_bytes()), Err(BadName::DotDot), "{bad}");
        }
        assert_eq!(clean(b"a\0b"), Err(BadName::Nul));
        assert_eq!(clean(&[b'x'; 256]), Err(BadName::TooLong));
        assert!(clean(&[b'x'; 255]).is_ok());
        assert_eq!(clean(&b"abc/".repeat(1100)), Err(BadName::TooLong));
    }

    #[test]
    fn names_are_shown_on_one_line() {
        assert_eq!(shown(b"a\nb\x1b[31m\xffc"), "a\\nb\\u{1b}[31m\\xffc");
        assert!(shown(&[b'y'; 5000]).chars().count() <= 301);
    }

    proptest! {
        #[test]
        fn a_clean_name_is_relative_inside_and_stays_so(name in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(path) = clean(&name) {
                prop_assert!(!path.starts_with(b"/") && !path.ends_with(b"/") && !path.contains(&0));
                let parts = || path.split(|b| *b == b'/');
                prop_assert!(path.is_empty() || parts().all(|p| !p.is_empty() && p != b"." && p != b".."));
                prop_assert_eq!(clean(&path), Ok(path.clone()));
            }
            prop_assert!(!shown(&name).chars().any(char::is_control));
        }
    }
}
