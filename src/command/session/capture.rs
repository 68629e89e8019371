//! Standing outside while a command runs: what it writes is passed on and remembered, signals go to it, and its end
//! comes back over the socket.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::inside::{self, Offer, Report};
use crate::session::live::Announced;
use crate::session::policy::Bounds;
use crate::session::transition::{Piece, Stream};
use crate::sys::event::{self, Interest};
use crate::sys::process::{self, SignalSet};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, borrow, fs, socket, terminal};

const CHILD_ENDED: i32 = 17;
const KILL: i32 = 9;
const WINDOW_CHANGED: i32 = 28;
const END_OF_TRANSMISSION: u8 = 4;

/// A command that writes more is not kept.
const MOST_KEPT: usize = 64 << 20;

/// This process's ends of what the command has.
pub struct Ends {
    pub control: OwnedFd,
    pub out: OwnedFd,
    pub err: OwnedFd,
}

/// The command's ends, to be sent to process 1.
pub struct Streams {
    pub input: OwnedFd,
    pub out: OwnedFd,
    pub err: OwnedFd,
}

/// What was seen of a run.
pub struct Seen {
    pub output: Vec<Piece>,
    /// None: it ended without a word.
    pub report: Option<Report>,
    pub took: Duration,
    /// Somebody told the command to stop, or it was too slow.
    pub disturbed: Option<&'static str>,
    /// It wrote more than is kept.
    pub too_much: bool,
}

/// Both sides of a run; the child's end of the socket comes last, to be its standard input.
pub fn ends(input: OwnedFd) -> Result<(Ends, Streams, OwnedFd)> {
    let (control, theirs) = socket::socketpair()?;
    let ((out, their_out), (err, their_err)) = (fs::pipe()?, fs::pipe()?);
    Ok((Ends { control, out, err }, Streams { input, out: their_out, err: their_err }, theirs))
}

impl Streams {
    pub fn send(self, control: &OwnedFd, manner: &Manner<'_>) -> Result<()> {
        let offer = Offer { kept: manner.left.is_some(), terminal: manner.terminal };
        let offer = serde_json::to_vec(&offer).context("write what the command gets")?;
        for stream in [&self.input, &self.out, &self.err] {
            socket::send_with_fd(control, &offer, stream.as_fd()).context("hand the streams over")?;
        }
        Ok(())
    }
}

/// What is done when a command has ended and left processes that go on in a container, with what was seen until then.
pub type Left<'l> = &'l mut dyn FnMut(&str, &Report, &Seen) -> Result<()>;

/// How a command is followed.
#[derive(Default)]
pub struct Manner<'m> {
    pub limit: Option<Duration>,
    /// Nothing is passed on.
    pub quiet: bool,
    /// Where others may look at it.
    pub announced: Option<&'m Announced>,
    /// None: what the command leaves behind is ended.
    pub left: Option<Left<'m>>,
    /// The container's name.
    pub container: String,
    /// Rows and columns of the command's terminal, if it has one.
    pub terminal: Option<(u32, u32)>,
    /// The terminal somebody types at.
    pub keyboard: Option<OwnedFd>,
    /// Whose command it is.
    pub session: String,
    pub bounds: Bounds,
}

struct Watch<'m> {
    ends: Ends,
    begin: Instant,
    manner: Manner<'m>,
    words: Vec<u8>,
    kept: usize,
    seen: Seen,
    /// The command has ended, and what it has left goes on.
    is_live: bool,
    /// What goes on was told to end.
    is_told: bool,
}

