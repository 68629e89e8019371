//! Standing outside while a command runs: what it writes is passed on and remembered, signals go to it, and its end
//! comes back over the socket.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::inside::Report;
use crate::session::transition::{Piece, Stream};
use crate::sys::event::{self, Interest};
use crate::sys::process::{self, SignalSet};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, borrow, fs, socket};

const CHILD_ENDED: i32 = 17;
const KILL: i32 = 9;

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
    pub fn send(self, control: &OwnedFd) -> Result<()> {
        for stream in [&self.input, &self.out, &self.err] {
            socket::send_with_fd(control, b"stream", stream.as_fd()).context("hand the streams over")?;
        }
        Ok(())
    }
}

struct Watch<'w> {
    ends: &'w Ends,
    begin: Instant,
    quiet: bool,
    words: Vec<u8>,
    kept: usize,
    seen: Seen,
}

/// Follows a command until process 1 of its container, `init`, is gone and all it wrote is read.
pub fn follow(ends: &Ends, init: BorrowedFd<'_>, limit: Option<Duration>, quiet: bool) -> Result<Seen> {
    let begin = Instant::now();
    let seen =
        Seen { output: Vec::new(), report: None, took: Duration::ZERO, disturbed: None, too_much: false };
    let mut watch = Watch { ends, begin, quiet, words: Vec::new(), kept: 0, seen };
    let signals = event::signalfd(&SignalSet::all())?;
    let (mut out, mut err, mut control) = (true, true, true);
    while out || err || control {
        let left = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
        let interest = |wanted| if wanted { Interest::Read } else { Interest::Nothing };
        let waiting = [
            (ends.out.as_fd(), interest(out)),
            (ends.err.as_fd(), interest(err)),
            (ends.control.as_fd(), interest(control)),
            (signals.as_fd(), Interest::Read),
        ];
        let [out_ready, err_ready, control_ready, signalled] = event::poll(waiting, left)?;
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
            watch.pass_on(&signals, init)?;
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

pub const TOO_SLOW: &str = "it took too long";

impl Watch<'_> {
    /// False at the end.
    fn read(&mut self, stream: Stream) -> Result<bool> {
        let (from, to) = match stream {
            Stream::Out => (&self.ends.out, 1),
            Stream::Err => (&self.ends.err, 2),
        };
        let mut buffer = [0; 32 << 10];
        let bytes = match fs::read(from, &mut buffer).context("read what the command writes")? {
            0 => return Ok(false),
            length => &buffer[..length],
        };
        let after = self.begin.elapsed();
        self.kept += bytes.len();
        if self.kept > MOST_KEPT {
            self.seen.too_much = true;
            self.seen.output.clear();
        } else {
            self.seen.output.push(Piece { stream, after, bytes: bytes.to_vec() });
        }
        if !self.quiet && write_all(to, bytes).is_err() {
            // Whoever read it is gone, which is no reason to stop a run that others may wait for.
            self.quiet = true;
        }
        Ok(true)
    }

    fn listen(&mut self) -> Result<bool> {
        let mut buffer = vec![0; 64 << 10];
        match socket::receive(&self.ends.control, &mut buffer) {
            Ok(length) if length > 0 => {
                self.words.extend_from_slice(&buffer[..length]);
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(fault) if fault.errno == Errno::CONNRESET => Ok(false),
            Err(fault) => Err(fault).context("listen to the container"),
        }
    }

    fn pass_on(&mut self, signals: &OwnedFd, init: BorrowedFd<'_>) -> Result<()> {
        while let Some(signal) = event::next_signal(signals)? {
            if signal != CHILD_ENDED {
                self.seen.disturbed = Some("it was signalled from outside");
                tell(init, signal)?;
            }
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
        self.seen.took = self.begin.elapsed();
        self.seen.report = serde_json::from_slice(&self.words).ok();
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
