use serde_json::{Value, json};

use super::super::{Template, load, template};
use super::*;

fn changed(change: impl Fn(&mut Value)) -> std::result::Result<(), String> {
    let mut config: Value = serde_json::from_str(&template(Template::Root)).unwrap();
    change(&mut config);
    let bytes = serde_json::to_vec(&config).unwrap();
    let spec = load(&bytes).unwrap_or_else(|error| panic!("{error}: {config}"));
    validate(&spec).map_err(|failure| failure.to_string())
}

fn with(pointer: &str, value: Value) -> std::result::Result<(), String> {
    changed(|config| set(config, pointer, value.clone()))
}

fn set(config: &mut Value, pointer: &str, value: Value) {
    let mut place = config;
    for part in pointer.split('/').skip(1) {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
}

#[test]
fn the_templates_are_valid() {
    for kind in [Template::Root, Template::Rootless { uid: 1000, gid: 100 }] {
        let text = template(kind);
        validate(&load(text.as_bytes()).unwrap()).unwrap();
    }
}

#[test]
fn every_refusal_names_the_field() {
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let pid = json!({"type": "pid"});
    for (pointer, value, text) in [
        ("/ociVersion", json!(""), "ociVersion is required"),
        ("/ociVersion", json!("2.0.0"), "ociVersion \"2.0.0\" is not supported"),
        ("/ociVersion", json!("1"), "ociVersion \"1\" is not supported"),
        ("/ociVersion", json!("1.x.0"), "ociVersion \"1.x.0\" is not supported"),
        ("/process", json!(null), "process property must not be empty"),
        ("/process/args", json!([]), "args must not be empty"),
        ("/process/args", json!([""]), "process.args[0] is empty"),
        ("/process/cwd", json!(""), "Cwd property must not be empty"),
        ("/process/cwd", json!("tmp"), "Cwd must be an absolute path"),
        ("/process/env", json!(["A=1", "B"]), "process.env[1]: \"B\" is not of the form NAME=value"),
        ("/process/env", json!(["=1"]), "process.env[0]"),
        ("/process/user/uid", json!(u32::MAX), "process.user.uid: 4294967295 is not an id"),
        ("/process/user/gid", json!(u32::MAX), "process.user.gid: 4294967295 is not an id"),
        ("/process/user/additionalGids", json!([1, u32::MAX]), "process.user.additionalGids: 4294967295"),
        ("/process/user/umask", json!(0o1000), "process.user.umask"),
        ("/root", json!(null), "root must be specified"),
        ("/root/path", json!(""), "root must be specified"),
        ("/mounts/1/destination", json!(""), "mounts[1].destination is empty"),
        ("/mounts/1/uidMappings", mapping.clone(), "mounts[1]: id-mapped mounts must have both"),
        (
            "/hooks",
            json!({"poststop": [{"path": "x"}]}),
            "hooks.poststop[0].path: \"x\" is not an absolute path",
        ),
        ("/hooks", json!({"prestart": [{"path": ""}]}), "hooks.prestart[0].path"),
        (
            "/hooks",
            json!({"createRuntime": [{"path": "/x", "timeout": 0}]}),
            "hooks.createRuntime[0].timeout: 0 is not greater than zero",
        ),
        ("/annotations", json!({"": "x"}), "annotations: a key is empty"),
        (
            "/annotations",
            json!({"run.oci.handler": "krun"}),
            "annotation \"run.oci.handler\" is not implemented",
        ),
        ("/domainname", json!("x"), "unable to set domainname without a private UTS namespace"),
        ("/linux/namespaces", json!([]), "unable to set hostname without a private UTS namespace"),
        ("/linux/namespaces", json!([pid, pid, {"type": "uts"}]), "duplicated ns \"pid\""),
        (
            "/linux/namespaces",
            json!([{"type": "uts"}, {"type": "pid", "path": "proc/1/ns/pid"}]),
            "linux.namespaces[1].path: \"proc/1/ns/pid\" is not an absolute path",
        ),
        ("/linux/uidMappings", mapping.clone(), "user namespace isn't enabled in the config"),
        (
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 1}}),
            "time namespace isn't enabled in the config",
        ),
        ("/linux/netDevices", json!({"a b": {}}), "invalid network device name \"a b\""),
        ("/linux/netDevices", json!({"eth0": {"name": "x/y"}}), "invalid network device name \"x/y\""),
        ("/linux/netDevices", json!({"sixteen-letters-": {}}), "invalid network device name"),
        (
            "/linux/netDevices",
            json!({"a": {"name": "c"}, "b": {"name": "c"}}),
            "two devices would be named \"c\"",
        ),
        ("/linux/intelRdt", json!({"closID": "a/b"}), "\"a/b\" is no name of a class of service"),
        ("/linux/intelRdt", json!({"closID": ".."}), "\"..\" is no name of a class of service"),
    ] {
        let without_names = pointer == "/domainname";
        let said = changed(|config| {
            set(config, pointer, value.clone());
            if without_names {
                config["hostname"] = json!("");
                config["linux"]["namespaces"] = json!([]);
            }
        })
        .expect_err(pointer);
        assert!(said.contains(text), "{pointer}: {said}");
    }
}

