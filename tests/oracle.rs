//! A second opinion on config.json: whatever the types of the oci-spec crate read, deja reads, and reads alike.
//!
//! The other direction is not asked: deja reads valid values that those types refuse (capabilities it does not
//! know, scheduler flags) and refuses others by name in `validate`. Only required fields that are missing and
//! numbers out of range are refused here and not there.

use deja::spec;
use oci_spec::runtime as oracle;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Every field of the model, each with a value that is not its default.
fn full() -> Value {
    let capabilities = json!(["CAP_KILL", "CAP_CHOWN"]);
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 65536}]);
    let hook = json!([{"path": "/bin/hook", "args": ["hook", "x"], "env": ["A=1"], "timeout": 5}]);
    let throttle = json!([{"major": 8, "minor": 1, "rate": 1000}]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "consoleSize": {"height": 25, "width": 80},
            "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4]},
            "args": ["sh", "-c", "echo \"x\" \u{e4}"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/tmp",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "inheritable": [],
                "permitted": capabilities, "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
            "noNewPrivileges": true,
            "apparmorProfile": "profile",
            "oomScoreAdj": -100,
            "selinuxLabel": "label",
            "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "execCPUAffinity": {"initial": "0-1", "final": "0"}
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "host",
        "domainname": "domain",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "ro"]},
            {"destination": "/data", "type": "none", "source": "/srv", "options": ["rbind"],
                "uidMappings": mapping, "gidMappings": mapping}
        ],
        "hooks": {"prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
            "poststart": hook, "poststop": hook},
        "annotations": {"a.b": "c", "d": ""},
        "linux": {
            "uidMappings": mapping,
            "gidMappings": mapping,
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "resources": {
                "devices": [{"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"}],
                "memory": {"limit": 1000, "reservation": 900, "swap": 2000, "swappiness": 10,
                    "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true},
                "cpu": {"shares": 1024, "quota": 5000, "period": 10000, "burst": 100, "cpus": "0-1", "mems": "0",
                    "idle": 1},
                "pids": {"limit": 32},
                "blockIO": {"weight": 100, "weightDevice": [{"major": 8, "minor": 0, "weight": 50}],
                    "throttleReadBpsDevice": throttle, "throttleWriteIOPSDevice": throttle},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
                "rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 100}},
                "unified": {"memory.high": "1000"}
            },
            "cgroupsPath": "/a/b",
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}, {"type": "user"}],
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0,
                "gid": 5}],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]},
            "rootfsPropagation": "slave",
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "mount-label",
            "personality": {"domain": "LINUX32"},
            "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 7}}
        }
    })
}

fn read(text: &str) -> Option<oracle::Spec> {
    serde_json::from_str(text).ok()
}

/// What both read, as text that can be compared.
fn facts_of(spec: &spec::Spec) -> Vec<String> {
    let mut facts =
        vec![spec.oci_version.to_string(), spec.hostname.to_string(), spec.domainname.to_string()];
    if let Some(process) = &spec.process {
        let user = &process.user;
        let ids = (user.uid, user.gid, user.umask, user.additional_gids.to_vec());
        facts.push(format!("{:?} {:?} {}", process.args.0, process.env.0, process.cwd));
        facts.push(format!("{ids:?} {} {}", process.terminal, process.no_new_privileges));
        facts.push(format!("{:?}", process.oom_score_adj));
        facts.extend(
            process.rlimits.iter().map(|limit| format!("{} {} {}", limit.kind, limit.soft, limit.hard)),
        );
    }
    facts.extend(spec.root.iter().map(|root| format!("{} {}", root.path, root.readonly)));
    for mount in &spec.mounts {
        facts.push(format!("{} {} {} {:?}", mount.destination, mount.kind, mount.source, mount.options.0));
    }
    let mut annotations: Vec<String> = spec.annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
    annotations.sort();
    facts.extend(annotations);
    if let Some(linux) = &spec.linux {
        let kinds = linux.namespaces.iter();
        facts.extend(kinds.map(|ns| format!("{} {:?}", ns.kind.word(), ns.path.as_deref())));
        facts.extend(
            linux.uid_mappings.iter().map(|m| format!("{} {} {}", m.container_id, m.host_id, m.size)),
        );
        facts.push(format!("{} {:?}", linux.cgroups_path, linux.masked_paths.0));
        if let Some(resources) = &linux.resources {
            facts.push(format!("{:?}", resources.memory.as_ref().map(|m| (m.limit, m.swap, m.reservation))));
            let cpu = resources.cpu.as_ref();
            facts.push(format!("{:?}", cpu.map(|c| (c.shares, c.quota, c.period, c.burst, c.idle))));
            facts.push(format!(
                "{:?}",
                resources.devices.iter().map(|d| (d.allow, d.major)).collect::<Vec<_>>()
            ));
        }
    }
    facts
}

/// As it is written in config.json.
fn word(kind: oracle::LinuxNamespaceType) -> String {
    serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned()
}

