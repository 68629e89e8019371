//! The state of a container as others read it: hooks and seccomp agents get the specification's fields,
//! `state` and `list` print runc's on top of them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::Record;
use super::status::Status;

/// The state as runtime-spec defines it.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct State<'r> {
    oci_version: &'r str,
    id: &'r str,
    status: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'r str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'r BTreeMap<String, String>,
}

/// What `state` and `list` print, in runc's order.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Listing<'r> {
    pub oci_version: &'r str,
    pub id: &'r str,
    pub pid: i32,
    pub status: &'static str,
    pub bundle: &'r str,
    pub rootfs: &'r str,
    pub created: &'r str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'r BTreeMap<String, String>,
    pub owner: &'r str,
}

fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

impl Record {
    pub fn state(&self, status: Status) -> State<'_> {
        State {
            oci_version: &self.oci_version,
            id: &self.id,
            status: status.word(),
            pid: self.pid_shown(status),
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }

    pub fn listing<'r>(&'r self, status: Status, owner: &'r str) -> Listing<'r> {
        Listing {
            oci_version: &self.oci_version,
            id: &self.id,
            pid: self.pid_shown(status),
            status: status.word(),
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner,
        }
    }

    /// A process that has ended has no pid; the number may be another's by now.
    fn pid_shown(&self, status: Status) -> i32 {
        if status == Status::Stopped { 0 } else { self.pid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_their_order_are_fixed() {
        let mut record = Record {
            id: "web".into(),
            oci_version: "1.3.0".into(),
            pid: 42,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-11-20T23:43:51.5Z".into(),
            ..Record::default()
        };
        assert_eq!(
            serde_json::to_string(&record.state(Status::Created)).unwrap(),
            r#"{"ociVersion":"1.3.0","id":"web","status":"created","pid":42,"bundle":"/b"}"#
        );
        assert_eq!(
            serde_json::to_string(&record.state(Status::Stopped)).unwrap(),
            r#"{"ociVersion":"1.3.0","id":"web","status":"stopped","bundle":"/b"}"#
        );
        record.annotations.insert("a".into(), "b".into());
        assert_eq!(
            serde_json::to_string(&record.listing(Status::Stopped, "root")).unwrap(),
            r#"{"ociVersion":"1.3.0","id":"web","pid":0,"status":"stopped","bundle":"/b","rootfs":"/b/rootfs","created":"2026-11-20T23:43:51.5Z","annotations":{"a":"b"},"owner":"root"}"#
        );
    }
}
