//! Unix sockets: whole messages, and descriptors sent along.

use std::ffi::CStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::time::Duration;

use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::{AsFd, BorrowedFd, Call, Errno, OwnedFd, Result};

/// The two ends of a connection that keeps messages apart.
pub fn socketpair() -> Result<(OwnedFd, OwnedFd)> {
    net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Call::Socket.fault(errno))
}

fn unix_socket(kind: SocketType) -> Result<OwnedFd> {
    net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Call::Socket.fault(errno))
}

/// Listens at `path` for one client after the other, whole messages.
pub fn listen_messages(path: &CStr) -> Result<OwnedFd> {
    let socket = unix_socket(SocketType::SEQPACKET)?;
    let address = SocketAddrUnix::new(path).map_err(|errno| Call::Bind.fault(errno))?;
    net::bind(&socket, &address).map_err(|errno| Call::Bind.fault(errno))?;
    net::listen(&socket, 8).map_err(|errno| Call::Listen.fault(errno))?;
    Ok(socket)
}

pub fn accept(listener: impl AsFd) -> Result<OwnedFd> {
    rustix::io::retry_on_intr(|| net::accept_with(&listener, SocketFlags::CLOEXEC))
        .map_err(|errno| Call::Accept.fault(errno))
}

pub fn connect_messages(path: &CStr) -> Result<OwnedFd> {
    connect(path, SocketType::SEQPACKET)
}

pub fn connect_stream(path: &CStr) -> Result<OwnedFd> {
    connect(path, SocketType::STREAM)
}

/// As `connect_stream`, where neither this call nor a send on the socket takes longer than `limit`.
pub fn connect_stream_within(path: &CStr, limit: Duration) -> Result<OwnedFd> {
    let socket = unix_socket(SocketType::STREAM)?;
    net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Send, Some(limit))
        .map_err(|errno| Call::Socket.fault(errno))?;
    let address = SocketAddrUnix::new(path).map_err(|errno| Call::Connect.fault(errno))?;
    net::connect(&socket, &address).map_err(|errno| Call::Connect.fault(errno))?;
    Ok(socket)
}

/// Receives datagrams at `path`.
pub fn bind_datagrams(path: &CStr) -> Result<OwnedFd> {
    let socket = unix_socket(SocketType::DGRAM)?;
    let address = SocketAddrUnix::new(path).map_err(|errno| Call::Bind.fault(errno))?;
    net::bind(&socket, &address).map_err(|errno| Call::Bind.fault(errno))?;
    Ok(socket)
}

/// Sends datagrams to a path, or to the abstract name that follows an at sign.
pub fn connect_datagrams(name: &[u8]) -> Result<OwnedFd> {
    let socket = unix_socket(SocketType::DGRAM)?;
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(name),
    };
    let address = address.map_err(|errno| Call::Connect.fault(errno))?;
    net::connect(&socket, &address).map_err(|errno| Call::Connect.fault(errno))?;
    Ok(socket)
}

fn connect(path: &CStr, kind: SocketType) -> Result<OwnedFd> {
    let socket = unix_socket(kind)?;
    let address = SocketAddrUnix::new(path).map_err(|errno| Call::Connect.fault(errno))?;
    net::connect(&socket, &address).map_err(|errno| Call::Connect.fault(errno))?;
    Ok(socket)
}

/// Sends one message. A receiver that is gone is an error, never a signal.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> Result<()> {
    rustix::io::retry_on_intr(|| net::send(&socket, bytes, SendFlags::NOSIGNAL))
        .map(drop)
        .map_err(|errno| Call::Send.fault(errno))
}

/// Sends all of `bytes` on a stream.
pub fn send_all(socket: impl AsFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let sent = rustix::io::retry_on_intr(|| net::send(&socket, bytes, SendFlags::NOSIGNAL))
            .map_err(|errno| Call::Send.fault(errno))?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Sends one message and a copy of `fd`.
pub fn send_with_fd(socket: impl AsFd, bytes: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Call::Send.fault(Errno::NOBUFS));
    }
    net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|errno| Call::Send.fault(errno))
}

/// Receives one message; zero bytes mean that the other end is closed.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    rustix::io::retry_on_intr(|| net::recv(&socket, &mut *buffer, RecvFlags::empty()))
        .map(|(length, _)| length)
        .map_err(|errno| Call::Receive.fault(errno))
}

/// Receives one message and the first descriptor that came with it.
pub fn receive_with_fd(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(&mut *buffer)];
        match net::recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => continue,
            result => break result.map_err(|errno| Call::Receive.fault(errno))?,
        }
    };
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(Call::Receive.fault(Errno::MSGSIZE));
    }
    let fd = ancillary.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((message.bytes, fd))
}
