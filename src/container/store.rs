//! The directory of a root's containers: reserving an id, reading and replacing records, removing.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::check_id;
use super::crowd::Crowd;
use super::life::life;
use super::record::{CgroupPlace, Record};
use super::status::Status;
use crate::error::{Failure, Kind};
use crate::removal;
use crate::sys::fs::{self, Access, AtFlags, CWD, FdPath, FlockOperation, Mode, OFlags};
use crate::sys::{AsFd, BorrowedFd, Errno, Fault, OwnedFd, Reason, leak};

const RECORD: &CStr = c"record.json";
const RECORD_NEW: &CStr = c"record.json.new";
pub const CONFIG: &str = "config.json";
/// The socket on which the init of a created container waits.
pub const START_SOCKET: &CStr = c"start.sock";

/// No record is larger; annotations are what makes one large.
const LARGEST_RECORD: usize = 16 << 20;

/// Where the records are kept unless the caller says so. Only a default in $XDG_RUNTIME_DIR gets the sticky
/// bit (the second value), without which it would be cleaned up by age.
pub fn default_root(
    effective_uid: u32,
    runtime_dir: Option<&OsStr>,
    user: Option<&OsStr>,
    in_user_namespace: impl FnOnce() -> bool,
) -> (PathBuf, bool) {
    let system = || (PathBuf::from("/run/deja"), false);
    match runtime_dir {
        Some(dir) if !dir.is_empty() => {
            // Root inside a user namespace is somebody's ordinary user, unless it says it is root.
            let honoured = effective_uid != 0 || (user != Some("root".as_ref()) && in_user_namespace());
            if honoured { (Path::new(dir).join("deja"), true) } else { system() }
        }
        _ => system(),
    }
}

/// A path from the root without `.` and `..`, as text only.
pub fn absolute(path: &Path, current: impl FnOnce() -> std::io::Result<PathBuf>) -> Result<PathBuf> {
    let whole = if path.is_absolute() {
        path.to_owned()
    } else {
        current().context("find the current directory")?.join(path)
    };
    let mut clean = PathBuf::from("/");
    for part in whole.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => (),
        }
    }
    Ok(clean)
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{path:?}"))
}

fn at(what: &str, path: &Path, fault: Fault) -> anyhow::Error {
    anyhow::anyhow!("{what} {path:?}: {}", Reason(fault.errno))
}

/// The containers of one root.
pub struct Store {
    root: PathBuf,
    sticky: bool,
}

