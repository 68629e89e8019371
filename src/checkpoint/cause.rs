//! Why CRIU failed, in one sentence: the first error of its log, translated where CRIU is terse. Pure but for
//! reading the log.

use std::path::Path;

use anyhow::anyhow;

/// Words of CRIU's log, and what they mean for the person who reads them.
const MEANINGS: &[(&str, &str)] = &[
    (
        "Connected TCP socket, consider using --",
        "it has an open TCP connection: use --tcp-established, or close it",
    ),
    ("In-flight connection", "a TCP connection is just being made: use --tcp-skip-in-flight, or try again"),
    (
        "without peer",
        "it has a unix socket whose other end is in another network namespace, where CRIU cannot see it",
    ),
    ("External socket is used", "it has a unix socket whose other end is outside: use --ext-unix-sk"),
    (
        "Can't dump half of stream unix connection",
        "it has a unix socket whose other end is outside: use --ext-unix-sk",
    ),
    ("Some file locks are hold by dumping tasks", "it holds file locks: use --file-locks"),
    ("to dump file locks", "it holds file locks: use --file-locks"),
    ("The file lock", "it holds file locks: use --file-locks"),
    ("path=/dev/pts/", "its terminal belongs to somebody outside: use --shell-job"),
    ("tty: No task found with sid", "its terminal belonged to somebody outside: use --shell-job"),
    ("Found slave peer index", "its terminal belongs to somebody outside: use --shell-job"),
    ("leader of a session outside", "its session began outside of it: use --shell-job"),
    ("A session leader of", "its session began outside of it: use --shell-job"),
    (
        "Can't dump ghost file",
        "it has a deleted file open that is larger than CRIU saves (ghost-limit of its config file)",
    ),
    ("link-remap", "it has a deleted file open that still has other names: use --link-remap"),
    ("anon_inode:[io_uring]", "it uses io_uring, which CRIU cannot save"),
    (
        "Can't dump nested user namespace",
        "a process has a user namespace of its own inside, which CRIU cannot save",
    ),
    ("nested pid", "a process has a pid namespace of its own inside, which CRIU cannot save"),
    ("Can't dump nested", "a process has a namespace of its own inside, which CRIU cannot save"),
    (
        "Can't find a file for inotify",
        "it watches files by inotify whose place CRIU cannot find (usual on overlayfs)",
    ),
    ("inotify", "it watches files by inotify in a way that CRIU cannot save"),
    ("fanotify", "it watches files by fanotify in a way that CRIU cannot save"),
    ("Unreachable file", "a file that it has open cannot be reached by its path"),
    ("Can't lookup mount", "a file that it has open lies outside of its mounts"),
    ("has unreachable sharing", "a mount of it hears of changes outside in a way that CRIU cannot save"),
    ("Unable to freeze cgroup", "not every process stopped in time"),
    ("No space left on device", "the disk with the image is full"),
    (
        "Can't bind inet socket",
        "its address is not there or taken: use --tcp-close, or give it the network it had",
    ),
    ("bind inet", "its address is not there or taken: use --tcp-close, or give it the network it had"),
    ("Can't connect inet socket", "a TCP connection could not be taken up again: use --tcp-close"),
    ("has bad size", "a file that it had open has changed its size since"),
    ("has bad mode", "a file that it had open has changed its permissions since"),
    ("Pid ", "a process id that it needs is taken"),
    ("Unable to restore pid", "a process id that it needs is taken"),
    ("Magic doesn't match", "the image is damaged"),
    ("Unexpected end of file", "the image is damaged: it is cut short"),
    (" bytes while ", "the image is damaged: it is cut short"),
    ("Failed unpacking object", "the image is damaged"),
    ("Can't open file pstree.img", "there is no process in the image"),
    ("Unable to open parent snapshot", "the image that it builds on is not there"),
    (
        "Abort restore of existing cgroups",
        "its cgroup is there, because deja has made it, and --manage-cgroups-mode strict wants none",
    ),
    ("Failed to open_tree", "what one of its mounts shows is not there (any more)"),
    ("Can't mount", "a mount could not be made again"),
    ("Unable to connect to page server", "nobody serves pages at that address"),
];

