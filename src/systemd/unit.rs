//! The scope of a container, from `linux.cgroupsPath`. Pure.

use anyhow::{Result, bail};

/// A unit and the slice it goes into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    pub slice: String,
}

impl Unit {
    /// The form of cgroupsPath under systemd is `slice:prefix:name`; empty stands for `:deja:<id>`. An empty slice
    /// is the one where systemd puts what nobody put anywhere: `default_slice`.
    pub fn resolve(asked: &str, id: &str, default_slice: &str) -> Result<Self> {
        if asked.is_empty() {
            return Ok(Self { name: format!("deja-{id}.scope"), slice: default_slice.to_owned() });
        }
        let parts: Vec<&str> = asked.split(':').collect();
        let &[slice, prefix, name] = &parts[..] else {
            bail!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {asked:?} instead"
            );
        };
        if name.is_empty() {
            bail!("cgroupsPath {asked:?}: the name of the scope is missing");
        }
        if name.ends_with(".slice") {
            bail!("cgroupsPath {asked:?}: a container is a scope, not a slice");
        }
        let slice = if slice.is_empty() { default_slice } else { slice };
        if !slice.ends_with(".slice") || slice.contains('/') {
            bail!("cgroupsPath {asked:?}: {slice:?} is no slice");
        }
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        Ok(Self { name, slice: slice.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_and_slices() {
        let table = [
            ("", "system.slice/deja-web.scope"),
            ("machine.slice:libpod:12", "machine.slice/libpod-12.scope"),
            (":cri-containerd:12", "system.slice/cri-containerd-12.scope"),
            ("a-b.slice::12", "a-b.slice/12.scope"),
        ];
        for (asked, expected) in table {
            let unit = Unit::resolve(asked, "web", "system.slice").unwrap();
            assert_eq!(format!("{}/{}", unit.slice, unit.name), expected, "{asked}");
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        let table = [
            ("/a/b", "slice:prefix:name"),
            ("a:b", "slice:prefix:name"),
            ("a.slice:b:c:d", "slice:prefix:name"),
            ("a.slice:b:", "name of the scope is missing"),
            ("a.slice:b:c.slice", "not a slice"),
            ("a:b:c", "is no slice"),
            ("a/b.slice:b:c", "is no slice"),
        ];
        for (asked, words) in table {
            let error = Unit::resolve(asked, "web", "system.slice").unwrap_err().to_string();
            assert!(error.contains(words), "{asked}: {error}");
        }
    }
}
