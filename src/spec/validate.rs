//! What a config.json must say, whatever the machine: required fields, paths from the root, names and numbers
//! that mean something. Values whose meaning another module gives are checked there.

use super::{Hook, IdMapping, IntelRdt, Linux, Map, Namespace, NamespaceKind, NetDevice, Process, Spec, Str};
use crate::error::Failure;

type Result = std::result::Result<(), Failure>;

/// setresuid and chown take it for "leave as it is".
const NO_ID: u32 = u32::MAX;

/// Annotations of other runtimes that change how safe a container is, and that deja does not implement.
const REFUSED_ANNOTATIONS: &[&str] =
    &["run.oci.handler", "run.oci.seccomp.plugins", "run.oci.seccomp_bpf_data"];

fn refuse(text: String) -> Result {
    Err(Failure::input(text))
}

pub fn validate(spec: &Spec) -> Result {
    version(&spec.oci_version)?;
    match &spec.process {
        None => refuse("process property must not be empty".to_owned())?,
        Some(process) => validate_process(process)?,
    }
    if spec.root.as_ref().is_none_or(|root| root.path.is_empty()) {
        refuse("root must be specified: root.path is empty".to_owned())?;
    }
    mounts(spec)?;
    hooks(spec)?;
    annotations(&spec.annotations)?;
    let namespaces = spec.linux.as_ref().map(|linux| linux.namespaces.as_slice()).unwrap_or_default();
    for (name, value) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        if !value.is_empty() && !has(namespaces, NamespaceKind::Uts) {
            refuse(format!("unable to set {name} without a private UTS namespace"))?;
        }
    }
    spec.linux.as_ref().map_or(Ok(()), linux)
}

fn version(version: &str) -> Result {
    if version.is_empty() {
        return refuse("ociVersion is required".to_owned());
    }
    let mut numbers = version.split(['-', '+']).next().unwrap_or_default().split('.');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let known = numbers.next() == Some("1") && numbers.clone().count() == 2 && numbers.all(number);
    if known { Ok(()) } else { refuse(format!("ociVersion {version:?} is not supported: only 1.x.y is")) }
}

/// Also for what `exec --process` reads.
pub fn validate_process(process: &Process) -> Result {
    if process.args.is_empty() {
        return refuse("args must not be empty".to_owned());
    }
    if process.args[0].is_empty() {
        return refuse("process.args[0] is empty: no program to run".to_owned());
    }
    if process.cwd.is_empty() {
        return refuse("Cwd property must not be empty".to_owned());
    }
    if !process.cwd.starts_with('/') {
        return refuse(format!("Cwd must be an absolute path: {:?}", process.cwd));
    }
    for (index, variable) in process.env.iter().enumerate() {
        if variable.find('=').is_none_or(|place| place == 0) {
            return refuse(format!("process.env[{index}]: {variable:?} is not of the form NAME=value"));
        }
    }
    let user = &process.user;
    let named = [("uid", user.uid), ("gid", user.gid)];
    let more = user.additional_gids.iter().map(|gid| ("additionalGids", *gid));
    for (name, id) in named.into_iter().chain(more) {
        if id == NO_ID {
            return refuse(format!("process.user.{name}: {id} is not an id"));
        }
    }
    match user.umask {
        Some(umask) if umask > 0o777 => refuse(format!("process.user.umask: {umask:#o} is above 0o777")),
        _ => Ok(()),
    }
}

fn mounts(spec: &Spec) -> Result {
    for (index, mount) in spec.mounts.iter().enumerate() {
        if mount.destination.is_empty() {
            return refuse(format!("mounts[{index}].destination is empty"));
        }
        if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
            return refuse(format!(
                "mounts[{index}]: id-mapped mounts must have both uid and gid mappings specified"
            ));
        }
        mappings(&format!("mounts[{index}].uidMappings"), &mount.uid_mappings)?;
        mappings(&format!("mounts[{index}].gidMappings"), &mount.gid_mappings)?;
    }
    Ok(())
}

fn hooks(spec: &Spec) -> Result {
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    let kinds: [(&str, &[Hook]); 6] = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, list) in kinds {
        for (index, hook) in list.iter().enumerate() {
            if !hook.path.starts_with('/') {
                return refuse(format!(
                    "hooks.{kind}[{index}].path: {:?} is not an absolute path",
                    hook.path
                ));
            }
            if let Some(seconds @ ..=0) = hook.timeout {
                return refuse(format!("hooks.{kind}[{index}].timeout: {seconds} is not greater than zero"));
            }
        }
    }
    Ok(())
}

fn annotations(annotations: &Map<Str>) -> Result {
    for (key, _) in annotations {
        if key.is_empty() {
            return refuse("annotations: a key is empty".to_owned());
        }
        if REFUSED_ANNOTATIONS.contains(&key.as_str()) {
            return refuse(format!("annotation {key:?} is not implemented"));
        }
    }
    Ok(())
}

fn linux(linux: &Linux) -> Result {
    namespaces(&linux.namespaces)?;
    mappings("linux.uidMappings", &linux.uid_mappings)?;
    mappings("linux.gidMappings", &linux.gid_mappings)?;
    user_namespace(linux)?;
    time_namespace(linux)?;
    net_devices(linux)?;
    linux.intel_rdt.as_ref().map_or(Ok(()), intel_rdt)
}

