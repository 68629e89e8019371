//! Extended attributes of files in layers. In a user namespace the kernel gives `trusted.` to nobody, and overlayfs keeps
//! its marks under `user.overlay.` (its option userxattr). Everything but this file knows the names that root's layers
//! have, which are also those in archives; what a program has called `user.overlay.` itself is set apart by a second
//! `overlay.`, as overlayfs does it.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::{Result, file};

/// What overlayfs marks.
pub const OVERLAY: &[u8] = b"trusted.overlay.";
/// What deja marks.
const OWN: &[u8] = b"trusted.deja.";

const USER_OVERLAY: &[u8] = b"user.overlay.";
const USER_OWN: &[u8] = b"user.overlay.deja.";
const USER_PROGRAM: &[u8] = b"user.overlay.overlay.";

static IN_USER_NAMESPACE: AtomicBool = AtomicBool::new(false);

/// From here on this process is in a user namespace, and so are the layers it works with.
pub fn in_user_namespace() {
    IN_USER_NAMESPACE.store(true, Ordering::Relaxed);
}

pub fn are_in_user_namespace() -> bool {
    IN_USER_NAMESPACE.load(Ordering::Relaxed)
}

fn renamed<'n>(name: &'n [u8], ways: &[(&[u8], &[u8])]) -> Cow<'n, [u8]> {
    let found = ways.iter().find_map(|(from, to)| name.strip_prefix(*from).map(|rest| [*to, rest].concat()));
    found.map_or(Cow::Borrowed(name), Cow::Owned)
}

fn to_user(name: &[u8]) -> Cow<'_, [u8]> {
    renamed(name, &[(OVERLAY, USER_OVERLAY), (OWN, USER_OWN), (USER_OVERLAY, USER_PROGRAM)])
}

fn from_user(name: &[u8]) -> Cow<'_, [u8]> {
    renamed(name, &[(USER_PROGRAM, USER_OVERLAY), (USER_OWN, OWN), (USER_OVERLAY, OVERLAY)])
}

/// What an attribute of a layer is called on the disk.
pub fn on_disk(name: &[u8]) -> Cow<'_, [u8]> {
    if are_in_user_namespace() { to_user(name) } else { Cow::Borrowed(name) }
}

/// The other way round.
pub fn from_disk(name: &[u8]) -> Cow<'_, [u8]> {
    if are_in_user_namespace() { from_user(name) } else { Cow::Borrowed(name) }
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Attributes as an archive has them, for the disk.
pub fn all_on_disk(pairs: Pairs) -> Pairs {
    pairs.into_iter().map(|(name, value)| (on_disk(&name).into_owned(), value)).collect()
}

/// Attributes as the disk has them, for an archive.
pub fn all_from_disk(pairs: Pairs) -> Pairs {
    pairs.into_iter().map(|(name, value)| (from_disk(&name).into_owned(), value)).collect()
}

pub fn list(path: &CStr) -> Result<Vec<CString>> {
    let names = file::list_xattrs(path)?;
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| c_name(&from_disk(name))).collect())
}

pub fn get(path: &CStr, name: &CStr) -> Result<Option<Vec<u8>>> {
    file::get_xattr(path, &c_name(&on_disk(name.to_bytes())))
}

pub fn set(path: &CStr, name: &CStr, value: &[u8]) -> Result<()> {
    file::set_xattr(path, &c_name(&on_disk(name.to_bytes())), value)
}

pub fn remove(path: &CStr, name: &CStr) -> Result<()> {
    file::remove_xattr(path, &c_name(&on_disk(name.to_bytes())))
}

fn c_name(name: &[u8]) -> CString {
    CString::new(name).expect("the name of an attribute holds no NUL byte")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn marks_are_where_overlayfs_looks_for_them() {
        for (name, disk) in [
            ("trusted.overlay.opaque", "user.overlay.opaque"),
            ("trusted.deja.links", "user.overlay.deja.links"),
            ("user.overlay.opaque", "user.overlay.overlay.opaque"),
            ("user.overlay.deja.links", "user.overlay.overlay.deja.links"),
            ("user.overlay.overlay.x", "user.overlay.overlay.overlay.x"),
            ("user.mime", "user.mime"),
            ("security.capability", "security.capability"),
        ] {
            assert_eq!(to_user(name.as_bytes()), disk.as_bytes());
            assert_eq!(from_user(disk.as_bytes()), name.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(parts in proptest::collection::vec(
            prop_oneof![Just("trusted."), Just("user."), Just("overlay."), Just("deja."), Just("x")], 1..6)
        ) {
            let name = parts.concat();
            // A mark of overlayfs in root's layers that deja's own would look like is one nobody makes.
            prop_assume!(!name.starts_with("trusted.overlay.overlay.") && !name.starts_with("trusted.overlay.deja."));
            let disk = to_user(name.as_bytes());
            let back = from_user(&disk);
            prop_assert_eq!(&*back, name.as_bytes());
        }
    }
}
