//! The child's hands: every step as system calls, no heap, no locks, no formatting.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

use super::device::Device;
use super::filesystem::FileSystem;
use super::source::{self, Opened};
use super::target::{self, Base, Kind, Target};
use super::{Make, Mount, Step, change, enter};
use crate::sys::fs::{self, AtFlags, FileType, Mode, OFlags};
use crate::sys::mount::{self, Change, Lookup, Propagation, attribute};
use crate::sys::{
    AsFd, AsRawFd, BorrowedFd, Call, Errno, Lingering, OwnedFd, Result, borrow, credential, leak,
};

/// What the steps before have left for those that follow.
pub struct Context<'c> {
    sources: &'c [Opened],
    root: Option<BorrowedFd<'static>>,
    dev: Option<BorrowedFd<'static>>,
    proc: Option<BorrowedFd<'static>>,
    sys: Option<BorrowedFd<'static>>,
    console: Option<BorrowedFd<'c>>,
    null: Cover,
    empty: Cover,
}

/// Something that is mounted in many places.
#[derive(Default)]
struct Cover {
    /// Where copies are taken from.
    original: Option<BorrowedFd<'static>>,
    /// The original itself, while it has not found its place yet.
    spare: Option<BorrowedFd<'static>>,
}

const TOP: Lookup = Lookup { recursive: false, nofollow: false };
const TREE: Lookup = Lookup { recursive: true, nofollow: false };
const TREE_NOFOLLOW: Lookup = Lookup { recursive: true, nofollow: true };
const READ_ONLY: Change = Change::attributes(attribute::RDONLY, 0);
const PROC_MAGIC: i64 = 0x9fa0;

impl<'c> Context<'c> {
    /// `sources` are those of the plan, opened by the parent.
    pub fn new(sources: &'c [Opened]) -> Self {
        let (null, empty) = (Cover::default(), Cover::default());
        Self { sources, root: None, dev: None, proc: None, sys: None, console: None, null, empty }
    }

    /// The container's root; the current directory before there is one.
    pub fn root(&self) -> BorrowedFd<'static> {
        self.root.unwrap_or(fs::CWD)
    }

    /// The slave of the container's terminal.
    pub fn set_console(&mut self, slave: BorrowedFd<'c>) {
        self.console = Some(slave);
    }

    fn base(&self, base: Base) -> Result<BorrowedFd<'static>> {
        let fd = match base {
            Base::Root => self.root,
            Base::Dev => self.dev,
            Base::Proc => self.proc,
            Base::Sys => self.sys,
        };
        fd.ok_or(Call::Openat2.fault(Errno::BADF))
    }

    fn set_base(&mut self, base: Base, fd: BorrowedFd<'static>) {
        let place = match base {
            Base::Root => &mut self.root,
            Base::Dev => &mut self.dev,
            Base::Proc => &mut self.proc,
            Base::Sys => &mut self.sys,
        };
        *place = Some(fd);
    }
}

