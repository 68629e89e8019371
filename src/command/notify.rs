//! $NOTIFY_SOCKET: a container's program may tell the caller's service manager that it is ready.
//!
//! The container never gets the manager's own socket. It gets one of its container's directory, mounted at
//! /run/notify, and whoever starts the container passes on from there that it is ready, and which process counts;
//! nothing else a container says reaches the manager.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::container::Reservation;
use crate::log;
use crate::spec::{Mount, Spec, Str};
use crate::sys::event::{self, Interest};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, Reason, fs, socket};

const DIRECTORY: &str = "notify";
/// What the container sees, and how it is told.
pub const MOUNTED_AT: &str = "/run/notify";
const VARIABLE: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";
const OPTIONS: [&str; 5] = ["bind", "nosuid", "noexec", "nodev", "ro"];

/// How long a service manager may take to work off what it was told.
const PATIENCE: Duration = Duration::from_secs(30);

/// The socket of the caller's service manager: a path, or a name behind an at sign.
pub struct Manager {
    name: Vec<u8>,
}

impl Manager {
    pub fn from_environment() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        Some(Self { name: name.as_bytes().to_vec() })
    }

    /// As `from_environment`, and the container that will be kept at `container` gets what it needs to tell it.
    pub fn for_new(container: &Path, spec: &mut Spec<'_>) -> Result<Option<Self>> {
        let manager = Self::from_environment();
        if let Some(manager) = &manager {
            manager.add_to(spec, container)?;
        }
        Ok(manager)
    }

    /// The directory that `make_directory` makes, and the variable that says where it is.
    fn add_to(&self, spec: &mut Spec<'_>, container: &Path) -> Result<()> {
        let source = container.join(DIRECTORY);
        let source = source.to_str().context("the path of the state directory is not valid UTF-8")?;
        let text = |text: &str| Str::new(text.to_owned()).context("$NOTIFY_SOCKET: a NUL byte");
        let mut mount = Mount { destination: text(MOUNTED_AT)?, source: text(source)?, ..Mount::default() };
        for option in OPTIONS {
            mount.options.0.push(text(option)?);
        }
        spec.mounts.0.push(mount);
        if let Some(process) = &mut spec.process {
            process.env.0.push(text(VARIABLE)?);
        }
        Ok(())
    }

    fn connect(&self) -> Result<OwnedFd> {
        socket::connect_datagrams(&self.name)
            .with_context(|| format!("$NOTIFY_SOCKET {:?}", String::from_utf8_lossy(&self.name)))
    }
}

/// Where `make_directory` makes it, as a path of the host.
pub fn directory_of(reservation: &Reservation) -> Result<String> {
    let path = reservation.path().join(DIRECTORY);
    path.into_os_string().into_string().ok().context("the path of the state directory is not valid UTF-8")
}

/// Makes what the container's mount shows.
pub fn make_directory(reservation: &Reservation) -> Result<()> {
    let made = fs::mkdirat(reservation.directory(), c"notify", fs::Mode::from_raw_mode(0o755));
    made.context("make the directory of the notify socket")
}

/// The container's socket and the manager's.
pub struct Messenger {
    container: OwnedFd,
    manager: OwnedFd,
}

impl Messenger {
    /// Listens in `container`'s directory; None for a container that was made without it.
    pub fn listen(manager: &Manager, container: BorrowedFd<'_>) -> Result<Option<Self>> {
        let flags = fs::OFlags::PATH | fs::OFlags::DIRECTORY | fs::OFlags::NOFOLLOW;
        let directory = match fs::openat(container, c"notify", flags, fs::Mode::empty()) {
            Err(fault) if fault.errno == Errno::NOENT => return Ok(None),
            result => result.context("open the directory of the notify socket")?,
        };
        let manager = manager.connect()?;
        // Short enough for a socket address whatever the root is.
        let place = fs::FdPath::new(directory.as_fd());
        let mut path = place.as_c_str().to_bytes().to_vec();
        path.extend_from_slice(b"/notify.sock");
        let path = CString::new(path)?;
        match fs::unlinkat(&directory, c"notify.sock", fs::AtFlags::empty()) {
            Err(fault) if fault.errno != Errno::NOENT => {
                return Err(fault).context("remove an old notify socket");
            }
            _ => (),
        }
        let listener = socket::bind_datagrams(&path).context("make the notify socket")?;
        // Whoever the program runs as may tell.
        fs::chmodat(&directory, c"notify.sock", fs::Mode::from_raw_mode(0o777))
            .context("open the notify socket to everyone")?;
        Ok(Some(Self { container: listener, manager }))
    }

