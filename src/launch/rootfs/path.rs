//! Paths of the container as text: cleaned once, when the plan is made. Pure.

/// A destination as a path relative to the root: no empty or `.` component, and `..` taken as written. The root
/// itself is the empty path.
pub fn clean(path: &str) -> String {
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    components.join("/")
}

/// What follows `base/` in `path`, both cleaned; None where `path` is not below `base`.
pub fn below<'p>(path: &'p str, base: &str) -> Option<&'p str> {
    path.strip_prefix(base)?.strip_prefix('/').filter(|rest| !rest.is_empty())
}

/// A path of the host: relative ones start at the bundle.
pub fn on_host(path: &str, bundle: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{bundle}/{path}"),
    }
}

/// `path` and the directories above it, from the deepest to "/".
pub fn ancestors(path: &str) -> Vec<String> {
    let clean = clean(path);
    let mut all = vec![format!("/{clean}")];
    let mut rest = clean.as_str();
    while let Some((parent, _)) = rest.rsplit_once('/') {
        all.push(format!("/{parent}"));
        rest = parent;
    }
    if !clean.is_empty() {
        all.push("/".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_one_form() {
        for (path, expected) in [
            ("/", ""),
            (".", ""),
            ("", ""),
            ("/proc/", "proc"),
            ("//dev//./shm/", "dev/shm"),
            ("a/../../b", "b"),
            ("/../../etc", "etc"),
            ("/a/b/..", "a"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn below_needs_a_whole_component() {
        assert_eq!(below("dev/pts", "dev"), Some("pts"));
        assert_eq!(below("development", "dev"), None);
        assert_eq!(below("dev", "dev"), None);
    }

    #[test]
    fn ancestors_end_at_the_root() {
        assert_eq!(ancestors("/a/b"), ["/a/b", "/a", "/"]);
        assert_eq!(ancestors("/"), ["/"]);
    }
}
