//! `top`: shares as they are now, on a terminal or as text.

mod frame;

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::fair::Source;
use crate::cli::{self, Global, Grouping, Interval, SortKey};
use crate::fair::status::Snapshot;
use crate::sys::event::{self, Interest};
use crate::sys::process::{self, SignalSet};
use crate::sys::terminal::{self, Termios};
use crate::sys::{AsFd, BorrowedFd, borrow, fs};
use frame::Choice;

const ENDING: [i32; 4] = [1, 2, 3, 15];
const WINDOW_CHANGED: i32 = 28;

pub fn run(global: &Global, arguments: &cli::Top) -> Result<()> {
    let interval = arguments.interval.map_or(Duration::from_secs(1), |Interval(interval)| interval);
    let choice = Choice { grouping: arguments.view, sort: arguments.sort, reverse: false };
    let mut source = Source::find(global)?;
    let screen = match arguments.once || arguments.json {
        true => None,
        false => Screen::open()?,
    };
    match screen {
        Some(screen) => Live { source, screen, choice, interval }.show(),
        None => {
            let mut before = source.snapshot()?;
            loop {
                std::thread::sleep(interval);
                let now = source.snapshot()?;
                super::print(&text(&before, &now, choice, arguments.json)?)?;
                if arguments.once {
                    return Ok(());
                }
                before = now;
            }
        }
    }
}

fn text(before: &Snapshot, now: &Snapshot, choice: Choice, json: bool) -> Result<String> {
    let view = frame::view(before, now, choice);
    if json {
        return Ok(serde_json::to_string(&view).context("write the view as JSON")? + "\n");
    }
    Ok(frame::lines(&view, choice, usize::MAX, usize::MAX).join("\n") + "\n")
}

struct Live {
    source: Source,
    screen: Screen,
    choice: Choice,
    interval: Duration,
}

impl Live {
    fn show(mut self) -> Result<()> {
        process::set_signal_mask(&SignalSet::all())?;
        let signals = event::signalfd(&SignalSet::all())?;
        let mut before = self.source.snapshot()?;
        let mut now = before.clone();
        let mut next = Instant::now() + self.interval.min(Duration::from_millis(500));
        loop {
            self.screen.draw(&frame::view(&before, &now, self.choice), self.choice)?;
            let wait = next.saturating_duration_since(Instant::now());
            let waiting = [(signals.as_fd(), Interest::Read), (input(), Interest::Read)];
            let [signalled, typed] = event::poll(waiting, Some(wait))?;
            if signalled {
                match event::next_signal(&signals)? {
                    Some(signal) if ENDING.contains(&signal) => return Ok(()),
                    Some(WINDOW_CHANGED) | Some(_) | None => {}
                }
            }
            if typed && !self.typed()? {
                return Ok(());
            }
            if Instant::now() >= next {
                before = std::mem::replace(&mut now, self.source.snapshot()?);
                next = Instant::now() + self.interval;
            }
        }
    }

    /// Obeys what was typed; false: it was the end.
    fn typed(&mut self) -> Result<bool> {
        let mut bytes = [0; 64];
        let length = fs::read(input(), &mut bytes).context("read the terminal")?;
        Ok(length > 0 && bytes[..length].iter().all(|key| obey(*key, &mut self.choice)))
    }
}

const INTERRUPT: u8 = 3;

fn obey(key: u8, choice: &mut Choice) -> bool {
    let sort = match key {
        b'q' | INTERRUPT => return false,
        b'v' => {
            choice.grouping = match choice.grouping {
                Grouping::Containers => Grouping::Tenants,
                Grouping::Tenants => Grouping::Classes,
                Grouping::Classes => Grouping::Containers,
            };
            return true;
        }
        b'n' => SortKey::Name,
        b'e' => SortKey::Entitled,
        b'r' => SortKey::Received,
        b'l' => SortKey::Lag,
        b'w' => SortKey::Weight,
        b'p' => SortKey::Pressure,
        b'm' => SortKey::Memory,
        _ => return true,
    };
    choice.reverse = choice.sort == sort && !choice.reverse;
    choice.sort = sort;
    true
}

fn input() -> BorrowedFd<'static> {
    borrow(0)
}

/// The terminal's other screen, without echo. Dropping it brings everything back.
struct Screen {
    modes: Termios,
}

impl Screen {
    /// None: standard input or output is no terminal.
    fn open() -> Result<Option<Self>> {
        let Ok(modes) = terminal::modes(input()) else { return Ok(None) };
        if terminal::size(borrow(1)).is_err() {
            return Ok(None);
        }
        terminal::set_modes(input(), &terminal::raw(&modes)).context("switch the terminal to raw mode")?;
        let screen = Self { modes };
        super::print("\x1b[?1049h\x1b[?25l")?;
        Ok(Some(screen))
    }

    fn draw(&self, view: &frame::View, choice: Choice) -> Result<()> {
        let (rows, columns) = terminal::size(borrow(1)).context("ask for the terminal's size")?;
        let (rows, columns) = if rows == 0 || columns == 0 { (24, 80) } else { (rows, columns) };
        let lines = frame::lines(view, choice, columns as usize, rows.saturating_sub(1) as usize);
        super::print(&format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        std::io::stdout().write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| std::io::stdout().flush()).ok();
        terminal::set_modes(input(), &self.modes).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_turn_round_and_end() {
        let mut choice = Choice::default();
        assert!(obey(b'l', &mut choice) && choice.sort == SortKey::Lag && !choice.reverse);
        assert!(obey(b'l', &mut choice) && choice.reverse);
        assert!(obey(b'r', &mut choice) && choice.sort == SortKey::Received && !choice.reverse);
        assert!(obey(b'v', &mut choice) && choice.grouping == Grouping::Tenants);
        assert!(obey(b'x', &mut choice) && obey(27, &mut choice));
        assert!(!obey(b'q', &mut choice) && !obey(INTERRUPT, &mut choice));
    }
}
