//! Flags that several verbs have, and those before the verb.

use std::path::PathBuf;

use super::table::{Flag, FlagSet, Given, flags};
use super::value::{Bytes, CgroupManager, Level, LogFormat, Slot, Switch};

flags! {
    /// The flags before the verb.
    GlobalFlags {
        root: Option<PathBuf> = "root", "DIR", "directory of the containers' records (default: /run/deja, or $XDG_RUNTIME_DIR/deja)";
        log: Option<String> = "log", "FILE", "where errors are logged: [file:]FILE, journald:NAME or syslog:NAME (default: stderr)";
        log_format: LogFormat = "log-format", "text|json", "how errors are logged";
        log_level: Option<Level> = "log-level", "error|warning|debug", "from which severity on something is logged (default: warning, with --log error)";
        debug: bool = "debug", "", "log everything, each step before it is done; as --log-level debug";
        cgroup_manager: CgroupManager = "cgroup-manager", "cgroupfs|systemd|disabled", "who makes the container's cgroup";
        systemd_cgroup: bool = "systemd-cgroup", "", "as --cgroup-manager systemd";
        rootless: Switch = "rootless", "true|false|auto", "go on where the cgroup may not be changed";
        criu: Option<PathBuf> = "criu", "FILE", "(obsolete, ignored)", hidden;
        version: bool = "version" | 'v', "", "print the version";
        version_upper: bool = "Version" | 'V', "", "print the version", hidden;
    }
}

/// What stands before the verb.
pub type Global = GlobalFlags;

impl GlobalFlags {
    pub const FLAGS: &'static [&'static [Flag]] = &[Self::OWN];

    pub fn level(&self) -> Level {
        let default = match self.log.as_deref() {
            None | Some("") => Level::Warning,
            // podman reads its log as one object.
            Some(_) => Level::Error,
        };
        if self.debug { Level::Debug } else { self.log_level.unwrap_or(default) }
    }

    pub fn cgroup_manager(&self) -> CgroupManager {
        if self.systemd_cgroup { CgroupManager::Systemd } else { self.cgroup_manager }
    }
}

flags! {
    /// What `create` and `run` have in common.
    Launch {
        bundle: Option<PathBuf> = "bundle" | 'b', "DIR", "the bundle: the directory with config.json (default: the current one)";
        config: Option<PathBuf> = "config" | 'f', "FILE", "read FILE instead of the bundle's config.json";
        console_socket: Option<PathBuf> = "console-socket", "SOCKET", "unix socket that receives the terminal's master end";
        pidfd_socket: Option<PathBuf> = "pidfd-socket", "SOCKET", "unix socket that receives a pidfd of the container's init";
        pid_file: Option<PathBuf> = "pid-file", "FILE", "write the pid of the container's init to FILE";
        no_pivot: bool = "no-pivot", "", "move the root with MS_MOVE and chroot, for a root file system on a ramdisk";
        no_new_keyring: bool = "no-new-keyring", "", "keep the caller's session keyring";
        preserve_fds: u32 = "preserve-fds", "N", "pass N descriptors on, after stdio and $LISTEN_FDS";
    }
}

flags! {
    /// What every verb of sessions has.
    SessionPlace {
        store: Option<PathBuf> = "store", "DIR", "directory of sessions and states (default: /var/lib/deja/sessions, for others than root ~/.local/share/deja/sessions)";
        json: bool = "json", "", "print JSON";
    }
}

flags! {
    /// What `update` changes.
    Limits {
        blkio_weight: Option<u16> = "blkio-weight", "N", "weight of the container's I/O, 10 to 1000";
        cpu_period: Option<u64> = "cpu-period", "USEC", "period in which --cpu-quota may be used";
        cpu_quota: Option<i64> = "cpu-quota", "USEC", "CPU time in one period; -1 for no limit";
        cpu_burst: Option<u64> = "cpu-burst", "USEC", "unused CPU time that may be saved up";
        cpu_share: Option<u64> = "cpu-share", "N", "CPU weight as shares, 2 to 262144";
        cpu_rt_period: Option<u64> = "cpu-rt-period", "USEC", "period of realtime CPU time";
        cpu_rt_runtime: Option<i64> = "cpu-rt-runtime", "USEC", "realtime CPU time in one period";
        cpu_idle: Option<i64> = "cpu-idle", "0|1", "1: run only when the CPU is idle otherwise";
        cpuset_cpus: Option<String> = "cpuset-cpus", "LIST", "CPUs to use, such as 0-3,7";
        cpuset_mems: Option<String> = "cpuset-mems", "LIST", "memory nodes to use";
        memory: Option<Bytes> = "memory", "SIZE", "memory limit; -1 for none";
        memory_reservation: Option<Bytes> = "memory-reservation", "SIZE", "memory that is reclaimed last";
        memory_swap: Option<Bytes> = "memory-swap", "SIZE", "limit of memory and swap together; -1 for none";
        kernel_memory: Option<Bytes> = "kernel-memory", "SIZE", "(obsolete, ignored)", hidden;
        kernel_memory_tcp: Option<Bytes> = "kernel-memory-tcp", "SIZE", "(obsolete, ignored)", hidden;
        pids_limit: Option<i64> = "pids-limit", "N", "how many processes there may be; -1 for no limit";
        l3_cache_schema: Option<String> = "l3-cache-schema", "SCHEMA", "Intel RDT schema of the L3 cache";
        mem_bw_schema: Option<String> = "mem-bw-schema", "SCHEMA", "Intel RDT schema of memory bandwidth";
    }
}
