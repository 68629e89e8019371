//! The layout in which podman, CRI-O and containerd hand checkpoints around: a tar archive with the image, what the
//! container was, and what its root file system had changed. Pure.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::tar::{Entry, Kind, Limits};

/// What the container was, for people and for engines.
pub const CONFIG_DUMP: &str = "config.dump";
/// Its config.json.
pub const SPEC_DUMP: &str = "spec.dump";
/// The directory of CRIU's image.
pub const IMAGE: &str = "checkpoint";
/// That of the image it builds on.
pub const EARLIER: &str = "pre-checkpoint";
/// What is new or changed in the root file system.
pub const CHANGES: &str = "rootfs-diff.tar";
/// A list of what is gone from it.
pub const DELETED: &str = "deleted.files";
const STATISTICS: &str = "stats-dump";

/// What of CRIU's own writing comes into an archive when it is there.
pub const REMARKS: [&str; 2] = [super::DUMP_LOG, STATISTICS];

/// A list of deleted files is not longer.
pub const LONGEST_LIST: u64 = 64 << 20;

/// Much more than any image or root file system has; how many bytes there is room for is known by who unpacks.
const MOST_ENTRIES: u64 = 4 << 20;

pub fn limits(bytes: u64) -> Limits {
    Limits { entries: MOST_ENTRIES, bytes, ..Limits::default() }
}

/// config.dump, by the names that podman and checkpointctl know.
#[derive(Serialize, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct ConfigDump<'a> {
    pub id: &'a str,
    pub name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub rootfs_image: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub rootfs_image_name: &'a str,
    #[serde(rename = "rootfsImageID", skip_serializing_if = "str::is_empty")]
    pub rootfs_image_id: &'a str,
    pub runtime: &'a str,
    pub created_time: &'a str,
    pub checkpointed_time: &'a str,
    pub restored_time: &'a str,
    pub restored: bool,
}

/// Never, as Go writes it.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// What is to be known of a checkpoint whose archive is the layer of an image.
#[derive(Default)]
pub struct About<'a> {
    pub container: &'a str,
    /// May be empty, as its id: nobody has said.
    pub rootfs_image: &'a str,
    pub rootfs_image_id: &'a str,
    pub version: &'a str,
    pub architecture: &'a str,
    pub kernel: &'a str,
}

/// By the names that CRIU's tools look for, and by those that podman asks for before it restores from an image.
pub fn annotations(about: &About<'_>) -> BTreeMap<String, String> {
    let About { container, rootfs_image, rootfs_image_id, version, architecture, kernel } = *about;
    let criu = [
        ("container.name", container),
        ("engine.name", "deja"),
        ("engine.version", version),
        ("runtime.name", "deja"),
        ("runtime.version", version),
        ("rootfsImageName", rootfs_image),
        ("rootfsImageID", rootfs_image_id),
        ("rawImageName", rootfs_image),
        ("host.arch", architecture),
        ("host.kernel", kernel),
        ("cgroup.version", "v2"),
    ];
    let podman = [
        ("name", container),
        ("runtime.name", "deja"),
        ("runtime.version", version),
        ("rootfsImageName", rootfs_image),
        ("rootfsImageID", rootfs_image_id),
        ("rawImageName", rootfs_image),
        ("host.arch", architecture),
        ("host.kernel", kernel),
        ("cgroups.version", "v2"),
    ];
    let of = |prefix: &'static str| {
        move |(name, value): (&str, &str)| (format!("{prefix}.checkpoint.{name}"), value.to_owned())
    };
    let all = criu.into_iter().map(of("org.criu")).chain(podman.into_iter().map(of("io.podman.annotations")));
    all.filter(|(_, value)| !value.is_empty()).collect()
}

/// What an entry of somebody's archive is good for.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// It is needed to restore.
    Needed,
    /// It says something about the container that a restore does not ask for.
    Passed,
    /// It belongs to the container, and is not brought back.
    Lost,
}

pub fn part(entry: &Entry) -> Result<Part> {
    let shown = entry.display_name();
    let name = std::str::from_utf8(&entry.name).with_context(|| format!("entry {shown:?}"))?;
    let (first, rest) = name.split_once('/').unwrap_or((name, ""));
    match (first, rest, &entry.kind) {
        (IMAGE | EARLIER, "", Kind::Directory) => Ok(Part::Passed),
        // How an image says which one it builds on. Nothing else in an archive may be a link.
        (IMAGE, "parent", Kind::Symlink { target }) => {
            ensure!(
                target == b"../pre-checkpoint",
                "entry {shown:?}: the image builds on one outside the archive"
            );
            Ok(Part::Needed)
        }
        (IMAGE | EARLIER, inside, Kind::File) if !inside.is_empty() && !inside.contains('/') => {
            Ok(Part::Needed)
        }
        (IMAGE | EARLIER, ..) => bail!("entry {shown:?}: an image is made of plain files, and this is none"),
        (CHANGES | DELETED, "", Kind::File) => Ok(Part::Needed),
        (CHANGES | DELETED, ..) => bail!("entry {shown:?}: it should be a file"),
        ("volumes" | "devshm-checkpoint.tar", ..) => Ok(Part::Lost),
        _ => Ok(Part::Passed),
    }
}

