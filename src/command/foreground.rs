//! Standing in for a container in the foreground: signals go to it, its terminal comes from ours, its end is ours.

use anyhow::{Context, Result};

use super::notify::Messenger;
use crate::error;
use crate::log;
use crate::sys::event::{self, Interest};
use crate::sys::process::{self, Exit, Pid, SignalSet};
use crate::sys::terminal::{self, Termios};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, fs};

pub const CHILD_ENDED: i32 = 17;
const WINDOW_CHANGED: i32 = 28;

/// Every signal is blocked from here on, so that none is lost or ends us before the container.
pub struct Foreground {
    messenger: Option<Messenger>,
}

impl Foreground {
    pub fn begin() -> Result<Self> {
        process::set_signal_mask(&SignalSet::all())?;
        Ok(Self { messenger: None })
    }

    /// Who waits for the container also tells the service manager when it is ready.
    pub fn passes_on(&mut self, messenger: Option<Messenger>) {
        self.messenger = messenger;
    }

    /// Waits for the end of `pid`, passes signals on until then and reaps the orphans that come to us.
    pub fn wait(&mut self, pid: Pid, pidfd: BorrowedFd<'_>) -> Result<Exit> {
        loop {
            if self.messenger.is_some() {
                self.listen_until_signalled()?;
            }
            match process::wait_signal(&SignalSet::all())? {
                CHILD_ENDED => {
                    if let Some(exit) = reap(pid) {
                        return Ok(exit);
                    }
                }
                signal => forward(pidfd, signal)?,
            }
        }
    }

    /// As `wait`, with the terminal whose master end is `master` connected to ours.
    pub fn wait_with_terminal(&mut self, pid: Pid, pidfd: BorrowedFd<'_>, master: OwnedFd) -> Result<Exit> {
        let screen = Screen::new(master)?;
        let signals = event::signalfd(&SignalSet::all())?;
        let (mut reading, mut typing) = (true, true);
        loop {
            let told = self.messenger.as_ref().map_or(signals.as_fd(), AsFd::as_fd);
            let [signalled, output, typed, told] = event::poll(
                [
                    (signals.as_fd(), Interest::Read),
                    (screen.master.as_fd(), interest(reading)),
                    (input(), interest(typing)),
                    (told, interest(self.messenger.is_some())),
                ],
                None,
            )?;
            if told {
                self.pass_on();
            }
            if output && reading {
                reading = screen.show()?;
            }
            if typed && typing {
                typing = screen.type_in()?;
            }
            if !signalled {
                continue;
            }
            while let Some(signal) = event::next_signal(&signals)? {
                match signal {
                    CHILD_ENDED => {
                        if let Some(exit) = reap(pid) {
                            screen.show_rest()?;
                            return Ok(exit);
                        }
                    }
                    WINDOW_CHANGED => screen.resize(),
                    signal => forward(pidfd, signal)?,
                }
            }
        }
    }
}

impl Foreground {
    /// Until the container is ready, or a signal arrives that has to be looked at: its end is one.
    fn listen_until_signalled(&mut self) -> Result<()> {
        let signals = event::signalfd(&SignalSet::all())?;
        while let Some(messenger) = &self.messenger {
            let waiting = [(signals.as_fd(), Interest::Read), (messenger.as_fd(), Interest::Read)];
            match event::poll(waiting, None)? {
                [_, true] => self.pass_on(),
                [true, false] => return Ok(()),
                _ => (),
            }
        }
        Ok(())
    }

    /// This process stands for the container, so it is the one that counts.
    fn pass_on(&mut self) {
        let Some(messenger) = &self.messenger else { return };
        match messenger.pass_on(process::own_pid().as_raw_nonzero().get()) {
            Ok(false) => (),
            Ok(true) => self.messenger = None,
            Err(failure) => {
                // The container goes on all the same.
                log::warning(&error::sentence(&failure));
                self.messenger = None;
            }
        }
    }
}

/// The fate of `pid`, if it is among the children that have ended.
fn reap(pid: Pid) -> Option<Exit> {
    loop {
        match process::reap()? {
            (ended, exit) if ended == pid => return Some(exit),
            _ => continue,
        }
    }
}

fn forward(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    match process::pidfd_send_signal(pidfd, signal) {
        // It has ended meanwhile; the next signal tells us so.
        Err(fault) if fault.errno == Errno::SRCH => Ok(()),
        result => result.with_context(|| format!("pass signal {signal} on")),
    }
}

fn interest(wanted: bool) -> Interest {
    if wanted { Interest::Read } else { Interest::Nothing }
}

fn input() -> BorrowedFd<'static> {
    crate::sys::borrow(0)
}

/// Our terminal in raw mode, connected to the container's. Dropping it gives the modes back.
struct Screen {
    master: OwnedFd,
    /// None where our input is no terminal.
    modes: Option<Termios>,
}

impl Screen {
    fn new(master: OwnedFd) -> Result<Self> {
        let modes = terminal::modes(input()).ok();
        if let Some(modes) = &modes {
            terminal::set_modes(input(), &terminal::raw(modes)).context("switch the terminal to raw mode")?;
        }
        let screen = Self { master, modes };
        screen.resize();
        Ok(screen)
    }

    fn resize(&self) {
        if let Ok((rows, columns)) = terminal::size(input()) {
            // The container may have ended just now; its size no longer matters then.
            terminal::set_size(&self.master, rows, columns).ok();
        }
    }

    /// Shows what the container wrote; false at the end, which a pty tells by EIO.
    fn show(&self) -> Result<bool> {
        let mut bytes = [0; 8192];
        match fs::read(&self.master, &mut bytes) {
            Ok(0) => Ok(false),
            Ok(length) => write_all(crate::sys::borrow(1), &bytes[..length]).map(|()| true),
            Err(fault) if fault.errno == Errno::IO => Ok(false),
            Err(fault) => Err(fault).context("read the container's terminal"),
        }
    }

    /// What was written before the end and not yet read. Orphans may keep the terminal open, so this does not wait.
    fn show_rest(&self) -> Result<()> {
        let now = Some(std::time::Duration::ZERO);
        while event::poll([(self.master.as_fd(), Interest::Read)], now)? == [true] && self.show()? {}
        Ok(())
    }

    /// Passes on what was typed; at its end the container's reader sees end of file, too.
    fn type_in(&self) -> Result<bool> {
        const END_OF_TRANSMISSION: u8 = 4;
        let mut bytes = [0; 4096];
        let length = fs::read(input(), &mut bytes).context("read standard input")?;
        let typed = if length == 0 { &[END_OF_TRANSMISSION][..] } else { &bytes[..length] };
        match write_all(self.master.as_fd(), typed) {
            Ok(()) => Ok(length > 0),
            // Nobody reads any more; the end will be told by signal.
            Err(_) => Ok(false),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(modes) = &self.modes {
            // A terminal that is gone needs no modes.
            terminal::set_modes(input(), modes).ok();
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let written = fs::write(to, bytes).context("write to the terminal")?;
        bytes = &bytes[written..];
    }
    Ok(())
}
