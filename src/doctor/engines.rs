//! Whether engines call this deja, and no other.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Finding;

#[derive(Debug, Default)]
pub struct Engines {
    /// The file that is running.
    pub own: String,
    /// What a shell would run as `deja`.
    pub on_path: Option<(String, Twin)>,
    /// For every path of a deja in the files below.
    pub called: BTreeMap<String, Twin>,
    pub engines: Vec<Engine>,
}

/// A file that should be this deja.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    Absent,
    NotExecutable,
    /// The same file, or one with the same content.
    Same,
    Other,
}

#[derive(Debug)]
pub struct Engine {
    pub kind: &'static Kind,
    pub installed: bool,
    /// Paths and texts of its configuration, in the order in which it reads them.
    pub files: Vec<(String, String)>,
}

/// What is to be known of an engine.
#[derive(Debug)]
pub struct Kind {
    pub check: &'static str,
    pub program: &'static str,
    /// Where its configuration is; of a name that ends in a slash all files in it, and `~` is the user's home.
    pub files: &'static [&'static str],
    /// What names the runtime of those who ask for none.
    default: &'static str,
    /// How it gets to call deja.
    next: &'static str,
}

pub const KINDS: [Kind; 4] = [
    Kind {
        check: "podman",
        program: "podman",
        files: &[
            "/usr/share/containers/containers.conf",
            "/etc/containers/containers.conf",
            "/etc/containers/containers.conf.d/",
            "~/.config/containers/containers.conf",
            "~/.config/containers/containers.conf.d/",
        ],
        default: "runtime",
        next: "sudo scripts/install --engine podman",
    },
    Kind {
        check: "docker",
        program: "dockerd",
        files: &["/etc/docker/daemon.json"],
        default: "default-runtime",
        next: "sudo scripts/install --engine docker, and restart docker",
    },
    Kind {
        check: "containerd",
        program: "containerd",
        files: &["/etc/containerd/config.toml", "/etc/containerd/conf.d/"],
        default: "default_runtime_name",
        next: "sudo scripts/install --engine containerd, and restart containerd",
    },
    Kind {
        check: "cri-o",
        program: "crio",
        files: &["/etc/crio/crio.conf", "/etc/crio/crio.conf.d/"],
        default: "default_runtime",
        next: "runtime_path below [crio.runtime.runtimes.deja] in /etc/crio/crio.conf.d/50-deja.conf",
    },
];

/// The paths of files called deja that are named in a configuration, comments aside.
pub fn mentions(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let quoted = lines.flat_map(|line| line.split(['"', '\'']).skip(1).step_by(2));
    quoted.filter(|word| word.starts_with('/') && word.ends_with("/deja")).map(str::to_owned).collect()
}

pub fn judge(facts: &Engines) -> Vec<Finding> {
    let mut findings = vec![binary(facts)];
    findings.extend(facts.engines.iter().map(|engine| judge_one(engine, facts)));
    findings
}

fn binary(facts: &Engines) -> Finding {
    const CHECK: &str = "binary";
    const INSTALL: &str = "sudo scripts/install";
    match &facts.on_path {
        Some((path, Twin::Same)) => Finding::ok(CHECK, path),
        Some((path, _)) => Finding::warning(
            CHECK,
            format!("a shell runs {path}, which is not this one ({})", facts.own),
            INSTALL,
        ),
        None => Finding::warning(CHECK, format!("{} is not in $PATH", facts.own), INSTALL),
    }
}

