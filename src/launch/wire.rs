//! What child and parent say to each other: fixed little messages, so that the child needs no heap.
//!
//! ```text
//!  parent (create, run, exec)                         child
//!    clone3 ------------------------------------------> born in its cgroup and namespaces
//!    write id maps, move interfaces
//!      Continue --------------------------------------> user namespace only
//!    make the network namespace
//!      Continue, with its descriptor -----------------> joins it before what shows it (where no hooks run here)
//!    run prestart and createRuntime hooks  <---Reached- RuntimeHooks, only where there are such hooks
//!      Continue --------------------------------------> rootfs, identity
//!    limits, record                        <---Reached- Created (in `run`, the answer may be there already)
//!      Continue --------------------------------------> `create`: waits on start.sock
//!                                                       when the parent is gone instead: exits
//!
//!  starter (start; in run and exec the parent)
//!      Continue --------------------------------------> startContainer hooks (`start` only)
//!    answer with the state                 <---Reached- State, only where a hook runs in the child
//!    hand the listener to its agent        <---Listener filter loaded, only where it notifies
//!      Continue --------------------------------------> capabilities
//!                                          <------Ready only exec is left
//!    end of file: it runs                               exec closes the socket
//! ```
//! A `Fault` may come instead of any message from the child. End of file before `Ready` is never success.

use crate::sys::{Call, Errno, Fault};

/// A place where the child stops until the other side answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    RuntimeHooks,
    Created,
    /// The answer is the container's state as JSON, for hooks that run in the child.
    State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// Step number `step` of the plan failed.
    Fault {
        step: u16,
        fault: Fault,
    },
    Reached(Barrier),
    /// The seccomp filter is loaded; its listener is this descriptor of the child.
    Listener(i32),
    /// The middle process has made the real child, which has this pid.
    Relayed(i32),
    Ready,
}

pub const LENGTH: usize = 8;

/// A fault with the words behind it.
pub const LONGEST: usize = 512;

/// What the parent sends to let the child go on; a State barrier is answered with the state instead.
pub const CONTINUE: &[u8] = b"continue";

/// `CONTINUE` and the signals that are not to be ignored any more, signal N as bit N - 1.
pub const LONGEST_CONTINUE: usize = CONTINUE.len() + size_of::<u32>();

pub fn continue_without(signals: u32) -> [u8; LONGEST_CONTINUE] {
    let mut bytes = [0; LONGEST_CONTINUE];
    let (word, number) = bytes.split_at_mut(CONTINUE.len());
    word.copy_from_slice(CONTINUE);
    number.copy_from_slice(&signals.to_ne_bytes());
    bytes
}

/// What a word to go on says about signals.
pub fn signals(answer: &[u8]) -> u32 {
    let number = answer.get(CONTINUE.len()..).and_then(|bytes| bytes.try_into().ok());
    number.map_or(0, u32::from_ne_bytes)
}

/// The kernel's bound.
const MAX_ERRNO: u16 = 4095;

impl Message {
    pub fn encode(self) -> [u8; LENGTH] {
        let (tag, first, second, third) = match self {
            Message::Fault { step, fault } => (1, step, fault.call as u16, fault.errno.raw_os_error() as u16),
            Message::Reached(barrier) => (2, barrier as u16, 0, 0),
            Message::Listener(fd) => (3, fd as u16, (fd >> 16) as u16, 0),
            Message::Relayed(pid) => (4, pid as u16, (pid >> 16) as u16, 0),
            Message::Ready => (5, 0, 0, 0),
        };
        let mut bytes = [0; LENGTH];
        for (place, word) in [tag, first, second, third].into_iter().enumerate() {
            bytes[place * 2..place * 2 + 2].copy_from_slice(&u16::to_ne_bytes(word));
        }
        bytes
    }

    /// None for bytes that no `encode` made. What follows the first `LENGTH` bytes is not looked at.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let bytes = bytes.get(..LENGTH)?;
        let word = |place: usize| u16::from_ne_bytes([bytes[place * 2], bytes[place * 2 + 1]]);
        let number = i32::from(word(1)) | i32::from(word(2)) << 16;
        match word(0) {
            1 => {
                let errno = (1..=MAX_ERRNO).contains(&word(3)).then(|| word(3).into())?;
                let fault = Call::from_number(word(2))?.fault(Errno::from_raw_os_error(errno));
                Some(Message::Fault { step: word(1), fault })
            }
            2 => [Barrier::RuntimeHooks, Barrier::Created, Barrier::State]
                .into_iter()
                .find(|barrier| *barrier as u16 == word(1))
                .map(Message::Reached),
            3 => Some(Message::Listener(number)),
            4 => Some(Message::Relayed(number)),
            5 => Some(Message::Ready),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        for message in [
            Message::Fault { step: 31, fault: Call::Xattr.fault(Errno::PERM) },
            Message::Reached(Barrier::RuntimeHooks),
            Message::Reached(Barrier::Created),
            Message::Reached(Barrier::State),
            Message::Listener(70_000),
            Message::Relayed(4_194_303),
            Message::Ready,
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn short_or_foreign_bytes_are_no_message() {
        assert_eq!(Message::decode(&[]), None);
        assert_eq!(Message::decode(&[1, 0, 0]), None);
        assert_eq!(Message::decode(&[0xff; LENGTH]), None);
    }
}
