//! What deja works together with: CRIU for checkpoints, resctrl for Intel RDT.

use super::Finding;

#[derive(Debug, Default)]
pub struct Tools {
    pub criu: Option<Criu>,
    /// Where resctrl is mounted.
    pub resctrl: Option<String>,
    /// The processor has something that resctrl controls.
    pub rdt: bool,
}

#[derive(Debug)]
pub struct Criu {
    pub path: String,
    /// What `criu --version` says.
    pub version: String,
    /// What `criu check` had against this kernel; not asked without privileges.
    pub complaint: Option<String>,
}

/// Older ones know neither what deja asks nor newer kernels.
const OLDEST: (u32, u32) = (4, 0);

pub fn judge(tools: &Tools) -> Vec<Finding> {
    vec![criu(tools.criu.as_ref()), rdt(tools)]
}

fn criu(criu: Option<&Criu>) -> Finding {
    const CHECK: &str = "criu";
    let Some(criu) = criu else {
        let what = "not installed: no checkpoint and no restore";
        return Finding::warning(CHECK, what, "apt install criu (4.1 or newer)");
    };
    let name = format!("{} {}", criu.path, criu.version);
    let mut numbers = criu.version.split('.').map(|part| part.parse().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
        return Finding::warning(CHECK, format!("{name} is too old"), "install CRIU 4.1 or newer");
    }
    match &criu.complaint {
        None => Finding::ok(CHECK, name),
        Some(complaint) => {
            let what = format!("{name} says of this kernel: {complaint}");
            Finding::warning(CHECK, what, "criu check -v4 says more; checkpoints may fail")
        }
    }
}

fn rdt(tools: &Tools) -> Finding {
    const CHECK: &str = "intel rdt";
    match (&tools.resctrl, tools.rdt) {
        (Some(place), _) => Finding::ok(CHECK, format!("resctrl is mounted on {place}")),
        (None, true) => Finding::warning(
            CHECK,
            "the processor has it, but resctrl is not mounted: containers with linux.intelRdt are refused",
            "mount -t resctrl resctrl /sys/fs/resctrl",
        ),
        (None, false) => Finding::ok(CHECK, "not in this processor"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, Ok as Fine, Warning};
    use super::*;

    #[test]
    fn criu_by_version_and_its_own_word() {
        let verdict = |version: &str, complaint: Option<&str>| -> Verdict {
            let (path, version) = ("/usr/sbin/criu".to_owned(), version.to_owned());
            criu(Some(&Criu { path, version, complaint: complaint.map(str::to_owned) })).verdict
        };
        assert_eq!(verdict("4.1.1", None), Fine);
        assert_eq!(verdict("4.1.1", Some("Error: no uffd")), Warning);
        assert_eq!(verdict("3.17.1", None), Warning);
        assert_eq!(verdict("", None), Warning);
        assert_eq!(criu(None).verdict, Warning);
    }

    #[test]
    fn rdt_matters_where_the_processor_has_it() {
        let verdict = |resctrl: Option<&str>, rdt| {
            judge(&Tools { criu: None, resctrl: resctrl.map(str::to_owned), rdt })[1].verdict
        };
        assert_eq!(verdict(Some("/sys/fs/resctrl"), true), Fine);
        assert_eq!(verdict(None, true), Warning);
        assert_eq!(verdict(None, false), Fine);
    }
}
