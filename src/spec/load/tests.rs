use super::*;

fn said(text: &str) -> String {
    load(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn errors_name_the_value() {
    for (text, path) in [
        (r#"{"linux": {"resources": {"memory": {"limit": "a lot"}}}}"#, "linux.resources.memory.limit"),
        (r#"{"linux": {"namespaces": [{"type": "pid"}, {"type": "moon"}]}}"#, "linux.namespaces[1].type"),
        (r#"{"process": {"args": ["sh", 5]}}"#, "process.args[1]"),
        (r#"{"process": {"user": {"uid": -1}}}"#, "process.user.uid"),
        (r#"{"process": {"user": {"uid": 4294967296}}}"#, "process.user.uid"),
        (r#"{"process": {"user": {"uid": 1.5}}}"#, "process.user.uid"),
        (r#"{"process": {"cwd": "/a\u0000b"}}"#, "process.cwd"),
        (r#"{"annotations": {"a.b/c": 7}}"#, "annotations[\"a.b/c\"]"),
        (r#"{"linux": {"sysctl": {"net.ipv4.ip_forward": true}}}"#, "linux.sysctl[\"net.ipv4.ip_forward\"]"),
        (r#"{"mounts": [{}, {}, {"options": ["ro", null]}]}"#, "mounts[2].options[1]"),
        (r#"{"root": "rootfs"}"#, "root"),
        (r#"{"process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": 1}]}}"#, "process.rlimits[0]"),
        ("{\n  \"root\": {\n    \"path\": \"x\",\n    \"readonly\": 1\n  }\n}", "root.readonly"),
        (r#"{"a": {"b]}": [1, "}{"]}, "hostname": 1}"#, "hostname"),
    ] {
        let said = said(text);
        assert!(said.starts_with(&format!("config.json: {path}: ")), "{text}\n{said}");
        assert!(said.ends_with(')') && said.contains("(line "), "{said}");
    }
    assert!(said("{\n  \"root\": {\n    \"readonly\": 1\n  }\n}").ends_with("(line 3, column 17)"));
}

#[test]
fn what_is_no_config_says_so() {
    for (text, expected) in [
        ("", "config.json: it is empty"),
        (" \n", "config.json: it is empty"),
        ("null", "config.json cannot be null"),
        ("[]", "config.json: it is a list, not an object"),
        ("{", "config.json: EOF"),
        ("{} {}", "config.json: trailing characters"),
        ("{\"a\"", "config.json: a: EOF"),
        ("nonsense", "config.json: expected"),
    ] {
        let said = said(text);
        assert!(said.starts_with(expected), "{text}: {said}");
    }
    assert!(
        load(b"{\"hostname\": \"\xff\"}").unwrap_err().to_string().starts_with("config.json: hostname: ")
    );
    assert!(load(b"\0").is_err());
    assert!(load(b"{\"hostname\": \"a\0\"}").is_err());
}

#[test]
fn the_spec_is_read_where_it_is_truncated_nowhere() {
    let whole = super::super::template(super::super::Template::Root);
    load(whole.as_bytes()).unwrap();
    for end in 0..whole.trim_end().len() {
        assert!(load(&whole.as_bytes()[..end]).is_err(), "{end}");
    }
}

#[test]
fn no_nesting_and_no_size_is_too_much_to_refuse() {
    for deep in ["{\"b\": [", "{\"a\":", "[{\"a\":"] {
        for place in
            ["", r#"{"hostname": "#, r#"{"unknown": "#, r#"{"linux": {"seccomp": "#, r#"{"annotations": "#]
        {
            let text = format!("{place}{}", deep.repeat(100_000));
            assert!(load(text.as_bytes()).unwrap_err().to_string().len() < 2000);
        }
    }
    let closed = format!("{{\"unknown\": {}{}, \"hostname\": 1}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(load(closed.as_bytes()).is_err());
    let long = format!("{{\"hostname\": [\"{}\"]}}", "x".repeat(1 << 20));
    assert!(said(&long).len() < 2000);
    let huge = vec![b' '; LARGEST + 1];
    assert_eq!(load(&huge).unwrap_err().to_string(), "config.json: larger than 16 MiB");
}

#[test]
fn unknown_properties_are_ignored_and_null_is_absent() {
    let text = r#"{"ociVersion": "1.3.0", "future": {"x": [1, {"y": null}]}, "mounts": null, "annotations": null,
        "process": null, "linux": {"namespaces": null, "vm": 1, "resources": null}}"#;
    let spec = load(text.as_bytes()).unwrap();
    assert!(spec.process.is_none() && spec.mounts.is_empty() && spec.linux.unwrap().resources.is_none());
}

#[test]
fn processes_and_resources_are_read_alone() {
    assert_eq!(load_process(br#"{"args": ["sh"], "cwd": "/"}"#).unwrap().args.len(), 1);
    assert!(load_process(br#"{"args": 1}"#).unwrap_err().to_string().starts_with("process: args: "));
    assert_eq!(load_resources(br#"{"pids": {"limit": 5}}"#).unwrap().pids.unwrap().limit, Some(5));
    assert!(load_resources(b"").is_err());
}