/// The class becomes a directory's name; the kernel keeps some for itself. `/` is the class of all others.
fn intel_rdt(asked: &IntelRdt) -> Result {
    let name = asked.clos_id.as_str();
    let kept = matches!(name, "." | ".." | "info" | "mon_groups" | "mon_data");
    if kept || name != "/" && name.contains(['/', '\n']) {
        return refuse(format!("linux.intelRdt.closID: {name:?} is no name of a class of service"));
    }
    Ok(())
}

fn has(namespaces: &[Namespace], kind: NamespaceKind) -> bool {
    namespaces.iter().any(|namespace| namespace.kind == kind)
}

fn path_of<'n>(namespaces: &'n [Namespace], kind: NamespaceKind) -> Option<&'n str> {
    let found = namespaces.iter().find(|namespace| namespace.kind == kind)?;
    found.path.as_deref().filter(|path| !path.is_empty())
}

fn namespaces(namespaces: &[Namespace]) -> Result {
    for (index, namespace) in namespaces.iter().enumerate() {
        if has(&namespaces[..index], namespace.kind) {
            return refuse(format!("malformed spec file: duplicated ns {:?}", namespace.kind.word()));
        }
        let path = namespace.path.as_deref().unwrap_or_default();
        if !path.is_empty() && !path.starts_with('/') {
            return refuse(format!("linux.namespaces[{index}].path: {path:?} is not an absolute path"));
        }
    }
    Ok(())
}

/// The kernel takes at most 340 lines, none of them empty, none beyond the last id, none meeting another.
fn mappings(name: &str, mappings: &[IdMapping]) -> Result {
    const MOST: usize = 340;
    if mappings.len() > MOST {
        return refuse(format!("{name}: {} mappings are more than the kernel's {MOST}", mappings.len()));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let IdMapping { container_id, host_id, size } = *mapping;
        let fits = |start: u32| start.checked_add(size).is_some();
        if size == 0 || !fits(container_id) || !fits(host_id) {
            return refuse(format!("{name}[{index}]: {container_id} {host_id} {size} is not a range of ids"));
        }
        for (earlier, other) in mappings[..index].iter().enumerate() {
            let meets = |a: u32, b: u32| a < b + other.size && b < a + size;
            if meets(container_id, other.container_id) || meets(host_id, other.host_id) {
                return refuse(format!("{name}[{index}] overlaps with {name}[{earlier}]"));
            }
        }
    }
    Ok(())
}

fn user_namespace(linux: &Linux) -> Result {
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if !has(&linux.namespaces, NamespaceKind::User) {
        let text = "user namespace mappings specified, but user namespace isn't enabled in the config";
        return if mapped { refuse(text.to_owned()) } else { Ok(()) };
    }
    if path_of(&linux.namespaces, NamespaceKind::User).is_some() {
        return Ok(());
    }
    match (linux.uid_mappings.is_empty(), linux.gid_mappings.is_empty()) {
        // Mapped is then who runs deja, and nobody else.
        (false, false) | (true, true) => Ok(()),
        (true, false) => refuse("linux.uidMappings is empty, but linux.gidMappings is not".to_owned()),
        (false, true) => refuse("linux.gidMappings is empty, but linux.uidMappings is not".to_owned()),
    }
}

fn time_namespace(linux: &Linux) -> Result {
    if linux.time_offsets.is_empty() {
        return Ok(());
    }
    if !has(&linux.namespaces, NamespaceKind::Time) {
        return refuse(
            "time namespace offsets specified, but time namespace isn't enabled in the config".into(),
        );
    }
    if path_of(&linux.namespaces, NamespaceKind::Time).is_some() {
        return refuse(
            "time namespace enabled, but both namespace path and time offsets specified -- you may only provide one"
                .to_owned(),
        );
    }
    for (clock, offset) in &linux.time_offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return refuse(format!("linux.timeOffsets: {clock:?} is not a clock: monotonic or boottime"));
        }
        if offset.nanosecs > 999_999_999 {
            return refuse(format!(
                "linux.timeOffsets.{clock}.nanosecs: {} is a second or more",
                offset.nanosecs
            ));
        }
    }
    Ok(())
}

fn net_devices(linux: &Linux) -> Result {
    if linux.net_devices.is_empty() {
        return Ok(());
    }
    if !has(&linux.namespaces, NamespaceKind::Network) {
        return refuse("unable to move network devices without a NET namespace".to_owned());
    }
    let mut inside: Vec<&str> = Vec::new();
    for (outside, NetDevice { name }) in &linux.net_devices {
        let becomes = if name.is_empty() { outside.as_str() } else { name.as_str() };
        for name in [outside.as_str(), becomes] {
            if !is_device_name(name) {
                return refuse(format!("invalid network device name {name:?}"));
            }
        }
        if inside.contains(&becomes) {
            return refuse(format!("linux.netDevices: two devices would be named {becomes:?}"));
        }
        inside.push(becomes);
    }
    Ok(())
}

/// As the kernel sees it: it also keeps `%` and `:` for itself.
fn is_device_name(name: &str) -> bool {
    const LONGEST: usize = 15;
    let forbidden = |byte: u8| matches!(byte, b'/' | b':' | b'%') || byte.is_ascii_whitespace();
    !name.is_empty() && name.len() <= LONGEST && name != "." && name != ".." && !name.bytes().any(forbidden)
}

#[cfg(test)]
mod tests;