fn judge_one(engine: &Engine, facts: &Engines) -> Finding {
    let Engine { kind, installed, files } = engine;
    let Kind { check, next, .. } = kind;
    if let Some((path, error)) = unreadable(engine) {
        return Finding::warning(
            check,
            format!("{path} is not JSON, so {} does not start: {error}", kind.program),
            "correct it",
        );
    }
    let mut mentioned = None;
    for (file, path) in
        files.iter().flat_map(|(file, text)| mentions(text).into_iter().map(move |path| (file, path)))
    {
        let (wrong, next) = match facts.called.get(&path).unwrap_or(&Twin::Absent) {
            Twin::Same => {
                mentioned = Some((file, path));
                continue;
            }
            Twin::Absent => ("which is not there", "install deja there, or correct the file"),
            Twin::NotExecutable => ("which cannot be executed", "chmod 755 it"),
            Twin::Other => ("which is not this deja", "install this one there, or correct the file"),
        };
        return Finding::warning(check, format!("{file} names {path}, {wrong}"), next);
    }
    let default = default(engine).is_some_and(|name| name == "deja" || name.ends_with("/deja"));
    match mentioned {
        Some((file, _)) if !is_read(engine, file) => Finding::warning(
            check,
            format!("{file} is not read"),
            "imports = [\"/etc/containerd/conf.d/*.toml\"] in /etc/containerd/config.toml",
        ),
        Some((_, path)) if default => Finding::ok(check, format!("calls {path} unless told otherwise")),
        Some((_, path)) => Finding::ok(check, format!("can call {path} when asked to")),
        None if default => {
            Finding::warning(check, "names deja as its runtime, but no file says where that is", *next)
        }
        None if *installed => {
            Finding { next: (*next).to_owned(), ..Finding::ok(check, "does not know deja") }
        }
        None => Finding::ok(check, "not installed"),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Daemon {
    default_runtime: Option<String>,
}

fn json(path: &str, text: &str) -> Option<serde_json::Result<Daemon>> {
    let has_content = !text.trim().is_empty();
    (path.ends_with(".json") && has_content).then(|| serde_json::from_str(text))
}

fn unreadable(engine: &Engine) -> Option<(&str, serde_json::Error)> {
    engine.files.iter().find_map(|(path, text)| Some((path.as_str(), json(path, text)?.err()?)))
}

/// The runtime of those who ask for none: the last file that says so counts.
fn default(engine: &Engine) -> Option<String> {
    let key = engine.kind.default;
    let named = |line: &str| {
        let value = line.trim().strip_prefix(key)?.trim_start().strip_prefix('=')?;
        value.split(['"', '\'']).nth(1).map(str::to_owned)
    };
    let of = |(path, text): &(String, String)| match json(path, text) {
        Some(daemon) => daemon.ok()?.default_runtime,
        None => text.lines().filter_map(named).next_back(),
    };
    engine.files.iter().filter_map(of).next_back()
}

/// containerd reads further files only where its own says so.
fn is_read(engine: &Engine, file: &str) -> bool {
    let imports =
        |text: &str| text.lines().any(|line| line.starts_with("imports") && line.contains("conf.d"));
    !file.starts_with("/etc/containerd/conf.d/")
        || engine.files.iter().any(|(path, text)| path == "/etc/containerd/config.toml" && imports(text))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Ok as Fine, Warning};
    use super::*;

    const PODMAN: &str = include_str!("../../scripts/install.d/podman.conf");
    const DOCKER: &str = include_str!("../../scripts/install.d/docker.json");
    const CONTAINERD: &str = include_str!("../../scripts/install.d/containerd.toml");
    const HERE: &str = "/usr/local/bin/deja";

    fn judged(check: &str, twin: Twin, files: &[(&str, &str)]) -> Finding {
        let kind = KINDS.iter().find(|kind| kind.check == check).unwrap();
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let facts = Engines {
            own: HERE.to_owned(),
            on_path: Some((HERE.to_owned(), Twin::Same)),
            called: BTreeMap::from([(HERE.to_owned(), twin)]),
            engines: vec![Engine { kind, installed: true, files }],
        };
        judge(&facts).swap_remove(1)
    }

    #[test]
    fn paths_are_found_in_every_kind_of_file() {
        for text in [PODMAN, DOCKER, CONTAINERD, "deja = ['/usr/local/bin/deja']"] {
            assert_eq!(mentions(text), [HERE], "{text}");
        }
        assert_eq!(mentions("# deja = [\"/usr/bin/deja\"]\ncrun = [\"/usr/bin/crun\"]\n\"deja\""), [""; 0]);
    }

    #[test]
    fn what_the_installer_writes_is_fine() {
        let conf = "/etc/containers/containers.conf.d/50-deja.conf";
        assert_eq!(
            judged("podman", Twin::Same, &[(conf, PODMAN)]).what,
            "calls /usr/local/bin/deja unless told otherwise"
        );
        let daemon = [("/etc/docker/daemon.json", DOCKER)];
        assert_eq!(
            judged("docker", Twin::Same, &daemon).what,
            "calls /usr/local/bin/deja unless told otherwise"
        );
        let main =
            ("/etc/containerd/config.toml", "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]");
        let ours = ("/etc/containerd/conf.d/deja.toml", CONTAINERD);
        assert_eq!(
            judged("containerd", Twin::Same, &[main, ours]).what,
            "can call /usr/local/bin/deja when asked to"
        );
        let alone = judged("containerd", Twin::Same, &[ours]);
        assert_eq!(
            (alone.verdict, alone.what),
            (Warning, "/etc/containerd/conf.d/deja.toml is not read".to_owned())
        );
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_named() {
        let conf = [("/etc/containers/containers.conf", PODMAN)];
        for (twin, words) in [
            (Twin::Absent, "names /usr/local/bin/deja, which is not there"),
            (Twin::NotExecutable, "which cannot be executed"),
            (Twin::Other, "which is not this deja"),
        ] {
            let found = judged("podman", twin, &conf);
            assert!(found.verdict == Warning && found.what.ends_with(words), "{found:?}");
        }
    }

    #[test]
    fn the_last_file_says_what_the_default_is() {
        let later = ("/home/jo/.config/containers/containers.conf", "[engine]\n runtime = 'crun'\n");
        let found = judged("podman", Twin::Same, &[("/etc/containers/containers.conf", PODMAN), later]);
        assert_eq!(found.what, "can call /usr/local/bin/deja when asked to");
        let found =
            judged("podman", Twin::Same, &[("/etc/containers/containers.conf", "runtime = \"deja\"")]);
        assert!(found.verdict == Warning && found.what.contains("no file says where"), "{found:?}");
    }

    #[test]
    fn an_engine_without_deja_is_told_how() {
        let found = judged("docker", Twin::Same, &[("/etc/docker/daemon.json", " \n")]);
        assert_eq!((found.verdict, found.what.as_str()), (Fine, "does not know deja"));
        assert!(found.next.contains("--engine docker"), "{found:?}");
        let broken = judged("docker", Twin::Same, &[("/etc/docker/daemon.json", "{\"runtimes\": }")]);
        assert!(broken.verdict == Warning && broken.what.contains("daemon.json is not JSON"), "{broken:?}");
    }

    #[test]
    fn a_shell_should_run_this_one() {
        let with = |on_path| judge(&Engines { on_path, ..Engines::default() }).swap_remove(0).verdict;
        assert_eq!(with(Some((HERE.to_owned(), Twin::Same))), Fine);
        assert_eq!(with(Some((HERE.to_owned(), Twin::Other))), Warning);
        assert_eq!(with(None), Warning);
    }
}
