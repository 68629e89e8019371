//! From what the caller asked for and what is known about the container to CRIU's options. Pure.

use anyhow::{Result, bail};

use super::mounts::{self, Intended, Outside};
use super::options::{CgroupMode, NetworkLock, Options, PageServer};
use crate::sys::clone::namespace;

/// What the caller asked for. The same words mean the same for both verbs.
#[derive(Debug, Default, Clone)]
pub struct Asked {
    pub leave_running: bool,
    pub tcp_established: bool,
    pub tcp_skip_in_flight: bool,
    pub tcp_close: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub link_remap: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
    pub pre_dump: bool,
    pub parent: Option<String>,
    pub page_server: Option<PageServer>,
    pub cgroup_mode: CgroupMode,
    pub network_lock: Option<NetworkLock>,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
    pub config_file: Option<String>,
    /// Bits of namespaces to leave out, beside that of the network.
    pub empty_ns: u32,
    /// CRIU tells everything it does.
    pub verbose: bool,
}

impl Asked {
    /// CRIU makes cgroups and puts processes into them, by paths of the host.
    pub fn criu_has_cgroups(&self) -> bool {
        self.cgroup_mode != CgroupMode::Ignore
    }

    /// What dump and restore have in common.
    fn options(&self, images_dir_fd: i32, work_dir_fd: Option<i32>, log_file: &str) -> Options {
        Options {
            images_dir_fd,
            work_dir_fd,
            log_file: log_file.to_owned(),
            log_level: if self.verbose { EVERYTHING } else { WARNINGS },
            ext_unix_sk: self.ext_unix_sk,
            tcp_established: self.tcp_established,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            tcp_close: self.tcp_close,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            orphan_pts_master: true,
            // Interfaces are the business of hooks and engines, not of an image.
            empty_ns: namespace::NETWORK as u32 | self.empty_ns,
            manage_cgroups: self.cgroup_mode,
            network_lock: Some(self.network_lock()),
            config_file: self.config_file.clone(),
            ..Options::default()
        }
    }

    /// Holding the network takes long, and only connections need it.
    fn network_lock(&self) -> NetworkLock {
        let needed = self.tcp_established && !self.tcp_close;
        let usual = if needed { NetworkLock::Iptables } else { NetworkLock::Skip };
        self.network_lock.unwrap_or(usual)
    }
}

const WARNINGS: u32 = 2;
const EVERYTHING: u32 = 4;

pub const DUMP_LOG: &str = "dump.log";
pub const RESTORE_LOG: &str = "restore.log";

/// Namespaces given by path that an image names and does not hold, with what CRIU calls them.
const NAMED: [(u64, &str, &str); 2] =
    [(namespace::NETWORK, "net", "extRootNetNS"), (namespace::PID, "pid", "extRootPidNS")];
/// Those that are joined by their path.
const JOINED: [(u64, &str); 4] =
    [(namespace::IPC, "ipc"), (namespace::UTS, "uts"), (namespace::TIME, "time"), (namespace::USER, "user")];

/// A container as it is now.
#[derive(Debug)]
pub struct Dump<'a> {
    pub images_dir_fd: i32,
    pub work_dir_fd: i32,
    pub pid: i32,
    pub root: &'a str,
    pub freeze_cgroup: Option<String>,
    pub outside: &'a [Outside],
    /// Names of the standard streams that are not the container's.
    pub streams: &'a [Option<String>],
    /// Kind and inode of the namespaces given by path.
    pub joined: &'a [(u64, u64)],
}

pub fn dump(asked: &Asked, facts: &Dump<'_>) -> Options {
    let mut options = asked.options(facts.images_dir_fd, Some(facts.work_dir_fd), DUMP_LOG);
    options.pid = Some(facts.pid);
    options.root = Some(facts.root.to_owned());
    options.leave_running = asked.leave_running;
    options.link_remap = asked.link_remap;
    options.parent_img.clone_from(&asked.parent);
    options.track_mem = asked.pre_dump || asked.parent.is_some();
    options.page_server.clone_from(&asked.page_server);
    options.freeze_cgroup.clone_from(&facts.freeze_cgroup);
    for (kind, word, name) in NAMED {
        let joined = facts.joined.iter().filter(|joined| joined.0 == kind);
        options.external.extend(joined.map(|(_, inode)| format!("{word}[{inode}]:{name}")));
    }
    if asked.pre_dump {
        return options;
    }
    options.ext_mnt = facts.outside.iter().map(|one| (one.point.clone(), one.name.clone())).collect();
    let files = facts.streams.iter().flatten().filter(|name| name.starts_with("file["));
    options.external.extend(files.cloned());
    options.external.sort();
    options.external.dedup();
    options
}

/// A container to be.
#[derive(Debug)]
pub struct Restore<'a> {
    pub images_dir_fd: i32,
    /// None: CRIU is started in it.
    pub work_dir_fd: Option<i32>,
    pub root: &'a str,
    /// The names the image asks for.
    pub outside: &'a [String],
    pub intended: &'a Intended,
    /// The container's cgroup as a path of the host.
    pub cgroup: Option<&'a str>,
    /// Names of standard streams, by number.
    pub streams: &'a [Option<String>],
    /// config.json gives it a terminal of its own.
    pub terminal: bool,
    /// Kind, path and, for those an image names, an open descriptor of the namespaces given by path.
    pub joined: &'a [(u64, &'a str, i32)],
}

