//! Stopping, continuing and killing what runs in a cgroup, all at once.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use super::watch::EventsFile;
use super::{Cgroup, Mount, c_name, read_file, value_of, write_file};
use crate::sys::process::{Pid, pidfd_find, pidfd_send_signal};
use crate::sys::{self, AsFd, Errno, Fault, Reason};

const KILL: i32 = 9;

/// Rounds of signals on kernels without cgroup.kill, against processes that fork meanwhile.
const ROUNDS: usize = 10;

impl Cgroup {
    /// Stops every process in it and below. What does not stop in time is let go on, so that a cgroup is
    /// never left half frozen.
    pub fn freeze(&self, within: Duration) -> Result<()> {
        self.set_frozen(true).map_err(|fault| self.failed("freeze", fault))?;
        let stopped = EventsFile::open(self.as_fd()).and_then(|events| events.wait("frozen", 1, within));
        if matches!(stopped, Ok(true)) {
            return Ok(());
        }
        // The error below tells more than one of this write could.
        let _undo = self.set_frozen(false);
        match stopped {
            Err(fault) => Err(self.failed("freeze", fault)),
            Ok(_) => bail!("freeze {:?}: not every process stopped within {within:?}", self.full()),
        }
    }

    /// Lets every process go on. A kernel without the freezer has stopped none.
    pub fn thaw(&self) -> Result<()> {
        match self.set_frozen(false) {
            Err(fault) if !matches!(fault.errno, Errno::NOENT | Errno::NODEV) => {
                Err(self.failed("thaw", fault))
            }
            _ => Ok(()),
        }
    }

    fn set_frozen(&self, frozen: bool) -> sys::Result<()> {
        write_file(self.as_fd(), c"cgroup.freeze", if frozen { "1" } else { "0" })
    }

    /// Whether everything in it is stopped, or will be as soon as the kernel gets hold of it: who comes in stops too.
    /// One that is gone is not frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        // A cgroup above it may be the frozen one, which only the events tell.
        let frozen = read_file(self.as_fd(), c"cgroup.events").and_then(|events| {
            let asked = || read_file(self.as_fd(), c"cgroup.freeze");
            Ok(value_of(&events, "frozen") == Some(1) || asked()?.starts_with('1'))
        });
        match frozen {
            Err(fault) if gone(&fault) => Ok(false),
            result => result.map_err(|fault| self.failed("read", fault)),
        }
    }

    /// Whether a process runs in it or below; none does in one that is gone.
    pub fn is_populated(&self) -> Result<bool> {
        match read_file(self.as_fd(), c"cgroup.events") {
            Err(fault) if gone(&fault) => Ok(false),
            Err(fault) => Err(self.failed("read", fault)),
            Ok(events) => Ok(value_of(&events, "populated") == Some(1)),
        }
    }

    /// Waits until no process is left; false when the time is up before.
    pub fn wait_empty(&self, within: Duration) -> Result<bool> {
        match EventsFile::open(self.as_fd()).and_then(|events| events.wait_empty(within)) {
            Err(fault) if gone(&fault) => Ok(true),
            result => result.map_err(|fault| self.failed("wait for", fault)),
        }
    }

    /// Kills every process in it and below, also frozen ones, in one step where the kernel (5.14) can.
    pub fn kill_all(&self) -> Result<()> {
        match write_file(self.as_fd(), c"cgroup.kill", "1") {
            Ok(()) => Ok(()),
            Err(fault) if fault.errno == Errno::NODEV => Ok(()),
            // Older kernels, and threaded cgroups, which have no kill of their own.
            Err(fault) if matches!(fault.errno, Errno::NOENT | Errno::OPNOTSUPP) => self.kill_one_by_one(),
            Err(fault) => Err(self.failed("kill processes of", fault)),
        }
    }

    fn kill_one_by_one(&self) -> Result<()> {
        for _ in 0..ROUNDS {
            if self.signal_all(KILL)? == 0 || self.wait_empty(Duration::from_millis(20))? {
                return Ok(());
            }
        }
        bail!("kill processes of {:?}: new ones kept appearing", self.full())
    }

    /// Sends a signal to every process in it and below; gives how many got it. They are held still while
    /// they are counted, unless the cgroup was frozen before: then it stays so, except for SIGKILL.
    pub fn signal_all(&self, signal: i32) -> Result<usize> {
        let was_frozen = self.is_frozen()?;
        if !was_frozen {
            // Holding still only keeps new processes from being missed.
            let _best_effort = self.freeze(Duration::from_millis(500));
        }
        let result = self.signal_each(signal);
        if !was_frozen || signal == KILL {
            self.thaw()?;
        }
        result
    }

    fn signal_each(&self, signal: i32) -> Result<usize> {
        let mut count = 0;
        for pid in self.processes_or_none()? {
            let Some(id) = Pid::from_raw(pid) else { continue };
            let found =
                pidfd_find(id).map_err(|fault| self.failed(&format!("open process {pid} of"), fault))?;
            let Some(process) = found else { continue };
            match pidfd_send_signal(&process, signal) {
                Ok(()) => count += 1,
                Err(fault) if fault.errno == Errno::SRCH => {}
                Err(fault) => return Err(self.failed(&format!("signal process {pid} of"), fault)),
            }
        }
        Ok(count)
    }

    fn processes_or_none(&self) -> Result<Vec<i32>> {
        match read_file(self.as_fd(), c"cgroup.events") {
            Err(fault) if gone(&fault) => Ok(Vec::new()),
            _ => self.processes(),
        }
    }
}

/// Whether cgroups are frozen, for one after the other: as `Cgroup::is_frozen`, but a look is not worth a descriptor of a
/// directory, and siblings have the same cgroup above them.
pub struct Freezers {
    mount: Mount,
    above: Option<(String, bool)>,
}

impl Freezers {
    pub fn new(mount: Mount) -> Self {
        Self { mount, above: None }
    }

    pub fn mount(&self) -> &str {
        self.mount.path()
    }

    pub fn is_frozen(&mut self, path: &str) -> Result<bool> {
        match self.look(path) {
            Err(fault) if gone(&fault) => Ok(false),
            result => result
                .map_err(|fault| anyhow!("read cgroup {:?}: {}", self.mount.full(path), Reason(fault.errno))),
        }
    }

    fn look(&mut self, path: &str) -> sys::Result<bool> {
        Ok(self.read(path, "cgroup.freeze")?.starts_with('1') || self.all_above(path)?)
    }

    /// Whether the one above is frozen with everything in it. The root, which cannot be, has no such file.
    fn all_above(&mut self, path: &str) -> sys::Result<bool> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if let Some((known, frozen)) = &self.above {
            if known == parent {
                return Ok(*frozen);
            }
        }
        let frozen = match self.read(parent, "cgroup.events") {
            Err(fault) if gone(&fault) => false,
            events => value_of(&events?, "frozen") == Some(1),
        };
        self.above = Some((parent.to_owned(), frozen));
        Ok(frozen)
    }

    fn read(&self, path: &str, file: &str) -> sys::Result<String> {
        let separator = if path.is_empty() { "" } else { "/" };
        read_file(self.mount.as_fd(), &c_name(&format!("{path}{separator}{file}")))
    }
}

/// An open cgroup that was removed since.
fn gone(fault: &Fault) -> bool {
    matches!(fault.errno, Errno::NODEV | Errno::NOENT)
}
