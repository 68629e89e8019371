//! What deja asks systemd for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::bus::{Bus, Refusal};
use super::property::Property;
use super::unit::Unit;
use super::wire::Value;
use crate::sys::clone::{self, CloneRequest};
use crate::sys::process::{self, Pid};
use crate::sys::{AsRawFd, OwnedFd, fs, socket};

/// The manager of the machine or of a user, by its socket.
pub struct Manager {
    socket: PathBuf,
    user: bool,
}

impl Manager {
    /// The machine's is for root alone; everybody else, root of a user namespace too, has the one of the session.
    pub fn choose(user: bool, runtime_directory: Option<&Path>) -> Result<Self> {
        let directory = match (user, runtime_directory) {
            (false, _) => Path::new("/run"),
            (true, Some(directory)) => directory,
            (true, None) => {
                return Err(anyhow!(
                    "XDG_RUNTIME_DIR is not set, so there is no session of systemd: log in through one \
                     (`loginctl enable-linger` keeps one), or use --cgroup-manager cgroupfs"
                ));
            }
        };
        Ok(Self { socket: directory.join("systemd/private"), user })
    }

    /// Where scopes go that ask for no slice.
    pub fn default_slice(&self) -> &'static str {
        if self.user { "user.slice" } else { "system.slice" }
    }

    /// Starts the scope with one process in it, which keeps it alive until the container's is there.
    pub fn start(&self, unit: &Unit, properties: &[Property]) -> Result<Keeper> {
        let keeper = Keeper::begin()?;
        let pid = Value::Uint32(keeper.pid.as_raw_nonzero().get() as u32);
        let own = [
            Property::new("Description", Value::text(format!("deja container {}", unit.name))),
            Property::new("Slice", Value::text(unit.slice.as_str())),
            Property::new("PIDs", Value::Array("u".to_owned(), vec![pid])),
            Property::new("Delegate", Value::Bool(true)),
            Property::new("DefaultDependencies", Value::Bool(false)),
            // One that was killed for want of memory would stay, as failed, and keep its name.
            Property::new("CollectMode", Value::text("inactive-or-failed")),
        ];
        let accounting = ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"];
        let accounting = accounting.map(|name| Property::new(name, Value::Bool(true)));
        let all =
            super::property::merge([own.to_vec(), accounting.to_vec()].concat(), room_for_two(properties));
        let arguments = [
            Value::text(unit.name.as_str()),
            Value::text("fail"),
            list(&all),
            Value::Array("(sa(sv))".to_owned(), Vec::new()),
        ];
        self.connect()
            .and_then(|mut bus| bus.job("StartTransientUnit", &arguments))
            .map_err(|error| self.advise(error, &unit.name))
            .with_context(|| format!("start unit {:?} in {:?}", unit.name, unit.slice))?;
        Ok(keeper)
    }

    /// Ends a unit and waits until its name is free; one that is gone is no error.
    pub fn stop(&self, unit: &str) -> Result<()> {
        let result = self
            .connect()
            .and_then(|mut bus| bus.job("StopUnit", &[Value::text(unit), Value::text("replace")]));
        match result {
            Err(error) if refused_as(&error, "NoSuchUnit") => Ok(()),
            result => result.with_context(|| format!("stop unit {unit:?}")),
        }
    }

    /// Tells of other limits, until the machine's next start.
    pub fn change(&self, unit: &str, properties: &[Property]) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let arguments = [Value::text(unit), Value::Bool(true), list(properties)];
        let result = self.connect().and_then(|mut bus| bus.call("SetUnitProperties", &arguments));
        result
            .map(drop)
            .map_err(|error| self.advise(error, unit))
            .with_context(|| format!("change unit {unit:?}"))
    }

    /// Succeeds where it answers.
    pub fn reach(&self) -> Result<()> {
        self.connect().map(drop)
    }

    fn connect(&self) -> Result<Bus> {
        Bus::connect(&self.socket)
    }

    fn advise(&self, error: anyhow::Error, unit: &str) -> anyhow::Error {
        let user = if self.user { " --user" } else { "" };
        let advice = match error.downcast_ref::<Refusal>() {
            Some(Refusal { name, .. }) if name.ends_with(".UnitExists") => {
                format!("another container has this scope, or left it: see `systemctl{user} status {unit}`")
            }
            Some(Refusal { name, .. })
                if name.ends_with(".AccessDenied") || name.ends_with(".InteractiveAuthorizationRequired") =>
            {
                "this user may not ask for it: rootless containers need a session of systemd's of their own"
                    .to_owned()
            }
            Some(Refusal { name, .. }) if name.ends_with(".PropertyReadOnly") => {
                "this systemd cannot be told so (see the annotations org.systemd.property.*)".to_owned()
            }
            _ => return error,
        };
        anyhow!("{error:#}: {advice}")
    }
}