fn facts_of_oracle(spec: &oracle::Spec) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut facts = vec![spec.version().clone(), text(spec.hostname()), text(spec.domainname())];
    if let Some(process) = spec.process() {
        let user = process.user();
        let ids = (user.uid(), user.gid(), user.umask(), user.additional_gids().clone().unwrap_or_default());
        let words = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let cwd = process.cwd().display();
        facts.push(format!("{:?} {:?} {cwd}", words(process.args()), words(process.env())));
        let switches = (process.terminal(), process.no_new_privileges());
        facts.push(format!("{ids:?} {} {}", switches.0.unwrap_or(false), switches.1.unwrap_or(false)));
        facts.push(format!("{:?}", process.oom_score_adj()));
        let limits = process.rlimits().iter().flatten();
        facts.extend(limits.map(|limit| format!("{} {} {}", limit.typ(), limit.soft(), limit.hard())));
    }
    let root = spec.root().iter();
    facts.extend(root.map(|root| format!("{} {}", root.path().display(), root.readonly().unwrap_or(false))));
    for mount in spec.mounts().iter().flatten() {
        let source = mount.source().as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let options = mount.options().clone().unwrap_or_default();
        let destination = mount.destination().display();
        facts.push(format!("{destination} {} {source} {options:?}", text(mount.typ())));
    }
    let mut annotations: Vec<String> =
        spec.annotations().iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    annotations.sort();
    facts.extend(annotations);
    if let Some(linux) = spec.linux() {
        let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let kinds = linux.namespaces().iter().flatten();
        facts.extend(kinds.map(|ns| format!("{} {:?}", word(ns.typ()), path(ns.path()).as_deref())));
        let mappings = linux.uid_mappings().iter().flatten();
        facts.extend(mappings.map(|m| format!("{} {} {}", m.container_id(), m.host_id(), m.size())));
        let cgroup = path(linux.cgroups_path()).unwrap_or_default();
        facts.push(format!("{cgroup} {:?}", linux.masked_paths().clone().unwrap_or_default()));
        if let Some(resources) = linux.resources() {
            let memory = resources.memory().as_ref();
            facts.push(format!("{:?}", memory.map(|m| (m.limit(), m.swap(), m.reservation()))));
            let cpu = resources.cpu().as_ref();
            facts
                .push(format!("{:?}", cpu.map(|c| (c.shares(), c.quota(), c.period(), c.burst(), c.idle()))));
            let devices = resources.devices().iter().flatten();
            facts.push(format!("{:?}", devices.map(|d| (d.allow(), d.major())).collect::<Vec<_>>()));
        }
    }
    facts
}

#[test]
fn the_full_config_is_read_alike() {
    let text = full().to_string();
    let theirs = read(&text).expect("the oracle reads the example");
    let ours = spec::load(text.as_bytes()).unwrap();
    assert_eq!(facts_of(&ours), facts_of_oracle(&theirs));
}

#[test]
fn the_templates_are_read_alike() {
    for template in [spec::Template::Root, spec::Template::Rootless { uid: 1000, gid: 100 }] {
        let text = spec::template(template);
        let theirs = read(&text).expect("the oracle reads the template");
        assert_eq!(facts_of(&spec::load(text.as_bytes()).unwrap()), facts_of_oracle(&theirs));
    }
}

/// The JSON pointers of every value.
fn pointers(value: &Value, here: String, found: &mut Vec<String>) {
    found.push(here.clone());
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(inner, format!("{here}/{key}"), found);
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                pointers(inner, format!("{here}/{index}"), found);
            }
        }
        _ => (),
    }
}

fn replacement() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[a-z/._-]{0,12}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!(["x"])),
    ]
}

fn is_stricter(refusal: &str) -> bool {
    refusal.contains("missing field") || refusal.contains("invalid value: integer")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_they_read_we_read_alike(
        places in proptest::collection::vec((any::<proptest::sample::Index>(), replacement()), 1..4),
    ) {
        let mut config = full();
        for (place, value) in places {
            let mut all = Vec::new();
            pointers(&config, String::new(), &mut all);
            let pointer = place.get(&all[1..]).clone();
            let target = config.pointer_mut(&pointer).expect("a value");
            // serde takes a list for an object whose fields are known by their places; the spec does not.
            if !(target.is_object() && value.is_array()) {
                *target = value;
            }
        }
        let text = config.to_string();
        if let Some(theirs) = read(&text) {
            match spec::load(text.as_bytes()) {
                Ok(ours) => prop_assert_eq!(facts_of(&ours), facts_of_oracle(&theirs)),
                Err(refused) => prop_assert!(is_stricter(&refused.to_string()), "{refused}: {text}"),
            }
        }
    }

    #[test]
    fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(spec::load(&bytes).and_then(|spec| spec::validate(&spec)));
    }

    #[test]
    fn no_damage_brings_it_down(place in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = full().to_string().into_bytes();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        drop(spec::load(&bytes).and_then(|spec| spec::validate(&spec)));
    }
}
