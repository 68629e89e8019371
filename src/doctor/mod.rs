//! What a machine has of what deja needs, and what to do about the rest.
//!
//! `read` looks, and changes nothing; every other file judges one topic: pure, facts to findings.

mod cgroup;
mod engines;
mod kernel;
mod read;
mod security;
mod storage;
mod tools;
pub mod users;

use serde::Serialize;

pub use read::{Request, read};

/// How much is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Containers run; something else does not.
    Warning,
    /// No container runs.
    Missing,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    pub what: String,
    /// What to do about it, where something can be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next: String,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, what: what.into(), next: String::new() }
    }

    fn warning(check: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, what: what.into(), next: next.into() }
    }

    fn missing(check: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Missing, what: what.into(), next: next.into() }
    }
}

/// What was read.
#[derive(Debug, Default)]
pub struct Facts {
    privileged: bool,
    kernel: kernel::Kernel,
    cgroup: cgroup::Tree,
    users: users::Users,
    security: security::Security,
    tools: tools::Tools,
    places: Vec<storage::Place>,
    engines: engines::Engines,
}

/// In the order in which a person would set things right.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = kernel::judge(&facts.kernel);
    findings.extend(cgroup::judge(&facts.cgroup, facts.privileged));
    findings.extend(users::judge(&facts.users, facts.privileged));
    findings.extend(security::judge(&facts.security, facts.privileged));
    findings.extend(storage::judge(&facts.places));
    findings.extend(tools::judge(&facts.tools));
    findings.extend(engines::judge(&facts.engines));
    findings
}

/// Words as a person lists them.
fn list<S: AsRef<str>>(words: &[S]) -> String {
    words.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_one_line_of_the_machine_that_was_read() {
        let facts = read(&Request::default());
        let findings = judge(&facts);
        let mut names: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), findings.len(), "{findings:?}");
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok || !finding.next.is_empty()));
    }
}
