//! `vm stats` on a terminal: a table that is drawn anew until a key ends it; the screen is then as it was.

use super::stats::{COLUMNS, of_all, of_each, row};
use crate::{
    connection::Daemon,
    failure::Failure,
    render,
    signals::{Resizes, Signals},
    terminal::{self, RawMode},
};
use banger_wire::{api::StatsView, guest::TtySize};
use std::{
    io::{self, Read, Write},
    process::ExitCode,
    thread,
    time::Duration,
};
use tokio::sync::mpsc;

/// Alternate screen, no cursor (xterm's control sequences, which every terminal of today has).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Cursor, and the screen that was there before.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// ^C and ^D, which raw mode gives us as keys.
const INTERRUPT: u8 = 3;
const END: u8 = 4;
/// Size of a terminal that does not say its size.
const ASSUMED_SIZE: TtySize = TtySize { rows: 24, cols: 80 };

/// The terminal while it is ours. (Dropping only restores it.)
struct Screen {
    _raw: RawMode,
}

impl Screen {
    fn enter() -> io::Result<Self> {
        let raw = RawMode::enter()?;
        let mut out = io::stdout().lock();
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(Screen { _raw: raw })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    }
}

/// What was seen last.
#[derive(Default)]
struct Seen {
    vms: Vec<StatsView>,
    /// Why some could not be looked at.
    troubles: Vec<String>,
}

/// Shows these VMs, or all that run, until a key or a signal.
pub async fn live(
    daemon: Daemon,
    vms: Vec<String>,
    interval: Duration,
) -> Result<ExitCode, Failure> {
    let failed = |e: io::Error| Failure::new("the terminal cannot be used").caused_by(&e);
    let mut signals = Signals::listen().map_err(failed)?;
    let mut resizes = Resizes::listen().map_err(failed)?;
    // Whatever would keep it from ever showing anything is told on the screen that is there.
    let mut seen = look(&daemon, &vms, None).await?;
    if seen.vms.is_empty() && !vms.is_empty() {
        return Err(Failure::new(seen.troubles.join("; ")).hint("banger ps"));
    }
    let _screen = Screen::enter().map_err(failed)?;
    let mut keys = keys();
    loop {
        draw(&seen, interval).map_err(failed)?;
        let mut next = std::pin::pin!(next(&daemon, &vms, interval));
        loop {
            tokio::select! {
                looked = &mut next => {
                    seen = looked;
                    break;
                }
                () = resizes.next() => draw(&seen, interval).map_err(failed)?,
                key = keys.recv() => match key {
                    Some(b'q' | b'Q' | INTERRUPT | END) | None => return Ok(ExitCode::SUCCESS),
                    Some(_) => {}
                },
                signal = signals.next() => return Ok(ExitCode::from(128 + signal)),
            }
        }
    }
}

/// The next look, which takes as long as the interval whatever is there to see.
async fn next(daemon: &Daemon, vms: &[String], interval: Duration) -> Seen {
    let began = tokio::time::Instant::now();
    let seen = look(daemon, vms, Some(interval)).await;
    let seen = seen.unwrap_or_else(|failure| Seen {
        vms: Vec::new(),
        troubles: vec![failure.what()],
    });
    // Measuring took the time already, but not where there was nothing to measure.
    tokio::time::sleep_until(began + interval).await;
    seen
}

async fn look(daemon: &Daemon, vms: &[String], over: Option<Duration>) -> Result<Seen, Failure> {
    let named = !vms.is_empty();
    let looked = if named {
        of_each(daemon, vms.to_vec(), over).await
    } else {
        of_all(daemon, over).await?
    };
    let mut seen = Seen::default();
    for answer in looked {
        match answer {
            Ok(vm) if seen.vms.iter().any(|other| other.id == vm.id) => {}
            Ok(vm) => seen.vms.push(vm),
            Err(failure) if named => seen.troubles.push(failure.what()),
            // It has ended since the listing.
            Err(_) => {}
        }
    }
    Ok(seen)
}