fn refused_as(error: &anyhow::Error, kind: &str) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.name.rsplit('.').next() == Some(kind))
}

/// While the keeper and the container's first process are both there, one is too few; the cgroup's file, which
/// is written after systemd's, has the limit itself.
fn room_for_two(properties: &[Property]) -> Vec<Property> {
    let mut properties = properties.to_vec();
    for property in &mut properties {
        if let ("TasksMax", Value::Uint64(limit @ ..2)) = (property.name.as_str(), &mut property.value) {
            *limit = 2;
        }
    }
    properties
}

fn list(properties: &[Property]) -> Value {
    let pair = |property: &Property| {
        Value::Struct(vec![Value::text(property.name.as_str()), Value::variant(property.value.clone())])
    };
    Value::Array("(sv)".to_owned(), properties.iter().map(pair).collect())
}

/// A process that does nothing: a scope is made around a process, and goes with its last one. It ends when this
/// is dropped, and when deja ends.
pub struct Keeper {
    pid: Pid,
    pidfd: OwnedFd,
    /// Its other end tells the keeper that deja has ended, and nothing more: the container's first process, too,
    /// has a copy of this one for a while.
    _line: OwnedFd,
}

const KILL: i32 = 9;

impl Keeper {
    fn begin() -> Result<Self> {
        let (ours, theirs) = socket::socketpair()?;
        let copy = ours.as_raw_fd();
        let cloned = clone::clone3(CloneRequest::default(), || {
            // Held open here, it would keep this process from seeing that its parent is gone.
            if fs::close_copied(copy).is_err() {
                return 1;
            }
            i32::from(socket::receive(&theirs, &mut [0; 1]).is_err())
        })?;
        Ok(Self { pid: cloned.pid, pidfd: cloned.pidfd, _line: ours })
    }

    /// The cgroup that systemd put it into, which is the scope's.
    pub fn cgroup(&self) -> Result<String> {
        let path = crate::cgroup::of_process(&self.pid.as_raw_nonzero().to_string())?;
        Ok(path.trim_start_matches('/').to_owned())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It is our child and has nothing to do but to end, so neither fails.
        let _killed = process::pidfd_send_signal(&self.pidfd, KILL);
        let _reaped = process::wait(&self.pidfd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_the_machine_s_manager_and_others_their_session_s() {
        let machine = Manager::choose(false, Some(Path::new("/run/user/0"))).unwrap();
        assert_eq!(machine.socket, Path::new("/run/systemd/private"));
        assert_eq!(machine.default_slice(), "system.slice");
        let session = Manager::choose(true, Some(Path::new("/run/user/1000"))).unwrap();
        assert_eq!(session.socket, Path::new("/run/user/1000/systemd/private"));
        assert_eq!(session.default_slice(), "user.slice");
        let nobody = Manager::choose(true, None).err().unwrap().to_string();
        assert!(nobody.starts_with("XDG_RUNTIME_DIR is not set"), "{nobody}");
    }

    #[test]
    fn a_scope_for_one_process_has_room_for_its_keeper() {
        let tasks = |limit| vec![Property::new("TasksMax", Value::Uint64(limit))];
        assert_eq!(room_for_two(&tasks(1)), tasks(2));
        assert_eq!(room_for_two(&tasks(0)), tasks(2));
        assert_eq!(room_for_two(&tasks(7)), tasks(7));
    }
}
