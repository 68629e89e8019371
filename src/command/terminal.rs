//! Who gets the terminal's master end: the console socket of the caller, or this process in the foreground.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::error::Failure;
use crate::sys::{OwnedFd, socket};

/// Where a terminal goes.
pub enum Console<'a> {
    None,
    Socket(&'a Path),
    Foreground,
}

impl<'a> Console<'a> {
    /// Refuses what fits together badly: a terminal needs somebody who holds its other end.
    pub fn choose(terminal: bool, socket: Option<&'a Path>, detached: bool) -> Result<Self> {
        match (terminal, socket) {
            (true, Some(socket)) => Ok(Console::Socket(socket)),
            (true, None) if detached => {
                let text = "cannot allocate tty if runc will detach without setting console socket";
                Err(Failure::usage(text).into())
            }
            (true, None) => Ok(Console::Foreground),
            (false, Some(_)) => {
                let text = "cannot use console socket if runc will not detach or allocate tty";
                Err(Failure::usage(text).into())
            }
            (false, None) => Ok(Console::None),
        }
    }

    /// The child's end, and ours where the master comes to us.
    pub fn open(&self) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        match self {
            Console::None => Ok((None, None)),
            Console::Socket(path) => {
                let address = CString::new(path.as_os_str().as_bytes())?;
                let socket = socket::connect_stream(&address);
                Ok((Some(socket.with_context(|| format!("console socket {path:?}"))?), None))
            }
            Console::Foreground => {
                let (ours, theirs) = socket::socketpair()?;
                Ok((Some(theirs), Some(ours)))
            }
        }
    }
}

/// The master end the child has sent.
pub fn receive(from: OwnedFd) -> Result<OwnedFd> {
    let mut name = [0; 64];
    match socket::receive_with_fd(&from, &mut name).context("receive the terminal")? {
        (_, Some(master)) => Ok(master),
        _ => bail!("the container sent no terminal"),
    }
}
