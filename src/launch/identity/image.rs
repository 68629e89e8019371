//! The program: where it may be, its arguments and its environment, complete before the clone.
//!
//! The search over PATH is done by the child, inside the container, as the container's user. A failure is told
//! in the words of Go's os/exec, because dockerd, podman and others read them to choose between 126 and 127.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

use anyhow::{Context as _, Result};

use super::Context;
use crate::spec::{Process, Str};
use crate::sys::clone::{StringArray, execve};
use crate::sys::fs::{self, Access, AtFlags, CWD};
use crate::sys::{self, Call, Errno, Fault, Reason};

/// The default has no candidate: it is for children that run no program.
#[derive(Debug, Default)]
pub struct Image {
    candidates: Vec<CString>,
    arguments: StringArray,
    environment: StringArray,
    /// The name holds a slash and is not looked for.
    by_path: bool,
    home_unset: bool,
    /// The SELinux label it will have: the policy may keep it from this program.
    label: Option<String>,
}

impl Image {
    /// `extra` variables replace those of the config.
    pub fn new(process: &Process<'_>, extra: &[String]) -> Result<Self> {
        let name = process.args.first().context("process.args must not be empty")?;
        let extra =
            extra.iter().map(|variable| Str::new(variable.as_str()).context("NUL byte in the environment"));
        let extra = extra.collect::<Result<Vec<_>>>()?;
        let environment = environment(process.env.iter().chain(&extra));
        let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
        let by_path = name.contains('/');
        let candidates = match by_path {
            true => vec![name.to_c()],
            false => path.unwrap_or_default().split(':').filter_map(|dir| candidate(dir, name)).collect(),
        };
        let home_unset = !environment.iter().any(|variable| variable.starts_with("HOME="));
        let strings = |list: Vec<&Str<'_>>| StringArray::new(list.into_iter().map(Str::to_c).collect());
        Ok(Self {
            candidates,
            arguments: strings(process.args.iter().collect()),
            environment: strings(environment),
            by_path,
            home_unset,
            label: process.selinux_label().map(Str::to_string),
        })
    }

    pub fn home_unset(&self) -> bool {
        self.home_unset
    }

    fn name(&self) -> &CStr {
        self.arguments.strings().first().map_or(c"", CString::as_c_str)
    }

    /// Which candidate would be executed. No heap: the child calls it.
    pub(super) fn search(&self) -> sys::Result<usize> {
        let mut missing = Call::Access.fault(Errno::NOENT);
        for (index, candidate) in self.candidates.iter().enumerate() {
            match check(candidate) {
                Ok(()) => return Ok(index),
                Err(fault) if self.by_path => missing = fault,
                Err(_) => {}
            }
        }
        Err(missing)
    }

    /// Becomes the program; returns only when that failed. No heap: the child calls it.
    pub fn execute(&self, context: &Context) -> Fault {
        let home = self.home_unset.then(|| context.home());
        let attempt =
            |index: usize| execve(&self.candidates[index], &self.arguments, &self.environment, home);
        if context.found.is_none() {
            // The kernel's own look at every candidate is as good as ours, and the first is mostly the one.
            (0..self.candidates.len()).for_each(|index| {
                attempt(index);
            });
        }
        match context.found.map_or_else(|| self.search(), Ok) {
            Ok(index) => attempt(index),
            Err(fault) => fault,
        }
    }

    /// What executing it is called in an error.
    pub fn words(&self) -> String {
        let name = self.name().to_string_lossy();
        match &self.label {
            Some(label) => format!("exec {name} with the SELinux label {label:?}"),
            None => format!("exec {name}"),
        }
    }

    /// What a fault of `search` or `execute` means, in Go's words.
    pub fn explain(&self, fault: Fault) -> String {
        let name = self.name().to_string_lossy();
        let reason = Reason(fault.errno);
        match (fault.call, fault.errno) {
            (Call::Execve, _) => format!("{}: {reason}", self.words()),
            (Call::Access, Errno::NOENT) => format!("exec: {name:?}: executable file not found in $PATH"),
            (Call::Stat, _) => format!("exec: {name:?}: stat {name}: {reason}"),
            // podman knows the exit code 126 by the kernel's reason, docker by Go's.
            (_, Errno::ISDIR) => format!("exec: {name:?}: {reason}: {}", Reason(Errno::ACCESS)),
            _ => format!("exec: {name:?}: {reason}"),
        }
    }
}

