//! The outside end of the child's socket: of the parent during a launch, of `start` after it.

use anyhow::{Result, anyhow};

use super::wire::{self, Barrier, Message};
use crate::sys::event::{self, Interest};
use crate::sys::{AsFd, BorrowedFd, Call, Errno, Fault, OwnedFd, socket};

pub struct Conversation {
    socket: OwnedFd,
    ignored: u32,
}

/// How far the child has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Milestone {
    /// Everything is set up and the child waits for `start`.
    Created,
    /// The container's own program runs.
    Running,
}

/// What the child needs before it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// The hooks that run in the runtime's namespaces are due.
    RuntimeHooks,
    /// Everything is set up; it is time to write it down.
    Created,
    /// The state, for hooks that run in the child.
    State,
    /// The seccomp listener is this descriptor of the child.
    Listener(i32),
}

#[derive(Debug)]
pub enum Reply {
    Continue,
    State(Vec<u8>),
}

#[derive(Debug)]
pub enum Trouble {
    /// Step `step`, counted from zero, failed; `words` is what the child knew to say about it.
    Fault { step: usize, fault: Fault, words: String },
    /// The other end is gone without a word.
    Closed,
    /// Not the child's fault.
    Other(anyhow::Error),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Other(fault.into())
    }
}

impl Conversation {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, ignored: 0 }
    }

    /// The child learns with the next word to go on which signals its caller has left it ignored.
    pub(super) fn set_ignored(&mut self, signals: u32) {
        self.ignored = signals;
    }

    /// A child that is gone already has left its reason, which `until` finds.
    pub fn proceed(&self) -> Result<(), Fault> {
        let sent = match self.ignored {
            0 => socket::send(&self.socket, wire::CONTINUE),
            signals => socket::send(&self.socket, &wire::continue_without(signals)),
        };
        match sent {
            Err(fault) if matches!(fault.errno, Errno::PIPE | Errno::CONNRESET) => Ok(()),
            result => result,
        }
    }

    /// Lets the child go on, with a descriptor it needs for that.
    pub(super) fn hand_over(&self, fd: BorrowedFd<'_>) -> Result<(), Fault> {
        socket::send_with_fd(&self.socket, wire::CONTINUE, fd)
    }

    /// Sleeps through everything the child says until it has nothing more to say, for a child that asks nothing:
    /// one wake-up instead of one for each message.
    pub fn until_silent(&self) -> Result<(), Trouble> {
        event::poll([(self.socket.as_fd(), Interest::Nothing)], None)?;
        let mut never = |question| Err(anyhow!("the child asks for {question:?} out of turn"));
        self.until(Milestone::Running, &mut never)
    }

    /// Talks until the child has come as far as `milestone`, and answers what it asks on the way.
    pub fn until(
        &self,
        milestone: Milestone,
        answer: &mut dyn FnMut(Question) -> Result<Reply>,
    ) -> Result<(), Trouble> {
        let mut ready = false;
        loop {
            let question = match self.next() {
                Ok(Message::Ready) => {
                    ready = true;
                    continue;
                }
                Err(Trouble::Closed) if ready => return Ok(()),
                Err(trouble) => return Err(trouble),
                Ok(Message::Reached(Barrier::RuntimeHooks)) => Question::RuntimeHooks,
                Ok(Message::Reached(Barrier::State)) => Question::State,
                Ok(Message::Reached(Barrier::Created)) => Question::Created,
                Ok(Message::Listener(fd)) => Question::Listener(fd),
                Ok(message) => return Err(Trouble::Other(anyhow!("the child sent {message:?} out of turn"))),
            };
            match answer(question).map_err(Trouble::Other)? {
                Reply::Continue => self.proceed()?,
                Reply::State(state) => socket::send(&self.socket, &state)?,
            }
            if question == Question::Created && milestone == Milestone::Created {
                return Ok(());
            }
        }
    }

    /// The pid of the child that the middle process has made.
    pub(super) fn relayed(&self) -> Result<i32, Trouble> {
        match self.next()? {
            Message::Relayed(pid) => Ok(pid),
            message => Err(Trouble::Other(anyhow!("the middle process sent {message:?} out of turn"))),
        }
    }

    /// The next message; a fault from the child is trouble.
    fn next(&self) -> Result<Message, Trouble> {
        let mut bytes = [0; wire::LONGEST];
        let reset = Fault { call: Call::Receive, errno: Errno::CONNRESET };
        let received = match socket::receive(&self.socket, &mut bytes) {
            // The end was closed with words of ours unread. The kernel says so once, before what was said last.
            Err(fault) if fault == reset => socket::receive(&self.socket, &mut bytes),
            result => result,
        };
        let length = match received {
            Ok(0) => return Err(Trouble::Closed),
            Err(fault) if fault == reset => return Err(Trouble::Closed),
            result => result?,
        };
        match Message::decode(&bytes[..length]) {
            Some(Message::Fault { step, fault }) => {
                let words = String::from_utf8_lossy(&bytes[wire::LENGTH..length]).into_owned();
                Err(Trouble::Fault { step: step.into(), fault, words })
            }
            Some(message) => Ok(message),
            None => Err(Trouble::Other(anyhow!("the child sent {length} bytes that are no message"))),
        }
    }
}