/// Performs one step of the plan, in the order of the plan.
pub fn perform(step: &Step, context: &mut Context<'_>) -> Result<()> {
    match step {
        Step::Propagate { kind, recursive } => change_propagation(fs::CWD, c"/", *kind, *recursive),
        Step::Isolate { paths, kind } => isolate(paths, *kind),
        Step::OpenRoot => {
            // As for a new container: modes of what is made are meant as they are written.
            credential::umask(0);
            context.set_base(Base::Root, leak(change::open_root()?));
            Ok(())
        }
        Step::HostRoot(path) => {
            credential::umask(0);
            let root = fs::openat(fs::CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            context.set_base(Base::Root, leak(root));
            Ok(())
        }
        Step::Unmount(target) => change::unmount(target, context.base(target.base)?),
        Step::Root(path) => attach_root(path, context),
        Step::Mount(mount) => perform_mount(mount, context),
        Step::OpenDev => open_dev(context),
        Step::Device(device) => make_device(device, context),
        Step::Link { name, target, replace } => make_link(name, target, *replace, context),
        Step::Console => mount_console(context),
        Step::Cover(empty) => {
            let fd = Some(leak(empty.create(None)?));
            context.empty = Cover { original: fd, spare: fd };
            Ok(())
        }
        Step::Mask(target) => mask(target, context),
        Step::ReadOnlyPath(target) => make_path_read_only(target, context),
        Step::ReadOnlyMount(target) => {
            let base = context.base(target.base)?;
            if target.path.is_empty() {
                return mount::mount_setattr(base, c"", TOP, READ_ONLY);
            }
            mount::mount_setattr(Lingering::new(target.open(base)?), c"", TOP, READ_ONLY)
        }
        Step::WorkingDirectory(target) => make_working_directory(target, context.base(target.base)?),
        Step::SealRoot { readonly, private } => {
            let change = if *readonly { READ_ONLY } else { Change::default() };
            let change = if *private { change.with_propagation(Propagation::Private) } else { change };
            mount::mount_setattr(context.root(), c"", TOP, change)
        }
        Step::RootPropagation { kind, recursive } => {
            change_propagation(context.root(), c"", *kind, *recursive)
        }
        Step::Conceal(path) => enter::conceal(path),
        Step::Pivot { detach } => enter::pivot(context.root(), *detach),
        Step::Move => enter::move_over(context.root()),
        Step::ChangeRoot(path) => fs::chdir(path).and_then(|()| fs::chroot(c".")),
    }
}

fn change_propagation(dir: BorrowedFd<'_>, path: &CStr, kind: Propagation, recursive: bool) -> Result<()> {
    let lookup = Lookup { recursive, nofollow: false };
    mount::mount_setattr(dir, path, lookup, Change::propagation(kind))
}

fn isolate(paths: &[CString], kind: Propagation) -> Result<()> {
    let mut result = Err(Call::MountSetattr.fault(Errno::INVAL));
    for path in paths {
        result = change_propagation(fs::CWD, path, kind, false);
        // EINVAL: this is no mount, so the one that holds it lies further up.
        if !matches!(result, Err(fault) if fault.errno == Errno::INVAL) {
            break;
        }
    }
    result
}

fn attach_root(path: &CStr, context: &mut Context<'_>) -> Result<()> {
    // Modes of what is made from here on are meant as they are written.
    credential::umask(0);
    let root = mount::open_tree(fs::CWD, path, TREE)?;
    mount::move_mount(&root, fs::CWD, path)?;
    context.set_base(Base::Root, leak(root));
    Ok(())
}

fn perform_mount(mount: &Mount, context: &mut Context<'_>) -> Result<()> {
    let base = context.base(mount.target.base)?;
    if let Some(path) = &mount.link {
        if copy_link(path, &mount.target, base)? {
            return Ok(());
        }
    }
    let made = match &mount.make {
        Make::FileSystem(system) if system.inherit_mode || system.copy_up => {
            let (place, hidden) = match mount.target.open(base) {
                Err(fault) if fault.errno == Errno::NOENT => (mount.target.open_or_make(base, true)?, false),
                result => (result?, true),
            };
            let place = Lingering::new(place);
            let made = system.create(hidden.then(|| place.as_fd()))?;
            spread(&made, mount)?;
            attach_to(place.as_fd(), made.as_fd(), mount)?;
            made
        }
        Make::FileSystem(system @ FileSystem { text: Some(text), .. }) => {
            let place = Lingering::new(mount.target.open_or_make(base, true)?);
            refuse_proc(place.as_fd(), mount)?;
            system.mount_on(place.as_fd(), text)?;
            return spread(Lingering::new(mount.target.open(base)?), mount);
        }
        Make::FileSystem(system) => {
            let made = system.create(None)?;
            spread(&made, mount)?;
            attach(made.as_fd(), base, mount, true)?;
            made
        }
        Make::Opened(place) => {
            let opened = context.sources.get(*place).ok_or(Call::OpenTree.fault(Errno::BADF))?;
            check_source(opened.fd.as_fd(), mount)?;
            attach(opened.fd.as_fd(), base, mount, opened.directory)?;
            if let Some(base) = mount.base {
                context.set_base(base, borrow(opened.fd.as_raw_fd()));
            }
            return Ok(());
        }
        Make::Clone(source) => {
            let made = source.open(None)?;
            check_source(made.as_fd(), mount)?;
            let directory = FileType::from_raw_mode(fs::fstat(&made)?.st_mode) == FileType::Directory;
            attach(made.as_fd(), base, mount, directory)?;
            made
        }
        Make::Remount { top, below } => {
            let place = Lingering::new(mount.target.open(base)?);
            if !top.is_empty() {
                mount::mount_setattr(&place, c"", TOP, source::exactly(*top))?;
            }
            if !below.is_empty() {
                mount::mount_setattr(&place, c"", TREE, source::exactly(*below))?;
            }
            return spread(&place, mount);
        }
    };
    match mount.base {
        Some(base) => context.set_base(base, leak(made)),
        None => drop(Lingering::new(made)),
    }
    Ok(())
}

fn spread(fd: impl AsFd, mount: &Mount) -> Result<()> {
    let mut all = mount.propagation.iter();
    all.try_for_each(|&(kind, recursive)| change_propagation(fd.as_fd(), c"", kind, recursive))
}

fn check_source(source: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    match mount.from_proc && fs::file_system(source)? != PROC_MAGIC {
        true => Err(Call::Statfs.fault(Errno::PERM)),
        false => Ok(()),
    }
}

/// Attaches what is detached to the mount's target, which is made if it is not there.
fn attach(made: BorrowedFd<'_>, base: BorrowedFd<'_>, mount: &Mount, directory: bool) -> Result<()> {
    let target = &mount.target;
    if target.direct && directory {
        let make = || fs::mkdirat(base, &target.path, Mode::from_bits_retain(target::DIRECTORY_MODE));
        let made_before = target.absent && make().is_ok();
        let result = match mount::move_mount(made, base, &target.path) {
            Err(fault) if fault.errno == Errno::NOENT && !made_before => {
                make().and_then(|()| mount::move_mount(made, base, &target.path))
            }
            result => result,
        };
        // Anything else, such as a link at the end, takes the longer way, which also explains better.
        if result.is_ok() {
            return result;
        }
    }
    let place = Lingering::new(target.open_or_make(base, directory)?);
    attach_to(place.as_fd(), made, mount)
}

fn attach_to(place: BorrowedFd<'_>, made: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    refuse_proc(place, mount)?;
    mount::move_mount(made, place, c"")
}

/// A link of the rootfs may lead to /proc, whatever the destination looks like.
fn refuse_proc(place: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    match !mount.over_proc && fs::file_system(place)? == PROC_MAGIC {
        true => Err(Call::MoveMount.fault(Errno::PERM)),
        false => Ok(()),
    }
}

/// Makes the link that `path` is on the host; false where it is no link.
fn copy_link(path: &CStr, target: &Target, base: BorrowedFd<'_>) -> Result<bool> {
    let mut text = [MaybeUninit::uninit(); 4096];
    let text = match fs::readlinkat(fs::CWD, path, &mut text[..4095]) {
        Err(fault) if fault.errno == Errno::INVAL => return Ok(false),
        result => result?,
    };
    let mut value = [0; 4096];
    value[..text.len()].copy_from_slice(text);
    let value = CStr::from_bytes_until_nul(&value).unwrap_or_default();
    let (parent, name) = target.split(base)?;
    match fs::symlinkat(value, &parent, name) {
        Err(fault) if fault.errno == Errno::EXIST => {
            let mut present = [MaybeUninit::uninit(); 4096];
            let same =
                fs::readlinkat(&parent, name, &mut present).is_ok_and(|present| present == value.to_bytes());
            if same { Ok(true) } else { Err(fault) }
        }
        result => result.map(|()| true),
    }
}

fn open_dev(context: &mut Context<'_>) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let resolve = fs::IN_ROOT | fs::ResolveFlags::NO_SYMLINKS;
    let root = context.base(Base::Root)?;
    let dev = match fs::openat2(root, c"dev", flags, Mode::empty(), resolve) {
        Err(fault) if fault.errno == Errno::NOENT => target::make(root, c"dev", Kind::Directory, false)?,
        result => result?,
    };
    context.set_base(Base::Dev, leak(dev));
    Ok(())
}

/// Where it cannot be made, entering it says why.
fn make_working_directory(target: &Target, base: BorrowedFd<'_>) -> Result<()> {
    drop(target.open_or_make(base, true).map(Lingering::new));
    Ok(())
}

fn make_device(device: &Device, context: &Context<'_>) -> Result<()> {
    let base = context.base(device.parent.base)?;
    if device.parent.path.is_empty() {
        return make_device_in(device, base);
    }
    let parent = Lingering::new(device.parent.open_or_make(base, true)?);
    make_device_in(device, parent.as_fd())
}

fn make_device_in(device: &Device, parent: BorrowedFd<'_>) -> Result<()> {
    if device.bind {
        return bind_device(device, parent);
    }
    let mode = Mode::from_bits_retain(device.mode);
    match fs::mknodat(parent, &device.name, device.kind, mode, device.major, device.minor) {
        Err(fault) if fault.errno == Errno::EXIST => {
            let stat = fs::statat(parent, &device.name, AtFlags::SYMLINK_NOFOLLOW)?;
            if is_device(&stat, device) { Ok(()) } else { Err(fault) }
        }
        Err(fault) if fault.errno == Errno::PERM => bind_device(device, parent).map_err(|_| fault),
        Err(fault) => Err(fault),
        Ok(()) => match device.owner {
            Some((uid, gid)) => fs::chownat(parent, &device.name, uid, Some(gid), AtFlags::SYMLINK_NOFOLLOW),
            None => Ok(()),
        },
    }
}

fn is_device(stat: &fs::Stat, device: &Device) -> bool {
    let number = fs::device(device.major, device.minor);
    let same = device.kind == FileType::Fifo || stat.st_rdev == number;
    FileType::from_raw_mode(stat.st_mode) == device.kind && same
}

/// Shows the host's device, after making sure that it is one.
fn bind_device(device: &Device, parent: BorrowedFd<'_>) -> Result<()> {
    let tree = Lingering::new(mount::open_tree(fs::CWD, &device.host, TOP)?);
    if !is_device(&fs::fstat(&tree)?, device) {
        return Err(Call::Stat.fault(Errno::NODEV));
    }
    // A device is no program, and this mount may be all that another file put there would be held by.
    mount::mount_setattr(&tree, c"", TOP, Change::attributes(attribute::NOSUID | attribute::NOEXEC, 0))?;
    make_file(parent, &device.name)?;
    mount::move_mount(&tree, parent, &device.name)
}

/// An empty file to mount on. What is there already may be anything: mounting on a name follows no link.
fn make_file(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    match fs::mknodat(parent, name, FileType::RegularFile, Mode::from_bits_retain(target::FILE_MODE), 0, 0) {
        Err(fault) if fault.errno == Errno::EXIST => Ok(()),
        result => result,
    }
}

fn make_link(name: &CStr, target: &CStr, replace: bool, context: &Context<'_>) -> Result<()> {
    let dev = context.base(Base::Dev)?;
    match fs::symlinkat(target, dev, name) {
        Err(fault) if fault.errno == Errno::EXIST && replace => {
            fs::unlinkat(dev, name, AtFlags::empty())?;
            fs::symlinkat(target, dev, name)
        }
        Err(fault) if fault.errno == Errno::EXIST => Ok(()),
        result => result,
    }
}

fn mount_console(context: &mut Context<'_>) -> Result<()> {
    let Some(slave) = context.console else {
        return Err(Call::OpenTree.fault(Errno::NOTTY));
    };
    if context.dev.is_none() {
        open_dev(context)?;
    }
    let dev = context.base(Base::Dev)?;
    let tree = Lingering::new(mount::open_tree(slave, c"", TOP)?);
    make_file(dev, c"console")?;
    mount::move_mount(&tree, dev, c"console")
}

fn mask(target: &Target, context: &mut Context<'_>) -> Result<()> {
    let base = context.base(target.base)?;
    let opened = match target.direct {
        true => None,
        false => match target.open(base) {
            Err(fault) if fault.errno == Errno::NOENT => return Ok(()),
            result => Some(Lingering::new(result?)),
        },
    };
    let (dir, path) = match &opened {
        Some(fd) => (fd.as_fd(), c""),
        None => (base, target.path.as_c_str()),
    };
    // Asked first, because a copy that finds no place costs more than the question: the kernel waits for all
    // processors when a detached mount is closed.
    let stat = match fs::statat(dir, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH) {
        Err(fault) if fault.errno == Errno::NOENT => return Ok(()),
        result => result?,
    };
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let cover = if directory { &mut context.empty } else { &mut context.null };
    let original = match cover.original {
        Some(original) => original,
        None => *cover.original.insert(leak(open_null()?)),
    };
    match cover.spare.take() {
        Some(spare) => mount::move_mount(spare, dir, path),
        None => mount::move_mount(Lingering::new(mount::open_tree(original, c"", TOP)?), dir, path),
    }
}

/// The host's null device, and nothing that only has its name or its number.
fn open_null() -> Result<OwnedFd> {
    let null = fs::openat(fs::CWD, c"/dev/null", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = fs::fstat(&null)?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    match device && stat.st_rdev == fs::device(1, 3) {
        true => Ok(null),
        false => Err(Call::Stat.fault(Errno::NODEV)),
    }
}

fn make_path_read_only(target: &Target, context: &Context<'_>) -> Result<()> {
    let base = context.base(target.base)?;
    let absent = |errno| errno == Errno::NOENT;
    let opened = match target.direct {
        true => None,
        false => match target.open(base) {
            Err(fault) if absent(fault.errno) => return Ok(()),
            result => Some(Lingering::new(result?)),
        },
    };
    let (dir, path, lookup) = match &opened {
        Some(fd) => (fd.as_fd(), c"", TREE),
        None => (base, target.path.as_c_str(), TREE_NOFOLLOW),
    };
    let tree = match mount::open_tree(dir, path, lookup) {
        Err(fault) if absent(fault.errno) => return Ok(()),
        result => Lingering::new(result?),
    };
    mount::mount_setattr(&tree, c"", TOP, READ_ONLY)?;
    mount::move_mount(&tree, dir, path)
}
