//! `linux.netDevices`: interfaces of the host moved into the container, with their addresses.
//!
//! The kernel keeps an interface's MTU and hardware address when it moves and drops its IP addresses; the
//! permanent global ones are set again on the other side, where the interface is brought up. When the
//! container's namespace ends, the kernel gives physical interfaces back and destroys virtual ones.
//! Run by the parent, before the child goes on.

use std::ffi::CString;

use anyhow::{Context, Result, bail, ensure};

use crate::spec::{Map, NetDevice, Str};
use crate::sys::clone::{namespace, setns};
use crate::sys::{AsFd, AsRawFd, BorrowedFd, Call, Errno, OwnedFd, fs, netlink, socket};

#[derive(Debug, PartialEq, Eq)]
pub struct Move {
    pub from: String,
    /// The name it has in the container.
    pub to: String,
}

/// For a config that `spec::validate` has accepted: names the kernel takes, each once, and a private network.
pub fn plan(devices: &Map<'_, NetDevice<'_>>) -> Vec<Move> {
    let one = |(from, device): &(Str<'_>, NetDevice<'_>)| {
        let to = if device.name.is_empty() { from } else { &device.name };
        Move { from: from.to_string(), to: to.to_string() }
    };
    devices.iter().map(one).collect()
}

/// Moves every device into the network namespace of `pid`, a child that has not been waited for.
pub fn move_all(moves: &[Move], pid: i32) -> Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    let path = CString::new(format!("/proc/{pid}/ns/net"))?;
    let target = fs::openat(fs::CWD, &path, fs::OFlags::RDONLY, fs::Mode::empty());
    let target = target.with_context(|| format!("open {path:?}"))?;
    let target = target.as_fd();
    let host = Route::new(netlink::route_socket()?);
    let container = Route::new(socket_in(target)?);
    let what =
        |Move { from, to }: &Move| format!("move network device {from:?} into the container as {to:?}");
    // Everything that can be known is known before the first one goes: a virtual one would not come back.
    for device in moves {
        let check = || -> Result<()> {
            ensure!(host.index(&device.from)?.is_some(), "no such device");
            ensure!(container.index(&device.to)?.is_none(), "the container has a device of that name");
            Ok(())
        };
        check().with_context(|| what(device))?;
    }
    moves
        .iter()
        .try_for_each(|device| move_one(&host, &container, target, device).with_context(|| what(device)))
}

/// Brings up `lo` in the network namespace of `pid`, a child that has not been waited for.
pub fn bring_loopback_up(pid: i32) -> Result<()> {
    let path = CString::new(format!("/proc/{pid}/ns/net"))?;
    let target = fs::openat(fs::CWD, &path, fs::OFlags::RDONLY, fs::Mode::empty());
    let container = Route::new(socket_in(target.with_context(|| format!("open {path:?}"))?.as_fd())?);
    let index = container.index("lo")?.context("the container has no network interface \"lo\"")?;
    container.ask(Message::link_up(index)).context("bring up network interface \"lo\"")
}

/// A socket belongs to the namespace it is made in.
fn socket_in(target: BorrowedFd<'_>) -> Result<OwnedFd> {
    let own = fs::openat(fs::CWD, c"/proc/self/ns/net", fs::OFlags::RDONLY, fs::Mode::empty())
        .context("open \"/proc/self/ns/net\"")?;
    setns(target, namespace::NETWORK).context("enter the container's network namespace")?;
    let made = netlink::route_socket();
    setns(&own, namespace::NETWORK).context("go back to the own network namespace")?;
    Ok(made?)
}

fn move_one(host: &Route, container: &Route, target: BorrowedFd<'_>, device: &Move) -> Result<()> {
    let index = host.index(&device.from)?.context("no such device")?;
    let addresses = host.addresses(index)?;
    let there = Message::link(SET_LINK, index)
        .attribute(LINK_NAMESPACE_FD, &target.as_raw_fd().to_ne_bytes())
        .name(&device.to);
    host.ask(there)?;
    // Its number is another one where that was taken.
    let index = container.index(&device.to)?.context("it did not arrive")?;
    container.ask(Message::link_up(index))?;
    for address in addresses {
        container.ask(address.message(index))?;
    }
    Ok(())
}

