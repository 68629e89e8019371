//! The verbs: for each its words, its flags and its help, in one place; those of sessions are in `session`.

mod session;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use super::shared::{Launch, Limits, SessionPlace};
use super::table::{Flag, FlagSet, Given, Page, pages, verbs};
use super::value::{
    CgroupsMode, Compression, Format, Grouping, Interval, NetworkLock, Place, SharePolicy, Signal, Slot,
    SortKey, UserSpec, WeightMeaning,
};
use crate::error::Failure;

pub use session::{
    SessionBackup, SessionBranch, SessionCat, SessionClose, SessionDiff, SessionDisown, SessionEdit,
    SessionExec, SessionExplain, SessionExport, SessionGc, SessionGoto, SessionInside, SessionList,
    SessionLog, SessionLs, SessionNew, SessionPolicy, SessionPut, SessionRename, SessionRestore,
    SessionSettle, SessionShell, SessionStats, SessionTree, SessionUndo, SessionVerify, SessionWatch,
};

// In the order help shows them.
verbs! {
    Create, Start, Run, Exec, State, List, Ps, Kill, Delete, Pause, Resume, Update, Events, Spec,
    Features, Doctor, Checkpoint, Restore, Mounts, Top, FairSimulate, FairRun, FairRestore, FairSet,
    FairStatus, FairPlot, SessionNew, SessionExec, SessionPut, SessionEdit, SessionShell, SessionWatch, SessionSettle, SessionList, SessionLog, SessionUndo,
    SessionGoto, SessionBranch, SessionRename, SessionClose, SessionDiff, SessionLs, SessionCat,
    SessionExport, SessionBackup, SessionRestore, SessionExplain, SessionPolicy, SessionDisown,
    SessionTree, SessionStats, SessionVerify, SessionGc, SessionInside, Help, Completion, Man,
}

