//! Where a container's cgroup lies, from `linux.cgroupsPath`. Pure.
//!
//! The rules are runc's for its cgroupfs driver: an absolute path counts from the root of the hierarchy, a
//! relative one from the parent of our own cgroup, an empty one stands for the container's id. `..` is
//! resolved on paper before the kernel sees it, so that no path leaves the place it counts from.

use anyhow::{Result, bail};

/// Whether `resolve` needs to know our own cgroup.
pub fn needs_own(asked: &str) -> bool {
    !asked.starts_with('/')
}

/// The place of the container's cgroup, relative to the mount. `own` is our own cgroup as /proc/self/cgroup
/// names it, looked at only when `needs_own` says so.
pub fn resolve(asked: &str, id: &str, own: &str) -> Result<String> {
    if !needs_own(asked) {
        return not_the_root(asked, clean(asked));
    }
    if own == "/.." || own.starts_with("/../") {
        bail!("own cgroup {own:?} lies outside the cgroup namespace: cgroupsPath must be absolute here");
    }
    let inner = clean(if asked.is_empty() { id } else { asked });
    let inner = not_the_root(asked, inner)?;
    // Our own cgroup has processes in it, and such a cgroup cannot hand controllers to children.
    let own = clean(own);
    match own.rsplit_once('/') {
        Some((parent, _)) => Ok(format!("{parent}/{inner}")),
        None => Ok(inner),
    }
}

fn not_the_root(asked: &str, path: String) -> Result<String> {
    if path.is_empty() {
        bail!("cgroupsPath {asked:?} is the root of the cgroup hierarchy: a container needs its own cgroup");
    }
    Ok(path)
}

/// `sub` below `base`, for `exec --cgroup`; it must not lead out of `base`.
pub fn below(base: &str, sub: &str) -> Result<String> {
    let mut depth = 0i32;
    for part in sub.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            bail!("bad sub cgroup path: {sub}");
        }
    }
    let inner = clean(sub);
    Ok(if inner.is_empty() { base.to_owned() } else { format!("{base}/{inner}") })
}

/// Resolves `.`, `..` and doubled slashes on paper, and drops the leading slash.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let table = [
            ("/docker/abc", "abc", "", "docker/abc"),
            ("/", "", "", "root"),
            ("/..", "", "", "root"),
            ("/a/../..", "", "", "root"),
            ("/../../etc", "c", "", "etc"),
            ("//a//./b/", "c", "", "a/b"),
            ("a/b", "c", "/user.slice/session-1.scope", "user.slice/a/b"),
            ("../../../a", "c", "/user.slice/session-1.scope", "user.slice/a"),
            ("", "c1", "/user.slice/session-1.scope", "user.slice/c1"),
            ("", "c1", "/init.scope", "c1"),
            ("", "c1", "/", "c1"),
            ("", "c1", "/a/b/c", "a/b/c1"),
            ("..", "c1", "/a/b", "root"),
            ("", "..", "/a/b", "root"),
            ("a", "c", "/../other", "outside"),
            ("", "c", "/..", "outside"),
            ("system.slice:docker:1", "c", "/x", "system.slice:docker:1"),
            ("..a/b", "c", "/", "..a/b"),
        ];
        for (asked, id, own, expected) in table {
            let found = match resolve(asked, id, own) {
                Ok(path) => path,
                Err(error) if error.to_string().contains("is the root") => "root".to_owned(),
                Err(error) if error.to_string().contains("outside") => "outside".to_owned(),
                Err(error) => panic!("{asked:?}: {error}"),
            };
            assert_eq!(found, expected, "{asked:?} of {id:?} from {own:?}");
        }
    }

    #[test]
    fn sub_cgroups_stay_below() {
        assert_eq!(below("c", "a/b").unwrap(), "c/a/b");
        assert_eq!(below("c", "/a").unwrap(), "c/a");
        assert_eq!(below("c", "a/../b").unwrap(), "c/b");
        assert_eq!(below("c", "").unwrap(), "c");
        assert_eq!(below("c", "/").unwrap(), "c");
        for bad in ["..", "../c2", "a/../../c", "/.."] {
            assert_eq!(below("c", bad).unwrap_err().to_string(), format!("bad sub cgroup path: {bad}"));
        }
    }
}
