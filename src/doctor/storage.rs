//! The directories that deja writes to.

use std::path::PathBuf;

use super::Finding;

#[derive(Debug)]
pub struct Place {
    pub check: &'static str,
    pub path: PathBuf,
    /// The deepest directory on the way that is there.
    pub nearest: PathBuf,
    pub writable: bool,
    /// Of its file system: the magic number, and what is free.
    pub kind: i64,
    pub free: u64,
    /// Containers need it; otherwise only sessions do.
    pub vital: bool,
}

/// File systems that overlayfs cannot write to.
const NO_UPPER: [(i64, &str); 7] = [
    (0x794c_7630, "an overlay"),
    (0x6969, "nfs"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse"),
    (0x4d44, "fat"),
    (0x7371_7368, "squashfs"),
    (0x5346_544e, "ntfs"),
];

/// Room for the records of a thousand containers.
const LEAST: u64 = 16 << 20;
const LEAST_FOR_SESSIONS: u64 = 1 << 30;

pub fn judge(places: &[Place]) -> Vec<Finding> {
    places.iter().map(judge_one).collect()
}

fn judge_one(place: &Place) -> Finding {
    let Place { check, path, .. } = place;
    let flag = if place.vital { "--root or $XDG_RUNTIME_DIR" } else { "--store" };
    let elsewhere = format!("choose another directory with {flag}");
    let bad = |what: String, next: String| match place.vital {
        true => Finding::missing(check, what, next),
        false => Finding::warning(check, what, next),
    };
    if !place.writable {
        return bad(format!("{path:?} cannot be written to (nor made in {:?})", place.nearest), elsewhere);
    }
    if let (false, Some((_, kind))) = (place.vital, NO_UPPER.iter().find(|(magic, _)| *magic == place.kind)) {
        return bad(
            format!("{path:?} is on {kind}, which overlayfs cannot write to: no sessions"),
            elsewhere,
        );
    }
    let least = if place.vital { LEAST } else { LEAST_FOR_SESSIONS };
    let free = format!("{} MiB free", place.free >> 20);
    match place.free < least {
        true => {
            Finding::warning(check, format!("{path:?}: {free}"), format!("make room there, or {elsewhere}"))
        }
        false => Finding::ok(check, format!("{path:?}, {free}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, Missing, Ok as Fine, Warning};
    use super::*;

    const TMPFS: i64 = 0x0102_1994;

    fn verdict(vital: bool, writable: bool, kind: i64, free: u64) -> Verdict {
        let (path, nearest) = (PathBuf::from("/a/b"), PathBuf::from("/a"));
        judge_one(&Place { check: "state", path, nearest, writable, kind, free, vital }).verdict
    }

    #[test]
    fn where_records_and_sessions_can_be() {
        assert_eq!(verdict(true, true, TMPFS, 1 << 30), Fine);
        assert_eq!(verdict(true, true, 0x794c_7630, 1 << 30), Fine);
        assert_eq!(verdict(true, false, TMPFS, 1 << 30), Missing);
        assert_eq!(verdict(true, true, TMPFS, 1 << 20), Warning);
        assert_eq!(verdict(false, true, TMPFS, 1 << 30), Fine);
        assert_eq!(verdict(false, true, TMPFS, 1 << 29), Warning);
        assert_eq!(verdict(false, true, 0x794c_7630, 1 << 40), Warning);
        assert_eq!(verdict(false, false, TMPFS, 1 << 40), Warning);
    }
}
