//! The end of a log file.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// At most so much is read from the end, in bytes.
const MOST: u64 = 1 << 20;

/// The last lines of a file, and whether there is more before them.
///
/// # Errors
/// It cannot be read; a file that is not there reads as empty.
pub fn tail(path: &Path, lines: usize) -> io::Result<(String, bool)> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((String::new(), false));
        }
        Err(error) => return Err(error),
    };
    let len = file.metadata()?.len();
    let from = len.saturating_sub(MOST);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let body = text.strip_suffix('\n').unwrap_or(&text);
    let start = body
        .rmatch_indices('\n')
        .nth(lines.saturating_sub(1))
        .map_or(0, |(at, _)| at + 1);
    let start = if lines == 0 { text.len() } else { start };
    Ok((text[start..].to_owned(), from > 0 || start > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(tail(&log, 5).unwrap(), (String::new(), false));
        std::fs::write(&log, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&log, 2).unwrap(), ("b\nc\n".to_owned(), true));
        assert_eq!(tail(&log, 3).unwrap(), ("a\nb\nc\n".to_owned(), false));
        assert_eq!(tail(&log, 9).unwrap(), ("a\nb\nc\n".to_owned(), false));
        assert_eq!(tail(&log, 0).unwrap(), (String::new(), true));
        std::fs::write(&log, b"no newline \xff").unwrap();
        assert_eq!(tail(&log, 1).unwrap().0, "no newline \u{fffd}");
    }
}
