//! The seccomp agent: who decides about the system calls that a profile notifies of.

use std::ffi::CString;

use anyhow::{Context, Result};

use crate::container::{Record, Status};
use crate::launch::seccomp::ProcessState;
use crate::sys::{AsFd, OwnedFd, process, socket};

/// Gives the agent the listener, which is descriptor `fd` of the process behind `pidfd`.
pub fn introduce(record: &Record, pidfd: &OwnedFd, pid: i32, fd: i32, status: Status) -> Result<()> {
    let agent = record.listener.as_ref().context("linux.seccomp notifies, but has no listenerPath")?;
    let listener = process::pidfd_getfd(pidfd, fd).context("take over the seccomp listener")?;
    let state = ProcessState::new(&record.oci_version, pid, &agent.metadata, record.state(status));
    let address = CString::new(agent.path.as_str())?;
    let socket =
        socket::connect_stream(&address).with_context(|| format!("seccomp agent {:?}", agent.path))?;
    socket::send_with_fd(&socket, &state.to_json()?, listener.as_fd())
        .with_context(|| format!("send the seccomp listener to {:?}", agent.path))
}
