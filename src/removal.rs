//! Removing a directory with all that is below it, which may have been made to be hard to remove.
//!
//! No link is followed, and however deep directories lie below each other, a bounded number of descriptors and of stack
//! frames is enough: what lies too deep is moved up first.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::sys::fs::{self, AtFlags, CWD, Mode, OFlags};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, Result};

/// As deep a tree goes without anything being moved.
const DEPTH: usize = 64;

/// Removes what `parent` has under `name`; nothing of that name is no error.
pub fn remove(parent: impl AsFd, name: &CStr) -> Result<()> {
    let parent = parent.as_fd();
    if is_unlinked(parent, name)? {
        return Ok(());
    }
    let top = directory(parent, name)?;
    let mut removal = Removal { top: top.as_fd(), moved: 0 };
    loop {
        let before = removal.moved;
        removal.empty(top.as_fd(), 0)?;
        match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(fault) if fault.errno == Errno::NOTEMPTY && removal.moved > before => (),
            Err(fault) if fault.errno == Errno::NOENT => return Ok(()),
            result => return result,
        }
    }
}

/// As `remove`, by a path that nobody else can make lead elsewhere.
pub fn remove_path(path: &Path) -> Result<()> {
    match CString::new(path.as_os_str().as_bytes()) {
        Ok(path) => remove(CWD, &path),
        // The kernel knows no such name.
        Err(_) => Ok(()),
    }
}

/// False: it is a directory.
fn is_unlinked(parent: BorrowedFd<'_>, name: &CStr) -> Result<bool> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(fault) if fault.errno == Errno::ISDIR => Ok(false),
        Err(fault) if fault.errno == Errno::NOENT => Ok(true),
        result => result.map(|()| true),
    }
}

fn directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

struct Removal<'t> {
    top: BorrowedFd<'t>,
    /// Directories that were moved up to `top`.
    moved: u64,
}

impl Removal<'_> {
    /// Removes what is in `directory`, but for directories that lie too deep: these come to the top.
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<()> {
        let mut names = Vec::new();
        fs::entries(directory, |name, _| names.push(name.to_owned()))?;
        for name in names {
            if is_unlinked(directory, &name)? {
                continue;
            }
            if depth < DEPTH {
                self.empty(self::directory(directory, &name)?.as_fd(), depth + 1)?;
            }
            match fs::unlinkat(directory, &name, AtFlags::REMOVEDIR) {
                Err(fault) if fault.errno == Errno::NOTEMPTY && depth == DEPTH => {
                    self.lift(directory, &name)?
                }
                result => result?,
            }
        }
        Ok(())
    }

    fn lift(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        loop {
            self.moved += 1;
            let free = CString::new(format!(".{}", self.moved)).expect("a number holds no NUL byte");
            match fs::rename_new(directory, name, self.top, &free) {
                Err(fault) if fault.errno == Errno::EXIST => (),
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }

    #[test]
    fn files_links_and_directories_go_and_what_links_lead_to_stays() {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(place.path().join("kept"), "").unwrap();
        std::fs::create_dir(place.path().join("full")).unwrap();
        std::fs::write(place.path().join("full/kept"), "").unwrap();
        std::fs::write(tree.join("a/file"), "").unwrap();
        symlink("../../kept", tree.join("a/link")).unwrap();
        symlink("../../../full", tree.join("a/b/directory")).unwrap();
        std::fs::set_permissions(tree.join("a"), PermissionsExt::from_mode(0o500)).unwrap();
        std::fs::set_permissions(tree.join("a"), PermissionsExt::from_mode(0o700)).unwrap();
        let parent = open(place.path());
        remove(&parent, c"tree").unwrap();
        assert!(
            !tree.exists() && place.path().join("kept").exists() && place.path().join("full/kept").exists()
        );
        remove(&parent, c"tree").unwrap();
        remove(&parent, c"kept").unwrap();
        assert!(!place.path().join("kept").exists());
    }

    /// Deeper than any path and than descriptors reach, with names that are in the way of what is moved.
    #[test]
    fn depth_is_no_hiding_place() {
        let place = tempfile::tempdir().unwrap();
        let parent = open(place.path());
        fs::mkdirat(&parent, c"tree", Mode::from_raw_mode(0o700)).unwrap();
        let tree = place.path().join("tree");
        (0..9).for_each(|number| std::fs::create_dir_all(tree.join(format!(".{number}/d"))).unwrap());
        let mut here = open(&tree);
        for _ in 0..2500 {
            fs::mkdirat(&here, c"d", Mode::from_raw_mode(0o700)).unwrap();
            fs::mkdirat(&here, c"e", Mode::from_raw_mode(0o700)).unwrap();
            here = directory(here.as_fd(), c"d").unwrap();
        }
        remove(&parent, c"tree").unwrap();
        assert!(!tree.exists());
    }
}
