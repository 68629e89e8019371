//! Network interfaces: the routing socket and the one ioctl the child needs.

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::{AsRawFd, Call, OwnedFd, Result, last_errno};

/// A socket that asks about and changes the interfaces of the network namespace it was made in.
pub fn route_socket() -> Result<OwnedFd> {
    // Protocol 0 is NETLINK_ROUTE.
    net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Call::Socket.fault(errno))
}

#[repr(C)]
struct InterfaceFlags {
    name: [u8; 16],
    flags: i16,
    padding: [u8; 22],
}

/// Brings up `lo` in the network namespace of the caller. Leaves a descriptor open that exec closes: the caller is
/// a child on its way there.
pub fn bring_loopback_up() -> Result<()> {
    // Any socket passes this ioctl on; one of this family needs no protocol to be loaded.
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let socket = super::leak(socket.map_err(|errno| Call::Socket.fault(errno))?);
    let mut request = InterfaceFlags { name: [0; 16], flags: libc::IFF_UP as i16, padding: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the structure is a whole ifreq, 40 bytes, of which the kernel reads the name and the flags.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result < 0 { Err(Call::Ioctl.fault(last_errno())) } else { Ok(()) }
}