/// What failed, why as far as CRIU's log or its answer tells, and where more stands; that is nowhere if the log goes
/// with this run.
pub fn explain(what: &str, log: &Path, stays: bool, errno: i32, message: Option<&str>) -> anyhow::Error {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let said = first_error(&text).or(message).map(str::trim).filter(|said| !said.is_empty());
    let reason = match (said, errno) {
        (Some(said), _) => match meaning(said) {
            Some(meaning) => format!("{meaning} (criu: {said})"),
            None => format!("criu: {said}"),
        },
        (None, 0) => "criu does not say why".to_owned(),
        (None, errno) => std::io::Error::from_raw_os_error(errno).to_string(),
    };
    match stays {
        true => anyhow!("{what}: {reason}; more is in {log:?}"),
        false => anyhow!("{what}: {reason}; --work-path keeps the log"),
    }
}

fn meaning(said: &str) -> Option<&'static str> {
    MEANINGS.iter().find(|(words, _)| said.contains(words)).map(|(_, meaning)| *meaning)
}

/// The first error: those behind it mostly follow from it. One that CRIU is known to survive does not count as long
/// as there is another.
fn first_error(log: &str) -> Option<&str> {
    const HARMLESS: [&str; 3] =
        ["Can't open /proc/sys/net", "iptables", "Can't setup RLIMIT_NOFILE for self"];
    let errors: Vec<&str> = log.lines().filter_map(error_of).collect();
    let told = errors.iter().find(|error| !HARMLESS.iter().any(|words| error.contains(words)));
    told.or(errors.first()).copied()
}

/// What follows `(00.012345) pid: Error (file:line): `.
fn error_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Error (")?;
    rest.split_once("): ").map(|(_, said)| said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(log: &str, message: Option<&str>) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), log).unwrap();
        let path = file.path().to_owned();
        let text = explain("checkpoint \"web\"", &path, true, 0, message).to_string();
        text.replace(&format!("{path:?}"), "LOG")
    }

    #[test]
    fn the_first_error_is_the_reason() {
        let log = "(00.000001) Version: 4.1.1\n\
             (00.012345)     42: Error (criu/sk-inet.c:188): inet: Connected TCP socket, consider using --tcp-established option.\n\
             (00.012399) Error (criu/cr-dump.c:2111): Dumping FAILED.\n";
        assert_eq!(
            explained(log, None),
            "checkpoint \"web\": it has an open TCP connection: use --tcp-established, or close it \
             (criu: inet: Connected TCP socket, consider using --tcp-established option.); more is in LOG"
        );
    }

    #[test]
    fn without_a_log_the_answer_counts_and_nothing_is_said_to_be_nothing() {
        assert_eq!(explained("", Some("Error: x")), "checkpoint \"web\": criu: Error: x; more is in LOG");
        assert_eq!(explained("", None), "checkpoint \"web\": criu does not say why; more is in LOG");
        let nowhere = Path::new("/nowhere/dump.log");
        let text = explain("x", nowhere, true, 17, None).to_string();
        assert_eq!(text, "x: File exists (os error 17); more is in \"/nowhere/dump.log\"");
    }

    #[test]
    fn what_criu_survives_is_not_the_reason_while_there_is_another() {
        let log =
            "Error (criu/util.c:1): exited, status=1: iptables-restore\nError (a.c:2): Magic doesn't match\n";
        assert!(explained(log, None).contains("the image is damaged (criu: Magic"));
        let only = "Error (criu/util.c:1): iptables-restore failed\n";
        assert!(explained(only, None).contains("criu: iptables-restore failed"));
    }
}