/// The names in a list of deleted files, relative to the root.
pub fn deleted(list: &[u8]) -> Result<Vec<String>> {
    let names: Vec<String> = serde_json::from_slice(list).context("the list of deleted files is damaged")?;
    let relative = |name: String| {
        let parts = || name.split('/').filter(|part| !part.is_empty() && *part != ".");
        ensure!(parts().all(|part| part != ".."), "the list of deleted files leads outside: {name:?}");
        ensure!(parts().next().is_some(), "the list of deleted files names the root itself");
        Ok(parts().collect::<Vec<_>>().join("/"))
    };
    names.into_iter().map(relative).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, kind: Kind) -> Entry {
        Entry { kind, ..Entry::file(name, 0) }
    }

    #[test]
    fn an_archive_is_taken_for_what_engines_put_into_it() {
        let parent = |target: &str| named("checkpoint/parent", Kind::Symlink { target: target.into() });
        for (entry, expected) in [
            (Entry::file("config.dump", 5), Part::Passed),
            (Entry::directory("checkpoint"), Part::Passed),
            (Entry::file("checkpoint/inventory.img", 5), Part::Needed),
            (Entry::file("pre-checkpoint/pages-1.img", 5), Part::Needed),
            (parent("../pre-checkpoint"), Part::Needed),
            (Entry::file("rootfs-diff.tar", 5), Part::Needed),
            (Entry::file("deleted.files", 5), Part::Needed),
            (Entry::file("volumes/data.tar", 5), Part::Lost),
            (Entry::file("devshm-checkpoint.tar", 5), Part::Lost),
            (Entry::file("network.status", 5), Part::Passed),
            (named("artifacts", Kind::Directory), Part::Passed),
        ] {
            assert_eq!(part(&entry).unwrap(), expected, "{}", entry.display_name());
        }
        for entry in [
            parent("/etc"),
            parent("../../elsewhere"),
            named("checkpoint", Kind::Symlink { target: "/etc".into() }),
            named("checkpoint/x", Kind::Symlink { target: "/etc/shadow".into() }),
            named("checkpoint/x", Kind::Link { target: "config.dump".into() }),
            named("checkpoint/x", Kind::Device { block: true, major: 8, minor: 0 }),
            Entry::file("checkpoint/a/b", 5),
            named("rootfs-diff.tar", Kind::Symlink { target: "/etc/shadow".into() }),
            named("deleted.files", Kind::Fifo),
        ] {
            assert!(part(&entry).is_err(), "{}", entry.display_name());
        }
    }

    #[test]
    fn what_was_deleted_lies_in_the_root() {
        assert_eq!(deleted(br#"["/etc/passwd", "var//./log"]"#).unwrap(), ["etc/passwd", "var/log"]);
        for list in [r#"["/../etc"]"#, r#"["a/../../b"]"#, r#"["/"]"#, r#"[""]"#, "{", r#"{"a": 1}"#] {
            assert!(deleted(list.as_bytes()).is_err(), "{list}");
        }
    }

    #[test]
    fn podman_and_checkpointctl_know_the_names() {
        let dump = ConfigDump {
            id: "1",
            name: "web",
            rootfs_image_name: "nginx",
            rootfs_image_id: "9",
            ..ConfigDump::default()
        };
        let text = serde_json::to_string(&dump).unwrap();
        for key in [
            "\"id\":\"1\"",
            "\"rootfsImageName\":\"nginx\"",
            "\"rootfsImageID\":\"9\"",
            "\"checkpointedTime\":",
            "\"runtime\":",
        ] {
            assert!(text.contains(key), "{text}");
        }
    }

    #[test]
    fn an_image_says_what_it_is_to_both_families_of_readers() {
        let about = About {
            container: "web",
            version: "1",
            architecture: "amd64",
            kernel: "6.12",
            ..About::default()
        };
        let found = annotations(&about);
        for (key, value) in [
            ("org.criu.checkpoint.container.name", "web"),
            ("org.criu.checkpoint.engine.name", "deja"),
            ("org.criu.checkpoint.cgroup.version", "v2"),
            ("io.podman.annotations.checkpoint.name", "web"),
            ("io.podman.annotations.checkpoint.runtime.name", "deja"),
            ("io.podman.annotations.checkpoint.cgroups.version", "v2"),
        ] {
            assert_eq!(found.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(found.keys().all(|key| !key.contains("Image")), "what nobody has said is left out");
        let found = annotations(&About { rootfs_image: "alpine", ..about });
        assert_eq!(found["org.criu.checkpoint.rootfsImageName"], "alpine");
    }
}