pub fn restore(asked: &Asked, facts: &Restore<'_>) -> Result<Options> {
    let mut options = asked.options(facts.images_dir_fd, facts.work_dir_fd, RESTORE_LOG);
    options.root = Some(facts.root.to_owned());
    options.rst_sibling = true;
    options.evasive_devices = true;
    // What was the terminal of whoever started it becomes that of whoever restores it, and nobody takes a new one.
    options.orphan_pts_master = facts.terminal || !asked.shell_job;
    options.lsm_profile.clone_from(&asked.lsm_profile);
    options.lsm_mount_context.clone_from(&asked.lsm_mount_context);
    for name in facts.outside {
        let Some(source) = mounts::source(name, facts.intended, facts.cgroup) else {
            bail!("the image has a mount from outside on {name:?}, for which config.json has no bind mount");
        };
        options.ext_mnt.push((name.clone(), source));
    }
    for (number, name) in facts.streams.iter().enumerate() {
        let Some(name) = name else { continue };
        // Under its whole name CRIU would insist on a file of the same size, and go to the old place in it. Behind
        // the first letter, which it takes for a slash, it just takes the descriptor.
        let name = if name.starts_with("file[") { &name[1..] } else { name };
        if !options.inherit_fd.iter().any(|(known, _)| known == name) {
            options.inherit_fd.push((name.to_owned(), number as i32));
        }
    }
    for (kind, path, fd) in facts.joined {
        if let Some((_, _, name)) = NAMED.iter().find(|named| named.0 == *kind) {
            options.inherit_fd.push(((*name).to_owned(), *fd));
        } else if let Some((_, word)) = JOINED.iter().find(|joined| joined.0 == *kind) {
            options.join_ns.push(((*word).to_owned(), (*path).to_owned()));
        } else {
            bail!("CRIU cannot restore a container into the existing namespace {path:?}");
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(outside: &'a [Outside], streams: &'a [Option<String>]) -> Dump<'a> {
        Dump {
            images_dir_fd: 5,
            work_dir_fd: 6,
            pid: 42,
            root: "/b/rootfs",
            freeze_cgroup: Some("/sys/fs/cgroup/c".into()),
            outside,
            streams,
            joined: &[(namespace::NETWORK, 77), (namespace::PID, 78), (namespace::IPC, 79)],
        }
    }

    #[test]
    fn a_dump_names_what_is_not_the_container_s() {
        let outside = [Outside { point: "/data".into(), name: "/data".into() }];
        let streams = [None, Some("file[1:2]".to_owned()), Some("pipe:[3]".to_owned())];
        let options = dump(&Asked::default(), &facts(&outside, &streams));
        assert_eq!(options.external, ["file[1:2]", "net[77]:extRootNetNS", "pid[78]:extRootPidNS"]);
        assert_eq!(options.ext_mnt, [("/data".to_owned(), "/data".to_owned())]);
        assert_eq!((options.network_lock, options.track_mem), (Some(NetworkLock::Skip), false));
        assert_eq!(options.empty_ns, 0x4000_0000);
    }

    #[test]
    fn a_pre_dump_tracks_memory_and_leaves_the_rest() {
        let outside = [Outside { point: "/data".into(), name: "/data".into() }];
        let asked = Asked { pre_dump: true, parent: Some("../one".into()), ..Asked::default() };
        let options = dump(&asked, &facts(&outside, &[]));
        assert!(options.ext_mnt.is_empty() && options.track_mem);
        assert_eq!(options.parent_img.as_deref(), Some("../one"));
    }

    #[test]
    fn only_connections_need_the_network_held() {
        let established = Asked { tcp_established: true, ..Asked::default() };
        let closed = Asked { tcp_close: true, ..established.clone() };
        let chosen = Asked { network_lock: Some(NetworkLock::Nftables), ..Asked::default() };
        for (asked, lock) in [
            (Asked::default(), NetworkLock::Skip),
            (established, NetworkLock::Iptables),
            (closed, NetworkLock::Skip),
            (chosen, NetworkLock::Nftables),
        ] {
            assert_eq!(asked.network_lock(), lock, "{asked:?}");
        }
    }

    #[test]
    fn a_restore_says_what_every_name_stands_for() {
        let bind = mounts::Bind { destination: "/data".into(), source: "/srv".into(), recursive: false };
        let intended = Intended { binds: vec![bind], ..Intended::default() };
        let (outside, streams) =
            (["/data".to_owned()], [None, Some("pipe:[3]".into()), Some("pipe:[3]".into())]);
        let mut facts = Restore {
            images_dir_fd: 5,
            work_dir_fd: Some(6),
            root: "/b/rootfs",
            outside: &outside,
            intended: &intended,
            cgroup: None,
            streams: &streams,
            terminal: false,
            joined: &[(namespace::NETWORK, "/n", 9), (namespace::UTS, "/u", 10)],
        };
        let options = restore(&Asked::default(), &facts).unwrap();
        assert_eq!(options.ext_mnt, [("/data".to_owned(), "/srv".to_owned())]);
        assert_eq!(options.inherit_fd, [("pipe:[3]".to_owned(), 1), ("extRootNetNS".to_owned(), 9)]);
        assert_eq!(options.join_ns, [("uts".to_owned(), "/u".to_owned())]);

        assert!(options.orphan_pts_master);
        let of_the_caller = Asked { shell_job: true, ..Asked::default() };
        assert!(!restore(&of_the_caller, &facts).unwrap().orphan_pts_master);

        facts.joined = &[(namespace::CGROUP, "/c", 9)];
        let refused = restore(&Asked::default(), &facts).unwrap_err().to_string();
        assert!(refused.contains("existing namespace \"/c\""), "{refused}");
        let unknown = ["/other".to_owned()];
        facts.outside = &unknown;
        let refused = restore(&Asked::default(), &facts).unwrap_err().to_string();
        assert!(refused.contains("mount from outside on \"/other\""), "{refused}");
    }
}
