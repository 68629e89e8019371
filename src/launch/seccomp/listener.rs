//! What the agent behind `listenerPath` is told together with the listener's descriptor. Sending it is the
//! parent's: one connection, one message, the descriptor with its first byte.

use serde::Serialize;

/// The spec's container process state.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct ProcessState<'a, State> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: State,
}

impl<'a, State: Serialize> ProcessState<'a, State> {
    /// `pid` is the process the filter was loaded in, which `exec` makes another than the `state`'s.
    pub fn new(oci_version: &'a str, pid: i32, metadata: &'a str, state: State) -> Self {
        Self { oci_version, fds: ["seccompFd"], pid, metadata, state }
    }

    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_the_spec_says() {
        let state = serde_json::json!({"ociVersion": "1.3.0", "id": "web", "status": "creating", "pid": 42});
        let json = ProcessState::new("1.3.0", 42, "a=b", &state).to_json().unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"ociVersion":"1.3.0","fds":["seccompFd"],"pid":42,"metadata":"a=b","state":{"id":"web","ociVersion":"1.3.0","pid":42,"status":"creating"}}"#
        );
        let json = ProcessState::new("1.3.0", 42, "", &state).to_json().unwrap();
        assert!(!String::from_utf8(json).unwrap().contains("metadata"));
    }
}