    /// Waits until the container is ready or has ended. The manager is then to watch `main`, and has heard of it
    /// when this returns: whoever told it may end.
    pub fn wait(&self, pidfd: BorrowedFd<'_>, main: i32) -> Result<()> {
        loop {
            let waiting = [(self.container.as_fd(), Interest::Read), (pidfd, Interest::Read)];
            let [told, ended] = event::poll(waiting, None)?;
            if told && self.pass_on(main)? {
                return self.wait_for_manager();
            }
            if ended && !told {
                return Ok(());
            }
        }
    }

    /// Reads one message; true: it said that the container is ready, and the manager knows.
    pub fn pass_on(&self, main: i32) -> Result<bool> {
        let mut bytes = [0; 4096];
        let length = socket::receive(&self.container, &mut bytes).context("read the notify socket")?;
        let Some(message) = message(&bytes[..length], main) else { return Ok(false) };
        socket::send(&self.manager, &message).context("tell $NOTIFY_SOCKET that the container is ready")?;
        Ok(true)
    }

    /// The manager closes the pipe it is sent when it has worked off everything before.
    fn wait_for_manager(&self) -> Result<()> {
        let (done, theirs) = fs::pipe()?;
        socket::send_with_fd(&self.manager, b"BARRIER=1", theirs.as_fd()).context("tell $NOTIFY_SOCKET")?;
        drop(theirs);
        let [closed] = event::poll([(done.as_fd(), Interest::Read)], Some(PATIENCE))?;
        if !closed {
            log::warning("$NOTIFY_SOCKET: the service manager has not answered within 30 s");
            return Ok(());
        }
        let read = fs::read(&done, &mut [0]).map_err(|fault| Reason(fault.errno));
        ensure!(
            matches!(read, Ok(0)),
            "$NOTIFY_SOCKET: the service manager wrote to the pipe it was to close"
        );
        Ok(())
    }
}

impl AsFd for Messenger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }
}

/// What the manager is told for one message of the container: that it is ready, if it said so, and which process
/// counts.
fn message(told: &[u8], main: i32) -> Option<Vec<u8>> {
    let ready = told.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))?;
    Some([ready, format!("\nMAINPID={main}\n").as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_being_ready_is_passed_on() {
        let table: [(&str, Option<&str>); 6] = [
            ("READY=1", Some("READY=1\nMAINPID=7\n")),
            ("READY=1\n", Some("READY=1\nMAINPID=7\n")),
            ("STATUS=up\nREADY=1\nMAINPID=1\nFDSTORE=1", Some("READY=1\nMAINPID=7\n")),
            ("STATUS=READY=1", None),
            ("WATCHDOG=1\nMAINPID=1", None),
            ("", None),
        ];
        for (told, expected) in table {
            let found = message(told.as_bytes(), 7).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found.as_deref(), expected, "{told:?}");
        }
    }

    #[test]
    fn the_container_sees_a_directory_and_a_variable() {
        let mut spec: Spec = serde_json::from_str(r#"{"process": {"env": ["A=1"]}}"#).unwrap();
        Manager { name: b"/x".to_vec() }.add_to(&mut spec, Path::new("/run/deja/web")).unwrap();
        let mount = &spec.mounts[0];
        assert_eq!(
            (mount.destination.as_str(), mount.source.as_str()),
            ("/run/notify", "/run/deja/web/notify")
        );
        assert_eq!(spec.process.unwrap().env[1], "NOTIFY_SOCKET=/run/notify/notify.sock");
    }
}