impl Store {
    /// Looks at nothing; the root is made when the first container is.
    pub fn open(root: PathBuf, sticky: bool) -> Self {
        Self { root, sticky }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the id: makes its directory and locks it.
    pub fn reserve(&self, id: &str) -> Result<Reservation> {
        check_id(id)?;
        let path = self.root.join(id);
        let c_path = c_path(&path)?;
        let mode = Mode::from_raw_mode(0o711);
        let mut made = fs::mkdirat(CWD, &c_path, mode);
        if matches!(made, Err(fault) if fault.errno == Errno::NOENT) {
            self.make_root()?;
            made = fs::mkdirat(CWD, &c_path, mode);
        }
        match made {
            Ok(()) => (),
            Err(fault) if fault.errno == Errno::EXIST => {
                return Err(Failure::new(Kind::Status, "container with given ID already exists").into());
            }
            Err(fault) => return Err(at("create", &path, fault)),
        }
        let directory = leak(open_directory(&c_path).map_err(|fault| at("open", &path, fault))?);
        let reservation = Reservation { directory, path, done: false };
        fs::flock(reservation.directory, FlockOperation::NonBlockingLockExclusive)
            .map_err(|fault| at("lock", &reservation.path, fault))?;
        Ok(reservation)
    }

    pub fn make_root(&self) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let root = &self.root;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .with_context(|| format!("create {root:?}"))?;
        if self.sticky {
            std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o1700))
                .with_context(|| format!("set the sticky bit of {root:?}"))?;
        }
        Ok(())
    }

    /// The container with this id.
    pub fn load(&self, id: &str) -> Result<Container> {
        self.load_by(CWD, &self.root.join(id), id)
    }

    /// As `load`, for one of many.
    pub fn load_of(&self, crowd: &Crowd, id: &str) -> Result<Container> {
        self.load_by(crowd.root(), Path::new(id), id)
    }

    /// `way` leads from `start` to the container's directory.
    fn load_by(&self, start: BorrowedFd<'_>, way: &Path, id: &str) -> Result<Container> {
        check_id(id)?;
        let path = self.root.join(id);
        let bytes = match read_record(start, way) {
            Ok(bytes) => bytes,
            Err(fault) if fault.errno == Errno::NOENT => {
                let made = fs::accessat(CWD, &c_path(&path)?, Access::EXISTS).is_ok();
                let hint = if made { " completely: remove what there is with delete --force" } else { "" };
                let text = format!("{}{hint}", Failure::no_container(id));
                return Err(Failure::new(Kind::NotFound, text).into());
            }
            Err(fault) => return Err(at("read the record of", &path, fault)),
        };
        let record = Record::from_bytes(&bytes).with_context(|| format!("read the record of {path:?}"))?;
        Ok(Container { record, path })
    }

    /// Whatever there is under this id, however broken; None: nothing.
    pub fn remains(&self, id: &str) -> Result<Option<Container>> {
        check_id(id)?;
        let path = self.root.join(id);
        let record = match read_record(CWD, &path) {
            Ok(bytes) => Record::from_bytes(&bytes).unwrap_or_else(|_| Record::salvage(&bytes)),
            Err(_) => Record::default(),
        };
        match fs::accessat(CWD, &c_path(&path)?, Access::EXISTS) {
            Err(fault) if fault.errno == Errno::NOENT => Ok(None),
            _ => Ok(Some(Container { record, path })),
        }
    }

    /// What is the same for all containers of this root; it must exist.
    pub fn crowd(&self) -> Result<Crowd> {
        let directory =
            open_directory(&c_path(&self.root)?).map_err(|fault| at("open", &self.root, fault))?;
        Crowd::of(directory, &self.root)
    }

    /// The ids there are, sorted; None: the root itself does not exist.
    pub fn list(&self) -> Result<Option<Vec<String>>> {
        let root = &self.root;
        let entries = match std::fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {root:?}")),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read {root:?}"))?;
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match entry.file_name().into_string() {
                Ok(id) if is_directory && check_id(&id).is_ok() => ids.push(id),
                _ => continue,
            }
        }
        ids.sort_unstable();
        Ok(Some(ids))
    }
}

fn open_directory(path: &CStr) -> Result<OwnedFd, Fault> {
    fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

fn read_record(start: BorrowedFd<'_>, directory: &Path) -> Result<Vec<u8>, Fault> {
    let path = directory.join(OsStr::from_bytes(RECORD.to_bytes()));
    let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("argv holds no NUL byte");
    let file = fs::openat(start, &path, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())?;
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    loop {
        length += fs::read(&file, &mut bytes[length..])?;
        if length < bytes.len() || length >= LARGEST_RECORD {
            bytes.truncate(length);
            return Ok(bytes);
        }
        bytes.resize(length * 2, 0);
    }
}

/// Replaces the record in one step: who reads meanwhile gets the old one or the new one.
fn write_record(directory: BorrowedFd<'_>, record: &Record) -> Result<(), Fault> {
    write_file(directory, RECORD_NEW, &record.to_bytes())?;
    fs::renameat(directory, RECORD_NEW, directory, RECORD)
}

fn write_file(directory: BorrowedFd<'_>, name: &CStr, bytes: &[u8]) -> Result<(), Fault> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    // It closes with this process, which does not live long and writes few files.
    let file = leak(fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?);
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = fs::write(file, rest)?;
        rest = &rest[written..];
    }
    Ok(())
}