/// Follows a command until process 1 of its container, `init`, is gone and all it wrote is read.
pub fn follow(mut ends: Ends, init: BorrowedFd<'_>, mut manner: Manner<'_>) -> Result<Seen> {
    let begin = Instant::now();
    let limit = manner.limit;
    let mut screen = None;
    if manner.terminal.is_some() {
        ends.out = take_over(&ends.control)?;
        screen = manner.keyboard.take().map(Keyboard::new).transpose()?;
        if screen.is_none() {
            // Nobody will ever type anything.
            fs::write(&ends.out, &[END_OF_TRANSMISSION]).context("write to the command's terminal")?;
        }
    }
    let seen =
        Seen { output: Vec::new(), report: None, took: Duration::ZERO, disturbed: None, too_much: false };
    let mut watch =
        Watch { ends, begin, manner, words: Vec::new(), kept: 0, seen, is_live: false, is_told: false };
    let signals = event::signalfd(&SignalSet::all())?;
    let (mut out, mut err, mut control, mut keys) = (true, true, true, screen.is_some());
    while out || err || control {
        let limit = limit.filter(|_| !watch.is_live);
        let left = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
        let interest = |wanted| if wanted { Interest::Read } else { Interest::Nothing };
        let silent = signals.as_fd();
        let typing = screen.as_ref().filter(|_| keys).map_or(silent, |screen| screen.fd.as_fd());
        let waiting = [
            (if out { watch.ends.out.as_fd() } else { silent }, interest(out)),
            (if err { watch.ends.err.as_fd() } else { silent }, interest(err)),
            (if control { watch.ends.control.as_fd() } else { silent }, interest(control)),
            (signals.as_fd(), Interest::Read),
            (typing, interest(keys)),
        ];
        let [out_ready, err_ready, control_ready, signalled, typed] = event::poll(waiting, left)?;
        if let Some(screen) = screen.as_ref().filter(|_| keys && typed) {
            keys = watch.type_in(screen)?;
        }
        if out && out_ready {
            out = watch.read(Stream::Out)?;
        }
        if err && err_ready {
            err = watch.read(Stream::Err)?;
        }
        if control && control_ready {
            control = watch.listen()?;
        }
        if signalled {
            watch.pass_on(&signals, init, screen.as_ref())?;
        }
        if left == Some(Duration::ZERO) && watch.seen.disturbed != Some(TOO_SLOW) {
            watch.seen.disturbed = Some(TOO_SLOW);
            tell(init, KILL)?;
        }
        // After the end a limit means nothing, and would only make this loop turn.
        if watch.seen.disturbed == Some(TOO_SLOW) {
            return watch.drain(init);
        }
    }
    Ok(watch.end())
}

/// The other end of the terminal that process 1 has made for the command.
fn take_over(control: &OwnedFd) -> Result<OwnedFd> {
    let mut name = [0; 64];
    let (length, fd) =
        socket::receive_with_fd(control, &mut name).context("receive the command's terminal")?;
    fd.filter(|_| name[..length] == *inside::TERMINAL).context("the command's terminal could not be made")
}

/// Our own terminal in raw mode, so that every key is the command's. Dropped, it is as it was.
struct Keyboard {
    fd: OwnedFd,
    modes: terminal::Termios,
}

impl Keyboard {
    fn new(fd: OwnedFd) -> Result<Self> {
        let modes = terminal::modes(&fd)?;
        terminal::set_modes(&fd, &terminal::raw(&modes))?;
        Ok(Self { fd, modes })
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // A terminal that is gone needs no modes.
        terminal::set_modes(&self.fd, &self.modes).ok();
    }
}

pub const TOO_SLOW: &str = "it took too long";