pages! {
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
    places { id: String, } flags {}

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
    places { id: String, } flags {}

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
    places { id: String, } flags {}

    /// Lets the processes of a paused container go on.
    Resume "resume" "<container-id>";
    "thaw a paused container";
    "resume web";
    places { id: String, } flags {}

    /// Changes the limits of a living container; what is not named stays as it is. --resources reads
    /// linux.resources of a config.json and makes the other flags count for nothing.
    Update "update" "<container-id>";
    "change the resources of a container";
    "update --memory 512M --pids-limit 100 web";
    with limits: Limits;
    places { id: String, }
    flags {
        resources: Option<PathBuf> = "resources" | 'r', "FILE", "read the resources from FILE; - is the standard input";
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
    places {} flags {}

    /// Looks at the kernel, cgroups, user namespaces, CRIU, security modules, limits, directories and the engines'
    /// configuration, and says for each what it found, whether that will do, and what to do where it will not.
    /// Nothing is changed. The exit code is 1 when containers cannot be run here, and 0 whatever else is lacking.
    Doctor "doctor" "";
    "check this machine and say what to do about what it lacks";
    "doctor --json";
    with at: SessionPlace;
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
        export: Option<PathBuf> = "export", "FILE", "write an archive of the image, as podman and CRI-O exchange them";
        compress: Compression = "compress", "none|gzip|zstd", "how the archive is compressed (default: zstd)";
        rootfs_image: Option<String> = "rootfs-image", "NAME", "the image the root file system is of, for whoever reads the archive";
        rootfs_image_id: Option<String> = "rootfs-image-id", "ID", "its id, which podman asks for as well";
        image_name: Option<String> = "image-name", "NAME[:TAG]", "make the archive an OCI image of this name, which registries and engines take";
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
        import: Option<PathBuf> = "import", "FILE", "restore from an archive, which may be an OCI image";
        copies: Option<u32> = "copies", "N", "make N containers, <container-id>-1 to -N, each with changes of its own";
        copy: Option<u32> = "copy", "N", "make the N-th of --copies only";
        network_lock: Option<NetworkLock> = "network-lock", "iptables|nftables|skip", "how the network is held meanwhile (default: not at all, but for --tcp-established)";
    }

    /// The file holds a list of mounts as in config.json.
    Mounts "mounts" "add|remove <container-id> <file>";
    "add mounts to a running container, or remove them";
    "mounts add web more-mounts.json";
    places { action: String, id: String, file: PathBuf, } flags {}

    /// A live view of who is entitled to which part of the CPUs and receives what, how far each is behind (lag),
    /// its weight before and now, how long it waits for CPU and memory, and Jain's index of fairness: 1.000 is
    /// perfectly fair. Reads from `fair run`, or watches by itself without one. Keys: q ends; n, e, r, l, w, p
    /// and m sort by name, entitled, received, lag, weight, pressure and memory, and again the other way round;
    /// v changes between containers, tenants and classes.
    Top "top" "";
    "watch shares of CPU and memory live";
    "top --sort lag";
    places {}
    flags {
        once: bool = "once", "", "print it once and end";
        json: bool = "json", "", "print JSON, one object per line";
        interval: Option<Interval> = "interval", "DURATION", "between two views (default: 1s)";
        sort: SortKey = "sort", "name|entitled|received|lag|weight|pressure|memory", "what to sort by";
        view: Grouping = "view", "containers|tenants|classes", "what a row stands for";
    }

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
        output: Option<PathBuf> = "output" | 'o', "DIR", "write each run's recording and its plots (SVG, PNG) to DIR";
        format: Format = "format" | 'f', "table|json", "how to print";
    }

    /// Shares the CPUs among the containers of one --root until it is told to end: measures what each could use
    /// and receives, and writes cpu.weight and cpu.idle so that each gets its share. It acts at once on
    /// containers that come, go or change, and does nothing where the kernel is fair by itself. At its end every
    /// cgroup has again what it had before; after a kill that is done by the next `fair run` or `fair restore`.
    FairRun "fair run" "";
    "share the CPUs among containers";
    "fair run --json --record shares.jsonl";
    places {}
    flags {
        policy: Option<SharePolicy> = "policy" | 'p', "static|wfq|strict|strict-without-minimum|lottery|quota", "who decides (default: wfq)";
        period: Option<Interval> = "period", "DURATION", "between two samples (default: 250ms; 100ms for strict and lottery)";
        credit: Option<Interval> = "credit", "DURATION", "missed CPU time that waking up may bring back (default: none)";
        seed: Option<u64> = "seed", "N", "draw lots from this seed";
        json: bool = "json", "", "print events as JSON, one per line";
        record: Option<PathBuf> = "record", "FILE", "append a line for every half second to FILE, for fair plot";
        emulate_per_cpu: bool = "emulate-per-cpu", "", "multiply what is written by the CPUs a container is active on, as some kernels do; for measurements", hidden;
    }

    /// Gives the cgroups back what they had before `fair run`, if it was killed. Does nothing while it runs.
    FairRestore "fair restore" "";
    "undo what a killed fair run has left";
    "fair restore";
    places {} flags {}

    /// Changes what a container asks of `fair run`, or, for @CLASS and @CLASS/TENANT, what a class or tenant
    /// does. It is remembered, and a `fair run` that runs acts on it at once; without one nothing changes yet, and
    /// that is said. `none` takes a word back.
    FairSet "fair set" "<container-id | @class[/tenant]>";
    "change a container's shares, reservation, limit, class or tenant";
    "fair set --shares 2 --tenant ann web";
    places { id: String, }
    flags {
        shares: Option<String> = "shares", "N", "its part of what its tenant gets, relative to others; 1 is the usual";
        reservation: Option<String> = "reservation", "CPUS", "CPUs it has whenever it wants them";
        limit: Option<String> = "limit", "CPUS", "CPUs it never has more than";
        class: Option<String> = "class", "NAME", "the class it belongs to";
        tenant: Option<String> = "tenant", "NAME", "the tenant within the class";
        best_effort: Option<String> = "best-effort", "true|false", "it gets what everybody else leaves over";
        memory_reservation: Option<String> = "memory-reservation", "SIZE", "memory that is never taken from it (memory.min)";
        memory_limit: Option<String> = "memory-limit", "SIZE", "memory it never has more than (memory.max, and memory.high a little below)";
        squeeze: Option<String> = "squeeze", "true|false", "memory it does not use is taken back little by little";
    }

    /// Prints what `fair run` knows of every container: what it asks for, is entitled to and received, its lag,
    /// and the weight it has. Without a `fair run` it watches for a second by itself.
    FairStatus "fair status" "";
    "print shares, entitlements and lag";
    "fair status --format json";
    places {}
    flags {
        format: Format = "format" | 'f', "table|json", "how to print";
    }

    /// Draws what everybody received and was entitled to over time, and the lag: as PNG into a FILE that ends in
    /// .png, else as SVG. A recording is what `fair simulate --output` and `fair run --record` write.
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
    places { topic: Vec<String>, } flags {}

    /// Prints a script for the shell to load.
    Completion "completion" "bash|zsh|fish";
    "print completions for a shell";
    "completion bash > /usr/share/bash-completion/completions/deja";
    places { shell: String, } flags {}

    /// Writes one manual page for deja and one for each verb.
    Man "man" "<dir>";
    "write the manual pages to a directory";
    "man /usr/share/man/man8";
    places { directory: PathBuf, } flags {}
}
