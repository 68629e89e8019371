//! The verbs: for each its words, its flags and its help, in one place.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use super::table::{Flag, FlagSet, Given, Page, flags};
use super::value::{
    Bytes, CgroupManager, CgroupsMode, Format, Interval, Level, LogFormat, NetworkLock, Place, SharePolicy,
    Signal, Slot, Switch, UserSpec, WeightMeaning,
};
use crate::error::Failure;

flags! {
    /// The flags before the verb.
    GlobalFlags {
        root: Option<PathBuf> = "root", "DIR", "directory of the containers' records (default: /run/deja, or $XDG_RUNTIME_DIR/deja)";
        log: Option<String> = "log", "FILE", "where errors are logged: [file:]FILE, journald:NAME or syslog:NAME (default: stderr)";
        log_format: LogFormat = "log-format", "text|json", "how errors are logged";
        log_level: Level = "log-level", "error|warning|debug", "from which severity on something is logged";
        debug: bool = "debug", "", "log everything; as --log-level debug";
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
        if self.debug { Level::Debug } else { self.log_level }
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

macro_rules! verbs {
    ($(
        $(#[doc = $about:literal])*
        $variant:ident $name:literal $arguments:literal $(, $property:ident)*;
        $summary:literal; $example:literal;
        $(with $shared:ident: $shared_type:ident;)?
        places { $($place:ident: $place_type:ty,)* }
        flags { $($field:ident: $type:ty = $long:literal $(| $short:literal)?, $value:literal, $help:literal $(, $hidden:ident)?;)* }
    )*) => {
        $(
            #[doc = $summary]
            #[derive(Debug, Default, Clone, PartialEq)]
            pub struct $variant {
                $(pub $shared: $shared_type,)?
                $(pub $place: $place_type,)*
                $(pub $field: $type,)*
            }

            impl FlagSet for $variant {
                #[allow(unused_variables, reason = "some verbs have no flags")]
                fn set(&mut self, long: &str, given: Given) -> Result<(), String> {
                    $(if long == $long {
                        return Slot::put(&mut self.$field, given);
                    })*
                    verbs!(@rest self, long, given $(, $shared)?)
                }
            }

            impl $variant {
                const PAGE: Page = Page {
                    name: $name,
                    arguments: $arguments,
                    summary: $summary,
                    about: concat!($($about, "\n",)*),
                    example: $example,
                    flags: &[
                        $($shared_type::OWN,)?
                        &[$(Flag {
                            long: $long,
                            short: [$(Some($short),)? None][0],
                            value: $value,
                            help: $help,
                            hidden: [$(stringify!($hidden).len() > 0,)? false][0],
                        },)*],
                    ],
                    least: 0 $(+ <$place_type as Place>::LEAST)*,
                    most: 0usize $(.saturating_add(<$place_type as Place>::MOST))*,
                    stops_at_id: verbs!(@has stops_at_id $($property)*),
                    hidden: verbs!(@has hidden $($property)*),
                };

                #[allow(unused_mut, unused_variables, reason = "some verbs take no words")]
                fn place(&mut self, words: Vec<OsString>) -> Result<(), String> {
                    let mut words = words.into_iter();
                    $(Place::take(&mut self.$place, &mut words)?;)*
                    Ok(())
                }
            }
        )*

        /// What to do, with everything it needs.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Verb {
            $($variant($variant),)*
            Version,
        }

        /// Every verb, in the order help shows them.
        pub static PAGES: &[&Page] = &[$(&$variant::PAGE,)*];

        impl Verb {
            pub(super) fn named(name: &str) -> Option<Verb> {
                match name {
                    $($name => Some(Verb::$variant($variant::default())),)*
                    "h" => Some(Verb::Help(Help::default())),
                    _ => None,
                }
            }

            pub fn page(&self) -> &'static Page {
                match self {
                    $(Verb::$variant(_) => &$variant::PAGE,)*
                    Verb::Version => &Help::PAGE,
                }
            }

            pub(super) fn place(&mut self, words: Vec<OsString>) -> Result<()> {
                let result = match self {
                    $(Verb::$variant(verb) => verb.place(words),)*
                    Verb::Version => Ok(()),
                };
                result.map_err(|reason| Failure::usage(reason).into())
            }
        }

        impl FlagSet for Verb {
            fn set(&mut self, long: &str, given: Given) -> Result<(), String> {
                match self {
                    $(Verb::$variant(verb) => verb.set(long, given),)*
                    Verb::Version => Ok(()),
                }
            }
        }
    };
    (@rest $self:ident, $long:ident, $given:ident) => { Err("no such flag".to_owned()) };
    (@rest $self:ident, $long:ident, $given:ident, $shared:ident) => { $self.$shared.set($long, $given) };
    (@has $wanted:ident) => { false };
    (@has stops_at_id stops_at_id $($rest:ident)*) => { true };
    (@has hidden hidden $($rest:ident)*) => { true };
    (@has $wanted:ident $other:ident $($rest:ident)*) => { verbs!(@has $wanted $($rest)*) };
}

verbs! {
    /// Makes everything the bundle's config.json asks for and stops right before the container's program;
    /// `start` lets it go. The container exists until `delete`.
    Create "create" "<container-id>";
    "create a container and hold it before its program";
    "create --bundle /srv/web --pid-file /run/web.pid web";
    with launch: Launch;
    places { id: String, }
    flags {
        no_subreaper: bool = "no-subreaper", "", "(ignored)", hidden;
    }

    /// Lets a created container run its program.
    Start "start" "<container-id>";
    "run the program of a created container";
    "start web";
    places { id: String, }
    flags {}

    /// As create, start, waiting for the end, and delete. The exit status is that of the container's program.
    Run "run" "<container-id>";
    "create and start a container, wait for its end and delete it";
    "run --bundle /srv/web web";
    with launch: Launch;
    places { id: String, }
    flags {
        detach: bool = "detach" | 'd', "", "do not wait for the container's end";
        keep: bool = "keep", "", "do not delete the container after its end";
        no_subreaper: bool = "no-subreaper", "", "do not adopt and reap the container's orphans";
    }

    /// The command is given behind the id, or with --process as the process object of a config.json.
    /// Nothing behind the id is read as a flag.
    Exec "exec" "<container-id> <command> [argument...]  |  --process FILE <container-id>", stops_at_id;
    "run another program in a container";
    "exec --tty --env TERM=xterm web sh -l";
    places { id: String, command: Vec<String>, }
    flags {
        console_socket: Option<PathBuf> = "console-socket", "SOCKET", "unix socket that receives the terminal's master end";
        pidfd_socket: Option<PathBuf> = "pidfd-socket", "SOCKET", "unix socket that receives a pidfd of the program";
        cwd: Option<String> = "cwd", "DIR", "the program's working directory, in the container";
        env: Vec<String> = "env" | 'e', "NAME=VALUE", "set an environment variable; may be repeated";
        tty: bool = "tty" | 't', "", "give the program a terminal";
        user: Option<UserSpec> = "user" | 'u', "UID[:GID]", "run as this user, by number";
        additional_gids: Vec<u32> = "additional-gids" | 'g', "GID", "add a supplementary group; may be repeated";
        process: Option<PathBuf> = "process" | 'p', "FILE", "read the whole process object from FILE";
        detach: bool = "detach" | 'd', "", "do not wait for the program's end";
        pid_file: Option<PathBuf> = "pid-file", "FILE", "write the program's pid to FILE";
        process_label: Option<String> = "process-label", "LABEL", "SELinux label of the program";
        apparmor: Option<String> = "apparmor", "PROFILE", "AppArmor profile of the program";
        no_new_privs: bool = "no-new-privs", "", "the program gains no privileges by execve";
        cap: Vec<String> = "cap" | 'c', "CAPABILITY", "add a capability; may be repeated";
        preserve_fds: u32 = "preserve-fds", "N", "pass N descriptors on, after stdio and $LISTEN_FDS";
        cgroup: Vec<String> = "cgroup", "PATH", "run in this existing sub-cgroup of the container's";
        ignore_paused: bool = "ignore-paused", "", "go on although the container is paused";
    }

    /// Prints ociVersion, id, pid, status, bundle, rootfs, created, owner and annotations. The status is one of
    /// creating, created, running, paused and stopped; a stopped container has pid 0.
    State "state" "<container-id>";
    "print a container's state as JSON";
    "state web";
    places { id: String, }
    flags {}

    /// Lists the containers of one --root.
    List "list" "";
    "list containers";
    "list --format json";
    places {}
    flags {
        format: Format = "format" | 'f', "table|json", "how to print";
        quiet: bool = "quiet" | 'q', "", "print ids only";
    }

    /// Prints what ps(1) says about the container's processes, or their pids as JSON. What stands behind the
    /// id is given to ps; the default is -ef.
    Ps "ps" "<container-id> [ps option...]", stops_at_id;
    "list the processes of a container";
    "ps web -o pid,ppid,cmd";
    places { id: String, arguments: Vec<String>, }
    flags {
        format: Format = "format" | 'f', "table|json", "how to print";
    }

    /// Sends a signal, TERM unless told otherwise, to the container's init. Signals are given by name, with or
    /// without SIG, or by number.
    Kill "kill" "<container-id> [signal]", stops_at_id;
    "send a signal to a container";
    "kill web KILL";
    places { id: String, signal: Option<Signal>, }
    flags {
        all: bool = "all" | 'a', "", "send it to every process of the container, also when init has ended", hidden;
        regex: bool = "regex" | 'r', "", "the id is a regular expression: signal every container that matches";
    }

    /// Removes what a stopped container has left: its cgroup and its record; runs its poststop hooks. A created
    /// container is killed first; a running one only with --force.
    Delete "delete" "<container-id>";
    "remove a container";
    "delete --force web";
    places { id: String, }
    flags {
        force: bool = "force" | 'f', "", "kill what still runs; succeed when there is no such container";
        regex: bool = "regex" | 'r', "", "the id is a regular expression: delete every container that matches";
    }

    /// Stops every process of the container where it is, until resume.
    Pause "pause" "<container-id>";
    "freeze a container";
    "pause web";
    places { id: String, }
    flags {}

    /// Lets the processes of a paused container go on.
    Resume "resume" "<container-id>";
    "thaw a paused container";
    "resume web";
    places { id: String, }
    flags {}

    /// Changes the limits of a living container; what is not named stays as it is. --resources reads
    /// linux.resources of a config.json and makes the other flags count for nothing.
    Update "update" "<container-id>";
    "change the resources of a container";
    "update --memory 512M --pids-limit 100 web";
    places { id: String, }
    flags {
        resources: Option<PathBuf> = "resources" | 'r', "FILE", "read the resources from FILE; - is the standard input";
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

    /// Prints one JSON object per line: usage every few seconds, and each out-of-memory kill.
    Events "events" "<container-id>";
    "report usage and out-of-memory events of a container";
    "events --stats web";
    places { id: String, }
    flags {
        interval: Option<Interval> = "interval", "DURATION", "time between two reports (default: 5s)";
        stats: bool = "stats", "", "print one report and end";
    }

    /// Writes a config.json to start from: a shell in a read-only root.
    Spec "spec" "";
    "write a new config.json";
    "spec --bundle /srv/web --rootless";
    places {}
    flags {
        bundle: Option<PathBuf> = "bundle" | 'b', "DIR", "where to write it (default: the current directory)";
        file: Option<PathBuf> = "file" | 'f', "FILE", "write to FILE instead of config.json";
        rootless: bool = "rootless", "", "for a user without privileges";
    }

    /// The shape is that of the runtime specification's features document.
    Features "features" "";
    "print as JSON what this runtime can do";
    "features";
    places {}
    flags {}

    /// Saves memory, registers, descriptors, sockets and terminals through CRIU. The container is gone afterwards,
    /// unless told otherwise; when anything fails it goes on, and what was written is no image. With --check
    /// nothing is stopped or written.
    Checkpoint "checkpoint" "<container-id>";
    "save the processes of a container";
    "checkpoint --image-path /var/lib/images/web web";
    places { id: String, }
    flags {
        image_path: Option<PathBuf> = "image-path", "DIR", "where the image is saved";
        work_path: Option<PathBuf> = "work-path", "DIR", "where logs and temporary files go";
        parent_path: Option<PathBuf> = "parent-path", "DIR", "the earlier image this one builds on";
        leave_running: bool = "leave-running", "", "let the container go on afterwards";
        tcp_established: bool = "tcp-established", "", "save open TCP connections";
        tcp_skip_in_flight: bool = "tcp-skip-in-flight", "", "leave out TCP connections that are being made";
        link_remap: bool = "link-remap", "", "link unlinked files back where possible";
        ext_unix_sk: bool = "ext-unix-sk", "", "allow unix sockets that lead outside";
        shell_job: bool = "shell-job", "", "allow a terminal that belongs to the caller";
        lazy_pages: bool = "lazy-pages", "", "keep memory back until it is asked for";
        status_fd: Option<i32> = "status-fd", "N", "descriptor that is written to when lazy pages are ready";
        check: bool = "check", "", "save nothing: say what could not be saved, and why; exit code 1 when there is something";
        format: Format = "format" | 'f', "table|json", "how --check prints";
        page_server: Option<String> = "page-server", "ADDRESS:PORT", "send memory to a page server";
        file_locks: bool = "file-locks", "", "save file locks";
        pre_dump: bool = "pre-dump", "", "save memory only and let the container go on";
        manage_cgroups_mode: Option<CgroupsMode> = "manage-cgroups-mode", "soft|full|strict|ignore", "what CRIU itself does about cgroups (default: ignore; deja does what is needed)";
        empty_ns: Vec<String> = "empty-ns", "KIND", "leave out what is in this namespace; may be repeated";
        auto_dedup: bool = "auto-dedup", "", "drop pages that the parent image holds too";
        network_lock: Option<NetworkLock> = "network-lock", "iptables|nftables|skip", "how the network is held meanwhile (default: not at all, but for --tcp-established)";
    }

    /// Makes a container from what checkpoint has saved, with the mounts, limits and hooks of the bundle's
    /// config.json. Its processes go on where they were.
    Restore "restore" "<container-id>";
    "make a container from a saved image";
    "restore --bundle /srv/web --image-path /var/lib/images/web web";
    places { id: String, }
    flags {
        console_socket: Option<PathBuf> = "console-socket", "SOCKET", "unix socket that receives the terminal's master end";
        image_path: Option<PathBuf> = "image-path", "DIR", "where the image was saved";
        work_path: Option<PathBuf> = "work-path", "DIR", "where logs and temporary files go";
        tcp_established: bool = "tcp-established", "", "restore open TCP connections";
        tcp_close: bool = "tcp-close", "", "restore TCP connections as closed";
        ext_unix_sk: bool = "ext-unix-sk", "", "allow unix sockets that lead outside";
        shell_job: bool = "shell-job", "", "allow a terminal that belongs to the caller";
        file_locks: bool = "file-locks", "", "restore file locks";
        manage_cgroups_mode: Option<CgroupsMode> = "manage-cgroups-mode", "soft|full|strict|ignore", "what CRIU itself does about cgroups (default: ignore; deja does what is needed)";
        bundle: Option<PathBuf> = "bundle" | 'b', "DIR", "the bundle (default: the current directory)";
        detach: bool = "detach" | 'd', "", "do not wait for the container's end";
        pid_file: Option<PathBuf> = "pid-file", "FILE", "write the pid of the container's init to FILE";
        no_subreaper: bool = "no-subreaper", "", "do not adopt and reap the container's orphans";
        no_pivot: bool = "no-pivot", "", "(no effect: CRIU enters the root in its own way)";
        empty_ns: Vec<String> = "empty-ns", "KIND", "leave out what is in this namespace; may be repeated";
        auto_dedup: bool = "auto-dedup", "", "drop pages from the image once they are restored";
        lazy_pages: bool = "lazy-pages", "", "fetch memory when it is asked for";
        lsm_profile: Option<String> = "lsm-profile", "TYPE:NAME", "security profile to restore with";
        lsm_mount_context: Option<String> = "lsm-mount-context", "CONTEXT", "SELinux context of the mounts";
        network_lock: Option<NetworkLock> = "network-lock", "iptables|nftables|skip", "how the network is held meanwhile (default: not at all, but for --tcp-established)";
    }

    /// The file holds a list of mounts as in config.json.
    Mounts "mounts" "add|remove <container-id> <file>";
    "add mounts to a running container, or remove them";
    "mounts add web more-mounts.json";
    places { action: String, id: String, file: PathBuf, }
    flags {}

    /// Runs the containers of a scenario file on a machine made of arithmetic, under each policy it names, and
    /// prints what everybody received beside what exact sharing would have given. The same file and seed give
    /// the same figures everywhere.
    FairSimulate "fair simulate" "<scenario>";
    "try shares, policies and kernels on a simulated machine";
    "fair simulate --policy wfq --policy static --output plots one-to-two.json";
    places { scenario: PathBuf, }
    flags {
        policy: Vec<SharePolicy> = "policy" | 'p', "static|wfq|strict|strict-without-minimum|lottery|quota", "run this policy instead of the scenario's; may be repeated";
        kernel: Vec<WeightMeaning> = "kernel" | 'k', "group|cpu", "whether a weight is the group's or each CPU's, instead of the scenario's; may be repeated";
        seed: Option<u64> = "seed", "N", "draw lots and lengths from this seed instead of the scenario's";
        output: Option<PathBuf> = "output" | 'o', "DIR", "write each run's recording and its plot to DIR";
        format: Format = "format" | 'f', "table|json", "how to print";
    }

    /// Draws what everybody received and was entitled to over time, and the lag, as SVG. A recording is what
    /// `fair simulate --output` writes.
    FairPlot "fair plot" "<recording>";
    "draw a recording of shares";
    "fair plot --output shares.svg shares.jsonl";
    places { recording: PathBuf, }
    flags {
        output: Option<PathBuf> = "output" | 'o', "FILE", "write to FILE instead of the standard output";
        title: Option<String> = "title", "TEXT", "what to write above it";
    }

    /// Without a verb, the list of verbs and of the flags that stand before them.
    Help "help" "[verb]";
    "explain a verb";
    "help exec";
    places { topic: Vec<String>, }
    flags {}

    /// Prints a script for the shell to load.
    Completion "completion" "bash|zsh|fish";
    "print completions for a shell";
    "completion bash > /usr/share/bash-completion/completions/deja";
    places { shell: String, }
    flags {}

    /// Writes one manual page for deja and one for each verb.
    Man "man" "<dir>";
    "write the manual pages to a directory";
    "man /usr/share/man/man8";
    places { directory: PathBuf, }
    flags {}
}