/// Bytes of the keys that are pressed; ends with stdin.
fn keys() -> mpsc::Receiver<u8> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut key = [0];
        while let Ok(1) = stdin.read(&mut key) {
            if sender.blocking_send(key[0]).is_err() {
                return;
            }
        }
    });
    receiver
}

fn draw(seen: &Seen, interval: Duration) -> io::Result<()> {
    let size = terminal::size().unwrap_or(ASSUMED_SIZE);
    let mut text = String::from("\x1b[H");
    for line in lines(seen, interval, size) {
        // Erase what the last drawing left of the line (EL).
        text.push_str(&line);
        text.push_str("\x1b[K\r\n");
    }
    // And below it (ED).
    text.push_str("\x1b[J");
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The lines of a screen of this size; the last line of the terminal stays free, or it would scroll.
fn lines(seen: &Seen, interval: Duration, size: TtySize) -> Vec<String> {
    let (rows, cols) = (usize::from(size.rows), usize::from(size.cols));
    let mut lines = vec![format!(
        "{} running, every {} s; q quits",
        seen.vms.len(),
        interval.as_secs()
    )];
    let cells: Vec<Vec<String>> = seen.vms.iter().map(row).collect();
    lines.extend(fitting(&cells, cols).lines().map(str::to_owned));
    lines.extend(seen.troubles.iter().map(|why| render::plain(why)));
    let room = rows.saturating_sub(1).max(1);
    if lines.len() > room {
        let more = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(format!("{more} more lines"));
    }
    let cut = |line: String| line.chars().take(cols).collect();
    lines.into_iter().map(cut).collect()
}

/// The table with as many columns as there is room for.
fn fitting(cells: &[Vec<String>], cols: usize) -> String {
    let mut least = COLUMNS.iter().map(|(_, rank)| *rank).max().unwrap_or(0);
    loop {
        let shown: Vec<usize> = (0..COLUMNS.len())
            .filter(|i| COLUMNS[*i].1 <= least)
            .collect();
        let header: Vec<&str> = shown.iter().map(|i| COLUMNS[*i].0).collect();
        let rows: Vec<Vec<String>> = cells
            .iter()
            .map(|row| shown.iter().map(|i| row[*i].clone()).collect())
            .collect();
        let table = render::table(&header, &rows);
        let widest = table.lines().map(|line| line.chars().count()).max();
        if least == 0 || widest.unwrap_or(0) <= cols {
            return table;
        }
        least -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(rows: u16, cols: u16) -> TtySize {
        TtySize { rows, cols }
    }

    #[test]
    fn what_matters_least_is_left_out_first() {
        let row: Vec<String> = COLUMNS.map(|(name, _)| name.to_owned()).to_vec();
        let header = |cols| {
            let table = fitting(std::slice::from_ref(&row), cols);
            table.lines().next().unwrap_or_default().to_owned()
        };
        assert!(header(500).contains("SWAP"));
        let narrow = header(60);
        assert!(
            narrow.chars().count() <= 60 && !narrow.contains("SWAP"),
            "{narrow}"
        );
        assert!(
            narrow.contains("CPU") && narrow.contains("MEMORY"),
            "{narrow}"
        );
        assert_eq!(header(1), "NAME");
    }

    #[test]
    fn a_screen_is_never_overfull() {
        let seen = Seen {
            vms: Vec::new(),
            troubles: (0..50).map(|n| format!("trouble\x1b[2J {n}")).collect(),
        };
        let lines = lines(&seen, Duration::from_secs(2), size(10, 20));
        assert_eq!(lines.len(), 9);
        assert!(
            lines
                .iter()
                .all(|l| l.chars().count() <= 20 && !l.contains('\x1b'))
        );
        assert_eq!(lines[8], "44 more lines");
    }
}
