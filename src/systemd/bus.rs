//! A connection to systemd's manager: calls, their answers, and the end of jobs, all before a deadline.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::wire::{self, Message, Value};
use crate::sys::event::{self, Interest};
use crate::sys::{AsFd, Errno, OwnedFd, socket};

/// systemd that is busy, as while it reads all its units anew, answers within seconds; one that hangs never does.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Bus {
    socket: OwnedFd,
    patience: Duration,
    deadline: Instant,
    serial: u32,
    received: Vec<u8>,
    /// Jobs that have ended, with their results.
    ended: Vec<(String, String)>,
}

/// An error that systemd answered with.
#[derive(Debug)]
pub struct Refusal {
    pub name: String,
    pub text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.name.rsplit('.').next().unwrap_or_default();
        write!(f, "systemd says {kind}: {}", self.text.trim_end_matches('.'))
    }
}

impl std::error::Error for Refusal {}

impl Bus {
    /// Says who we are by our credentials, which the kernel tells systemd.
    pub fn connect(path: &Path) -> Result<Self> {
        Self::connect_within(path, PATIENCE)
    }

    /// All that is said over this connection takes no longer than `patience`.
    fn connect_within(path: &Path, patience: Duration) -> Result<Self> {
        let address = CString::new(path.as_os_str().as_bytes()).context("the path of systemd's socket")?;
        let socket =
            socket::connect_stream_within(&address, patience).map_err(|fault| match fault.errno {
                Errno::NOENT | Errno::CONNREFUSED => {
                    anyhow!("systemd does not run here (no {path:?}): use --cgroup-manager cgroupfs")
                }
                _ => anyhow::Error::new(fault).context(format!("reach systemd at {path:?}")),
            })?;
        let deadline = Instant::now() + patience;
        let mut bus = Self { socket, patience, deadline, serial: 0, received: Vec::new(), ended: Vec::new() };
        bus.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        loop {
            let lines = String::from_utf8_lossy(&bus.received).into_owned();
            if lines.contains("REJECTED") || lines.contains("ERROR") {
                bail!("systemd at {path:?} does not accept this user");
            }
            if let Some(end) =
                lines.find("OK ").and_then(|at| lines[at..].find("\r\n").map(|end| at + end + 2))
            {
                bus.received.drain(..end);
                return Ok(bus);
            }
            bus.receive()?;
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        socket::send_all(&self.socket, bytes).context("speak to systemd")
    }

    fn receive(&mut self) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("systemd did not answer within {} seconds", self.patience.as_secs());
        }
        if event::poll([(self.socket.as_fd(), Interest::Read)], Some(left))? == [false] {
            return Ok(());
        }
        let mut buffer = [0; 4096];
        match socket::receive(&self.socket, &mut buffer).context("listen to systemd")? {
            0 => bail!("systemd closed the connection"),
            length => self.received.extend_from_slice(&buffer[..length]),
        }
        Ok(())
    }

    fn message(&mut self) -> Result<Message> {
        loop {
            match wire::length(&self.received).context("listen to systemd")? {
                Some(length) if length <= self.received.len() => {
                    let message = wire::read(&self.received[..length]).context("listen to systemd")?;
                    self.received.drain(..length);
                    return Ok(message);
                }
                _ => self.receive()?,
            }
        }
    }

    /// Calls a method and gives the strings it answers with; an error of systemd's is a `Refusal`.
    pub fn call(&mut self, member: &str, arguments: &[Value]) -> Result<Vec<String>> {
        self.serial += 1;
        self.send(&wire::call(self.serial, member, arguments))?;
        loop {
            match self.message()? {
                Message::Reply { to, texts } if to == self.serial => return Ok(texts),
                Message::Error { to, name, texts } if to == self.serial => {
                    return Err(Refusal { name, text: texts.into_iter().next().unwrap_or_default() }.into());
                }
                other => self.note(other),
            }
        }
    }

    /// Calls a method that starts a job, and waits for its end.
    pub fn job(&mut self, member: &str, arguments: &[Value]) -> Result<()> {
        let job = self.call(member, arguments)?.into_iter().next().context("systemd named no job")?;
        loop {
            if let Some((_, result)) = self.ended.iter().find(|(ended, _)| *ended == job) {
                match result.as_str() {
                    "done" => return Ok(()),
                    result => bail!("the job of systemd ended as {result:?}"),
                }
            }
            let message = self.message()?;
            self.note(message);
        }
    }

    fn note(&mut self, message: Message) {
        if let Message::Signal { member, texts } = message {
            // Its texts: the job, the unit, the result.
            if let ("JobRemoved", [job, _, result]) = (member.as_str(), &texts[..]) {
                self.ended.push((job.clone(), result.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    /// What a call comes to when the other side greets with `greeting`, reads on, and then says no more, or hangs up.
    fn call(greeting: &'static [u8], hangs_up: bool) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("private");
        let listener = UnixListener::bind(&path).unwrap();
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting).unwrap();
            let mut rest = [0; 4096];
            while !hangs_up && stream.read(&mut rest).is_ok_and(|length| length > 0) {}
        });
        let limit = Duration::from_millis(300);
        let result = Bus::connect_within(&path, limit)
            .and_then(|mut bus| bus.job("StopUnit", &[Value::text("a.scope"), Value::text("replace")]));
        other.join().unwrap();
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn one_that_never_answers_is_not_waited_for_longer_than_the_deadline() {
        assert_eq!(call(b"", false), "systemd did not answer within 0 seconds");
        assert_eq!(call(b"OK 0\r\n", false), "systemd did not answer within 0 seconds");
    }

    #[test]
    fn one_that_refuses_or_talks_nonsense_is_told_from_one_that_is_slow() {
        assert!(call(b"REJECTED EXTERNAL\r\n", false).ends_with("does not accept this user"));
        let nonsense = call(b"OK 0\r\nno message of this kind, and sixteen bytes of it", false);
        assert!(nonsense.contains("listen to systemd"), "{nonsense}");
        let gone = call(b"OK 0\r\n", true);
        assert!(gone.contains("systemd closed the connection") || gone.contains("to systemd"), "{gone}");
    }
}