#[test]
fn mappings_are_ranges_that_do_not_meet() {
    let user = |uid: Value| {
        changed(|config| {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            config["linux"]["uidMappings"] = uid.clone();
            config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        })
    };
    let map = |container: u32, host: u32, size: u32| json!({"containerID": container, "hostID": host, "size": size});
    user(json!([map(0, 1000, 10), map(10, 2000, 5)])).unwrap();
    user(json!([map(0, 0, u32::MAX)])).unwrap();
    for (list, text) in [
        (json!([]), "linux.uidMappings is empty"),
        (json!([map(0, 0, 0)]), "linux.uidMappings[0]: 0 0 0 is not a range of ids"),
        (json!([map(1, 0, u32::MAX)]), "linux.uidMappings[0]"),
        (
            json!([map(0, 1000, 10), map(9, 2000, 1)]),
            "linux.uidMappings[1] overlaps with linux.uidMappings[0]",
        ),
        (json!([map(0, 1000, 10), map(10, 1005, 1)]), "linux.uidMappings[1] overlaps"),
        (json!((0..341).map(|n| map(n, n, 1)).collect::<Vec<_>>()), "more than the kernel's 340"),
    ] {
        let said = user(list).unwrap_err();
        assert!(said.contains(text), "{said}");
    }
}

#[test]
fn time_offsets_need_a_new_time_namespace() {
    let time = |path: &str, offsets: Value| {
        changed(|config| {
            let entry = json!({"type": "time", "path": path});
            config["linux"]["namespaces"].as_array_mut().unwrap().push(entry);
            config["linux"]["timeOffsets"] = offsets.clone();
        })
    };
    time("", json!({"monotonic": {"secs": -5}, "boottime": {"nanosecs": 999_999_999}})).unwrap();
    time("/x", json!(null)).unwrap();
    assert!(time("/x", json!({"monotonic": {}})).unwrap_err().contains("you may only provide one"));
    assert!(time("", json!({"realtime": {}})).unwrap_err().contains("\"realtime\" is not a clock"));
    assert!(time("", json!({"monotonic": {"nanosecs": 1_000_000_000}})).unwrap_err().contains("nanosecs"));
}

#[test]
fn what_callers_send_passes() {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.2.1", "1.3.0", "1.4.0"] {
        with("/ociVersion", json!(version)).unwrap();
    }
    with("/mounts/0/destination", json!("relative")).unwrap();
    with("/hooks", json!({"poststop": [{"path": "/x", "timeout": 5}], "prestart": null})).unwrap();
    with("/annotations", json!({"run.oci.keep_original_groups": "1", "org.systemd.property.X": "1"}))
        .unwrap();
    with("/linux/netDevices", json!({"eth0": {"name": "eth1"}, "eth1": {}})).unwrap_err();
    with("/linux/netDevices", json!({"eth0": {"name": "eth1"}, "eth1": {"name": "eth0"}})).unwrap();
}
