//! Devices of the container: made as nodes, or, where the kernel does not allow that, shown from the host.

use std::ffi::CString;
use std::fmt;

use anyhow::Result;

use super::path;
use super::target::{Base, Target};
use crate::error::Failure;
use crate::spec;
use crate::sys::fs::FileType;

#[derive(Debug, PartialEq)]
pub struct Device {
    /// The directory it lies in; links on the way to it are refused.
    pub parent: Target,
    pub name: CString,
    pub kind: FileType,
    pub mode: u32,
    pub owner: Option<(u32, u32)>,
    pub major: u32,
    pub minor: u32,
    /// The same device of the host.
    pub host: CString,
    /// Nodes cannot be made in a user namespace.
    pub bind: bool,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "make the device {:?}", self.host)
    }
}

/// What every container has, as the runtime specification demands.
const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The names in /dev that lead into the process's own descriptors.
pub const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// The default devices that the config does not redefine, then its own. /dev/ptmx is always a link of ours.
pub fn devices(config: &[spec::Device<'_>], bind: bool) -> Result<Vec<Device>> {
    let configured: Vec<String> = config.iter().map(|device| path::clean(&device.path)).collect();
    let mut devices = Vec::new();
    for (name, major, minor) in DEFAULTS {
        let full = format!("dev/{name}");
        if !configured.contains(&full) {
            let numbers = (FileType::CharacterDevice, major, minor);
            devices.push(device(&full, numbers, 0o666, None, bind)?);
        }
    }
    for (asked, full) in config.iter().zip(&configured) {
        if full == "dev/ptmx" {
            continue;
        }
        let numbers = numbers(asked)?;
        let mode = asked.file_mode.map_or(0o666, |mode| mode & 0o7777);
        let owner = (asked.uid.unwrap_or(0), asked.gid.unwrap_or(0));
        devices.push(device(full, numbers, mode, Some(owner).filter(|owner| *owner != (0, 0)), bind)?);
    }
    Ok(devices)
}

fn numbers(device: &spec::Device<'_>) -> Result<(FileType, u32, u32)> {
    let path = &device.path;
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => return Ok((FileType::Fifo, 0, 0)),
        kind => {
            let message = format!("linux.devices: {path:?} has the unknown type {kind:?}");
            return Err(Failure::input(message).into());
        }
    };
    match (u32::try_from(device.major), u32::try_from(device.minor)) {
        (Ok(major), Ok(minor)) => Ok((kind, major, minor)),
        _ => {
            let numbers = (device.major, device.minor);
            let message =
                format!("linux.devices: {path:?} has no valid numbers: {}:{}", numbers.0, numbers.1);
            Err(Failure::input(message).into())
        }
    }
}

fn device(
    full: &str,
    (kind, major, minor): (FileType, u32, u32),
    mode: u32,
    owner: Option<(u32, u32)>,
    bind: bool,
) -> Result<Device> {
    let (parent, name) = full.rsplit_once('/').unwrap_or(("", full));
    if name.is_empty() {
        return Err(Failure::input("linux.devices: a device needs a path").into());
    }
    let (base, below) = match parent {
        "dev" => (Base::Dev, ""),
        _ => path::below(parent, "dev").map_or((Base::Root, parent), |below| (Base::Dev, below)),
    };
    let parent = Target {
        base,
        path: CString::new(below)?,
        direct: false,
        rigid: true,
        nofollow: false,
        absent: false,
        text: format!("/{parent}"),
    };
    Ok(Device {
        parent,
        name: CString::new(name)?,
        kind,
        mode,
        owner,
        major,
        minor,
        host: CString::new(format!("/{full}"))?,
        bind: bind && kind != FileType::Fifo,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Result<Vec<Device>> {
        let list: Vec<spec::Device> = serde_json::from_str(json).unwrap();
        devices(&list, false)
    }

    #[test]
    fn a_configured_device_replaces_the_default_one() {
        let devices =
            config(r#"[{"path":"/dev//null","type":"c","major":1,"minor":3,"fileMode":384,"uid":5}]"#)
                .unwrap();
        assert_eq!(devices.len(), 6);
        let null = devices.iter().find(|device| device.name.as_c_str() == c"null").unwrap();
        assert_eq!((null.mode, null.owner), (0o600, Some((5, 0))));
    }

    #[test]
    fn a_device_lies_in_dev_or_anywhere_else() {
        let devices = config(
            r#"[{"path":"/dev/net/tun","type":"u","major":10,"minor":200},{"path":"/opt/pipe","type":"p"},
                {"path":"/dev/ptmx","type":"c","major":5,"minor":2}]"#,
        )
        .unwrap();
        let tun = &devices[6];
        assert_eq!(
            (tun.parent.base, tun.parent.path.as_c_str(), tun.name.as_c_str()),
            (Base::Dev, c"net", c"tun")
        );
        let pipe = &devices[7];
        assert_eq!((pipe.parent.base, pipe.parent.path.as_c_str()), (Base::Root, c"opt"));
        assert_eq!(devices.len(), 8);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (json, words) in [
            (r#"[{"path":"/dev/x","type":"z"}]"#, "unknown type \"z\""),
            (r#"[{"path":"/dev/x","type":"c","major":-1}]"#, "no valid numbers: -1:0"),
            (r#"[{"path":"/","type":"c"}]"#, "needs a path"),
        ] {
            let error = config(json).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