fn candidate(directory: &str, name: &str) -> Option<CString> {
    // An empty element of PATH is the current directory.
    let directory = if directory.is_empty() { "." } else { directory };
    CString::new(format!("{directory}/{name}")).ok()
}

fn check(path: &CStr) -> sys::Result<()> {
    let access = fs::access_effective(path, Access::EXEC_OK);
    match access {
        Err(fault) if fault.errno != Errno::ACCESS => return Err(Call::Stat.fault(fault.errno)),
        _ => {}
    }
    let is_directory = match fs::statat(CWD, path, AtFlags::empty()) {
        Ok(stat) => fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory,
        Err(_) => false,
    };
    if is_directory { Err(Call::Access.fault(Errno::ISDIR)) } else { access }
}

/// Each variable once: the last one set counts, in the place of its last mention. An empty HOME is no HOME.
fn environment<'l, 'a: 'l>(variables: impl Iterator<Item = &'l Str<'a>>) -> Vec<&'l Str<'a>> {
    let name = |variable: &'l Str<'a>| variable.split('=').next().unwrap_or_default();
    let variables: Vec<&Str<'a>> = variables.collect();
    let last: BTreeMap<&str, usize> = variables.iter().enumerate().map(|(at, v)| (name(v), at)).collect();
    let counts = |(at, v): &(usize, &'l Str<'a>)| last.get(name(v)) == Some(at) && *v != "HOME=";
    variables.into_iter().enumerate().filter(counts).map(|(_, variable)| variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(args: &str, env: &str) -> Result<Image> {
        let json = format!(r#"{{"args": {args}, "env": {env}, "cwd": "/"}}"#);
        Image::new(&serde_json::from_str(&json).unwrap(), &["LISTEN_PID=1".to_owned()])
    }

    fn strings(list: &[CString]) -> Vec<&str> {
        list.iter().map(|s| s.to_str().unwrap()).collect()
    }

    #[test]
    fn the_last_mention_of_a_variable_counts() {
        let image = image(r#"["x"]"#, r#"["A=1", "B=2", "A=3", "HOME=", "LISTEN_PID=9"]"#).unwrap();
        assert_eq!(strings(image.environment.strings()), ["B=2", "A=3", "LISTEN_PID=1"]);
        assert!(image.home_unset());
    }

    #[test]
    fn candidates_come_from_the_path_of_the_container() {
        let found = image(r#"["sh"]"#, r#"["PATH=/usr/bin::/bin", "HOME=/x"]"#).unwrap();
        assert_eq!(strings(&found.candidates), ["/usr/bin/sh", "./sh", "/bin/sh"]);
        assert!(!found.home_unset());
        assert_eq!(strings(&image(r#"["./sh"]"#, "[]").unwrap().candidates), ["./sh"]);
    }

    #[test]
    fn failures_read_as_go_writes_them() {
        let message = |args: &str| {
            let image = image(args, r#"["PATH=/no/such:/etc"]"#).unwrap();
            image.explain(image.search().unwrap_err())
        };
        assert_eq!(message(r#"["foo"]"#), r#"exec: "foo": executable file not found in $PATH"#);
        assert_eq!(message(r#"["/no/x"]"#), r#"exec: "/no/x": stat /no/x: no such file or directory"#);
        assert_eq!(message(r#"["/etc"]"#), r#"exec: "/etc": is a directory: permission denied"#);
        assert_eq!(message(r#"["/etc/passwd"]"#), r#"exec: "/etc/passwd": permission denied"#);
        assert_eq!(
            message(r#"["/etc/passwd/x"]"#),
            r#"exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory"#
        );
        let image = image(r#"["/bin/sh"]"#, "[]").unwrap();
        assert_eq!(image.search().unwrap(), 0);
        assert_eq!(
            image.explain(Call::Execve.fault(Errno::NOENT)),
            "exec /bin/sh: no such file or directory"
        );
    }
}