const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const DUMP: u16 = 0x300;

const LINK_NAME: u16 = 3;
const LINK_NAMESPACE_FD: u16 = 28;

const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_BROADCAST: u16 = 4;
const ADDRESS_FLAGS: u16 = 8;

const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// A request as the kernel reads it: header, fixed part, attributes.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    fn link(kind: u16, index: u32) -> Self {
        let mut fixed = [0; LINK_HEADER];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        Self::new(kind, ACKNOWLEDGE, &fixed)
    }

    fn link_up(index: u32) -> Self {
        const UP: u32 = 1;
        let mut message = Self::link(SET_LINK, index);
        // Flags, and which of them are meant.
        for at in [HEADER + 8, HEADER + 12] {
            message.0[at..at + 4].copy_from_slice(&UP.to_ne_bytes());
        }
        message
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn name(self, name: &str) -> Self {
        self.attribute(LINK_NAME, &[name.as_bytes(), &[0]].concat())
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// An IP address of an interface, with the attributes that are carried over as they are.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

const PERMANENT: u32 = 0x80;
/// What the kernel itself says about an address: tentative, duplicate, deprecated, permanent, temporary.
const OBSERVED: u32 = 0x40 | 0x08 | 0x20 | PERMANENT | 0x01;

impl Address {
    /// None for other interfaces, for what the kernel or a router chose, and for what is not global.
    fn parse(body: &[u8], wanted: u32) -> Option<Self> {
        let fixed = body.get(..ADDRESS_HEADER)?;
        let (family, prefix, scope, index) = (fixed[0], fixed[1], fixed[3], word(fixed, 4));
        let mut address = Self { family, prefix, flags: fixed[2].into(), attributes: Vec::new() };
        for (kind, value) in attributes(&body[ADDRESS_HEADER..]) {
            match kind {
                ADDRESS_FLAGS if value.len() == 4 => address.flags = word(value, 0),
                ADDRESS | ADDRESS_LOCAL | ADDRESS_BROADCAST => {
                    address.attributes.push((kind, value.to_vec()));
                }
                _ => {}
            }
        }
        (index == wanted && scope == 0 && address.flags & PERMANENT != 0).then_some(address)
    }

    fn message(&self, index: u32) -> Message {
        let mut fixed = [self.family, self.prefix, 0, 0, 0, 0, 0, 0];
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        let message = Message::new(NEW_ADDRESS, ACKNOWLEDGE | CREATE | REPLACE, &fixed);
        let message = message.attribute(ADDRESS_FLAGS, &(self.flags & !OBSERVED).to_ne_bytes());
        self.attributes.iter().fold(message, |message, (kind, value)| message.attribute(*kind, value))
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// (kind, value) pairs; ends where the bytes make no sense.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..4)?;
        let (length, kind) = (usize::from(half(header, 0)), half(header, 2));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

/// (kind, body) of every message in what one read gave.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let (length, kind) = (word(header, 0) as usize, half(header, 4));
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Requests to one network namespace, one after the other.
struct Route {
    socket: OwnedFd,
}

/// No kernel message is longer.
const READ_MAX: usize = 64 * 1024;

impl Route {
    fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a request and passes every answer on until the last one.
    fn talk(&self, message: Message, mut take: impl FnMut(u16, &[u8])) -> Result<()> {
        socket::send(&self.socket, &message.finish())?;
        let mut buffer = vec![0; READ_MAX];
        loop {
            let length = socket::receive(&self.socket, &mut buffer)?;
            for (kind, body) in messages(&buffer[..length]) {
                match kind {
                    DONE => return Ok(()),
                    ERROR => return outcome(body),
                    kind => take(kind, body),
                }
            }
        }
    }

    fn ask(&self, message: Message) -> Result<()> {
        self.talk(message, |_, _| {})
    }

    /// None where no interface has that name.
    fn index(&self, name: &str) -> Result<Option<u32>> {
        let mut index = None;
        let result = self.talk(Message::link(GET_LINK, 0).name(name), |kind, body| {
            if kind == NEW_LINK && body.len() >= LINK_HEADER {
                index = Some(word(body, 4));
            }
        });
        match result {
            Err(error) if error.downcast_ref() == Some(&Call::Netlink.fault(Errno::NODEV)) => Ok(None),
            result => result.map(|()| index),
        }
    }

    fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let mut found = Vec::new();
        self.talk(Message::new(GET_ADDRESS, DUMP, &[0; ADDRESS_HEADER]), |kind, body| {
            if kind == NEW_ADDRESS {
                found.extend(Address::parse(body, index));
            }
        })?;
        Ok(found)
    }
}

/// The number in an error message; 0 is the acknowledgement.
fn outcome(body: &[u8]) -> Result<()> {
    match body.get(..4).map(|bytes| word(bytes, 0) as i32) {
        Some(0) => Ok(()),
        Some(errno @ -4095..=-1) => Err(Call::Netlink.fault(Errno::from_raw_os_error(-errno)).into()),
        _ => bail!("netlink: an error that cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_keep_their_name_unless_given_another() {
        let moves = plan(&serde_json::from_str(r#"{"eth1": {}, "eth2": {"name": "lan0"}}"#).unwrap());
        let pairs: Vec<_> = moves.iter().map(|m| (m.from.as_str(), m.to.as_str())).collect();
        assert_eq!(pairs, [("eth1", "eth1"), ("eth2", "lan0")]);
    }

    #[test]
    fn messages_are_laid_out_for_the_kernel() {
        let bytes = Message::link(GET_LINK, 7).name("lo").finish();
        assert_eq!(bytes.len(), HEADER + LINK_HEADER + 8);
        assert_eq!((word(&bytes, 0) as usize, half(&bytes, 4)), (bytes.len(), GET_LINK));
        assert_eq!(attributes(&bytes[HEADER + LINK_HEADER..]).collect::<Vec<_>>(), [(3, &b"lo\0"[..])]);
        assert_eq!(messages(&bytes).count(), 1);
    }

    #[test]
    fn bytes_cut_short_end_the_walk() {
        let bytes = Message::link(GET_LINK, 7).name("lo").finish();
        for length in 0..bytes.len() {
            assert_eq!(messages(&bytes[..length]).count(), 0);
            attributes(&bytes[..length]).for_each(drop);
        }
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }

    #[test]
    fn only_permanent_global_addresses_are_carried_over() {
        let address = |scope: u8, flags: u32, index: u32| {
            let mut fixed = [2, 24, 0, scope, 0, 0, 0, 0];
            fixed[4..].copy_from_slice(&index.to_ne_bytes());
            let message = Message::new(NEW_ADDRESS, 0, &fixed)
                .attribute(ADDRESS_LOCAL, &[10, 0, 0, 1])
                .attribute(ADDRESS_FLAGS, &flags.to_ne_bytes());
            Address::parse(&message.finish()[HEADER..], 5)
        };
        let found = address(0, PERMANENT | 0x200, 5).unwrap();
        assert_eq!(found.attributes, [(ADDRESS_LOCAL, vec![10, 0, 0, 1])]);
        let again = found.message(9).finish();
        assert_eq!(word(&again, HEADER + 4), 9);
        let flags = attributes(&again[HEADER + ADDRESS_HEADER..]).next().unwrap();
        assert_eq!(flags, (ADDRESS_FLAGS, &0x200u32.to_ne_bytes()[..]));
        assert_eq!(address(253, PERMANENT, 5), None);
        assert_eq!(address(0, 0, 5), None);
        assert_eq!(address(0, PERMANENT, 6), None);
    }

    #[test]
    fn the_kernel_knows_lo() {
        let route = Route::new(netlink::route_socket().unwrap());
        assert_eq!(route.index("lo").unwrap(), Some(1));
        assert_eq!(route.index("no-such-device").unwrap(), None);
        route.addresses(1).unwrap();
    }
}