/// An id that is taken and a container that is being made. Dropped, it leaves nothing behind.
pub struct Reservation {
    /// It closes with this process, which makes one container.
    directory: BorrowedFd<'static>,
    path: PathBuf,
    done: bool,
}

impl Reservation {
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the start socket, short enough for a socket address whatever the root is.
    pub fn start_socket(&self) -> CString {
        start_socket(self.directory())
    }

    /// Writes the record as it is now; the container stays in the making.
    pub fn write(&self, record: &Record) -> Result<()> {
        write_record(self.directory(), record).map_err(|fault| at("write the record of", &self.path, fault))
    }

    /// Keeps the bytes of config.json for hooks, exec and delete.
    pub fn save_config(&self, bytes: &[u8]) -> Result<()> {
        let name = CString::new(CONFIG).expect("the name holds no NUL byte");
        write_file(self.directory(), &name, bytes)
            .map_err(|fault| at("write config.json of", &self.path, fault))
    }

    /// The container is complete and stays, as the last record written says. The lock is dropped explicitly,
    /// because a child that has inherited the descriptor would hold it on.
    pub fn commit(mut self, record: Record) -> Result<Container> {
        self.done = true;
        fs::flock(self.directory, FlockOperation::Unlock).map_err(|fault| at("unlock", &self.path, fault))?;
        Ok(Container { record, path: std::mem::take(&mut self.path) })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.done {
            // The error that led here is the one worth telling; `delete --force` gets what is left.
            removal::remove_path(&self.path).ok();
        }
    }
}

fn start_socket(directory: BorrowedFd<'_>) -> CString {
    let mut path = FdPath::new(directory).as_c_str().to_bytes().to_vec();
    path.push(b'/');
    path.extend_from_slice(START_SOCKET.to_bytes());
    CString::new(path).expect("neither part holds a NUL byte")
}

/// A container on disk.
pub struct Container {
    pub record: Record,
    path: PathBuf,
}

impl Container {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// The pid of init, if that process is still there and still the same.
    pub fn living_pid(&self) -> Result<Option<i32>> {
        Ok(self.life()?.map(|_| self.record.pid))
    }

    fn life(&self) -> Result<Option<super::Life>> {
        let Record { pid, start_time, .. } = self.record;
        if pid <= 0 {
            return Ok(None);
        }
        Ok(life(pid)?.filter(|found| !found.ended && found.start_time == start_time))
    }

    /// The status now, as of one of a crowd or alone. Whether a cgroup is frozen is only asked about a living container.
    pub fn status(
        &self,
        crowd: Option<&Crowd>,
        frozen: impl FnOnce(&CgroupPlace) -> Result<bool>,
    ) -> Result<Status> {
        if self.record.pid <= 0 {
            return Ok(if self.creator_works()? { Status::Creating } else { Status::Stopped });
        }
        let seen = crowd.map(|crowd| crowd.sees(&self.record)).transpose()?;
        if seen != Some(true) {
            let Some(init) = self.life()? else { return Ok(Status::Stopped) };
            if self.record.straight && !init.executed {
                return Ok(Status::Creating);
            }
        }
        if let Some(place) = &self.record.cgroup {
            if frozen(place)? {
                return Ok(Status::Paused);
            }
        }
        Ok(if self.waits_for_start(crowd)? { Status::Created } else { Status::Running })
    }

    fn waits_for_start(&self, crowd: Option<&Crowd>) -> Result<bool> {
        let (start, way) = match crowd {
            Some(crowd) => (crowd.root(), Path::new(self.id())),
            None => (CWD, self.path.as_path()),
        };
        let socket = way.join(OsStr::from_bytes(START_SOCKET.to_bytes()));
        match fs::accessat(start, &c_path(&socket)?, Access::EXISTS) {
            Ok(()) => Ok(true),
            Err(fault) if fault.errno == Errno::NOENT => Ok(false),
            Err(fault) => Err(at("look for", &socket, fault)),
        }
    }