impl Watch<'_> {
    /// False at the end.
    fn read(&mut self, stream: Stream) -> Result<bool> {
        let (from, to) = match stream {
            Stream::Out => (&self.ends.out, 1),
            Stream::Err => (&self.ends.err, 2),
        };
        let mut buffer = [0; 32 << 10];
        let bytes = match fs::read(from, &mut buffer) {
            Ok(0) => return Ok(false),
            // So ends what comes from a terminal.
            Err(fault) if fault.errno == Errno::IO && self.manner.terminal.is_some() => return Ok(false),
            length => &buffer[..length.context("read what the command writes")?],
        };
        let after = self.begin.elapsed();
        self.kept += bytes.len();
        if self.kept > MOST_KEPT {
            self.seen.too_much = true;
            self.seen.output.clear();
        }
        let piece = Piece { stream, after, bytes: bytes.to_vec() };
        if self.manner.announced.is_some_and(|announced| announced.write(&piece).is_err()) {
            // That nobody can look on is no reason to stop a run.
            self.manner.announced = None;
        }
        if !self.seen.too_much && !self.is_live {
            self.seen.output.push(piece);
        }
        if !self.manner.quiet && write_all(to, bytes).is_err() {
            // Whoever read it is gone, which is no reason to stop a run that others may wait for.
            self.manner.quiet = true;
        }
        Ok(true)
    }

    fn has_more(&self, stream: Stream) -> Result<bool> {
        let from = if stream == Stream::Out { &self.ends.out } else { &self.ends.err };
        Ok(event::poll([(from.as_fd(), Interest::Read)], Some(Duration::ZERO))? == [true])
    }

    fn listen(&mut self) -> Result<bool> {
        let mut buffer = vec![0; 64 << 10];
        match socket::receive(&self.ends.control, &mut buffer) {
            Ok(length) if length > 0 => {
                self.words.extend_from_slice(&buffer[..length]);
                while let Some(end) = self.words.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.words.drain(..=end).collect();
                    self.reported(serde_json::from_slice(&line).context("read the container's report")?)?;
                }
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(fault) if fault.errno == Errno::CONNRESET => Ok(false),
            Err(fault) => Err(fault).context("listen to the container"),
        }
    }

    fn reported(&mut self, report: Report) -> Result<()> {
        self.seen.report = Some(report.clone());
        if report.left == 0 || self.is_live {
            return Ok(());
        }
        let Some(left) = self.manner.left.take() else { return Ok(()) };
        // What the command wrote is there by now; what comes later is somebody else's.
        for stream in [Stream::Out, Stream::Err] {
            while self.has_more(stream)? && self.read(stream)? {}
        }
        self.seen.took = self.begin.elapsed();
        left(&self.manner.container, &report, &self.seen)?;
        (self.is_live, self.manner.quiet) = (true, true);
        Ok(())
    }

    /// Passes on what was typed; false when there is nobody any more.
    fn type_in(&mut self, screen: &Keyboard) -> Result<bool> {
        let mut bytes = [0; 4096];
        let length = fs::read(&screen.fd, &mut bytes).context("read what is typed")?;
        let typed = if length == 0 { &[END_OF_TRANSMISSION][..] } else { &bytes[..length] };
        self.seen.disturbed = self.seen.disturbed.or(Some("somebody typed at its terminal"));
        // A command that has ended takes no more keys.
        Ok(fs::write(&self.ends.out, typed).is_ok() && length > 0)
    }

    fn pass_on(&mut self, signals: &OwnedFd, init: BorrowedFd<'_>, screen: Option<&Keyboard>) -> Result<()> {
        while let Some(signal) = event::next_signal(signals)? {
            if signal == CHILD_ENDED || (signal == WINDOW_CHANGED && screen.is_none()) {
                continue;
            }
            if let Some(screen) = screen.filter(|_| signal == WINDOW_CHANGED) {
                let (rows, columns) = terminal::size(&screen.fd)?;
                terminal::set_size(&self.ends.out, rows, columns).ok();
                self.seen.disturbed = self.seen.disturbed.or(Some("its terminal changed its size"));
                continue;
            }
            self.seen.disturbed = Some("it was signalled from outside");
            // What goes on after its command is asked once, and then ended.
            let again = std::mem::replace(&mut self.is_told, self.is_live);
            tell(init, if again { KILL } else { signal })?;
        }
        Ok(())
    }

    /// What a killed container has still written.
    fn drain(mut self, init: BorrowedFd<'_>) -> Result<Seen> {
        event::poll([(init, Interest::Read)], None)?;
        for stream in [Stream::Out, Stream::Err] {
            while self.read(stream)? {}
        }
        Ok(self.end())
    }

    fn end(mut self) -> Seen {
        if !self.is_live {
            self.seen.took = self.begin.elapsed();
        }
        self.seen
    }
}

fn tell(init: BorrowedFd<'_>, signal: i32) -> Result<()> {
    match process::pidfd_send_signal(init, signal) {
        Err(fault) if fault.errno == Errno::SRCH => Ok(()),
        result => result.with_context(|| format!("pass signal {signal} on")),
    }
}

pub fn write_all(to: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let written = fs::write(borrow(to), bytes).context("write the output")?;
        bytes = &bytes[written..];
    }
    Ok(())
}