    fn creator_works(&self) -> Result<bool> {
        Ok(try_lock(&self.path)?.is_none())
    }

    /// Keeps others from starting, changing or deleting this container meanwhile.
    pub fn lock(&self) -> Result<Lock> {
        let directory = open_directory(&c_path(&self.path)?).map_err(|fault| self.gone_or("open", fault))?;
        fs::flock(&directory, FlockOperation::LockExclusive)
            .map_err(|fault| at("lock", &self.path, fault))?;
        Ok(Lock { directory })
    }

    fn gone_or(&self, what: &str, fault: Fault) -> anyhow::Error {
        match fault.errno {
            Errno::NOENT => Failure::no_container(self.id()).into(),
            _ => at(what, &self.path, fault),
        }
    }

    /// The bytes of config.json as they were when the container was made.
    pub fn config(&self) -> Result<Vec<u8>> {
        let path = self.path.join(CONFIG);
        std::fs::read(&path).with_context(|| format!("read {path:?}"))
    }

    /// Replaces the record.
    pub fn rewrite(&self, lock: &Lock) -> Result<()> {
        write_record(lock.directory(), &self.record)
            .map_err(|fault| at("write the record of", &self.path, fault))
    }

    /// As `lock`, but None if somebody else keeps it for longer than `within`.
    pub fn lock_within(&self, within: Duration) -> Result<Option<Lock>> {
        const STEP: Duration = Duration::from_millis(10);
        let deadline = Instant::now() + within;
        loop {
            let lock = try_lock(&self.path)?;
            if lock.is_some() || Instant::now() >= deadline {
                return Ok(lock);
            }
            std::thread::sleep(STEP);
        }
    }

    /// Removes the directory. That somebody else has done so is no error.
    pub fn remove(self) -> Result<()> {
        if self.remove_known().is_ok() {
            return Ok(());
        }
        removal::remove_path(&self.path).map_err(|fault| at("remove", &self.path, fault))
    }
}

impl Container {
    /// Removes the files every container has, and its directory if it holds no others.
    fn remove_known(&self) -> Result<(), Fault> {
        for name in [OsStr::new(CONFIG), OsStr::from_bytes(RECORD.to_bytes())] {
            let file = self.path.join(name);
            let c_file = CString::new(file.as_os_str().as_bytes()).unwrap_or_default();
            fs::unlinkat(CWD, &c_file, AtFlags::empty())?;
        }
        let directory = CString::new(self.path.as_os_str().as_bytes()).unwrap_or_default();
        fs::unlinkat(CWD, &directory, AtFlags::REMOVEDIR)
    }
}

/// The lock of a container's directory, held until it is dropped.
pub struct Lock {
    directory: OwnedFd,
}

impl Lock {
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The path of the start socket, as in `Reservation`.
    pub fn start_socket(&self) -> CString {
        start_socket(self.directory())
    }

    /// From here on the container is no longer waiting for start.
    pub fn remove_start_socket(&self) -> Result<()> {
        match fs::unlinkat(&self.directory, START_SOCKET, AtFlags::empty()) {
            Err(fault) if fault.errno != Errno::NOENT => bail!("remove start.sock: {}", Reason(fault.errno)),
            _ => Ok(()),
        }
    }
}

/// The lock, if nobody holds it.
fn try_lock(path: &Path) -> Result<Option<Lock>> {
    let directory = match open_directory(&c_path(path)?) {
        Ok(directory) => directory,
        Err(fault) if fault.errno == Errno::NOENT => {
            let id = path.file_name().unwrap_or_default().to_string_lossy();
            return Err(Failure::no_container(&id).into());
        }
        Err(fault) => return Err(at("open", path, fault)),
    };
    match fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { directory })),
        Err(fault) if fault.errno == Errno::AGAIN => Ok(None),
        Err(fault) => Err(at("lock", path, fault)),
    }
}

#[cfg(test)]
mod tests;
