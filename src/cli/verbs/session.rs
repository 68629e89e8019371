//! The verbs of sessions.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::cli::shared::SessionPlace;
use crate::cli::table::{Flag, FlagSet, Given, Page, pages};
use crate::cli::value::{
    Bound, Bytes, Choice, Cpus, Interval, Permissions, Place, Slot, StateForm, UserSpec, Variation,
    WindowSize,
};

pages! {
    /// The files are taken into the store, where equal layers are kept once; nothing is run. The session begins in the
    /// root directory as root, or in the directory and with the environment that the image names.
    SessionNew "session new" "<session>";
    "begin a session from a file tree or an image";
    "session new --image course.tar ada";
    with at: SessionPlace;
    places { session: String, }
    flags {
        rootfs: Option<PathBuf> = "rootfs", "DIR", "the directory it begins with";
        image: Option<PathBuf> = "image", "FILE", "the image it begins with: an OCI layout, what podman or docker save wrote, or a plain tar archive";
        reference: Option<String> = "ref", "NAME", "which of several images in one file or layout";
        env: Vec<String> = "env" | 'e', "NAME=VALUE", "set a variable of the session's environment; may be repeated";
    }

    /// A command that was run from the same state before, in whatever session, is not run again: its output and exit
    /// code are replayed and the session moves on. Behind the session's name stand the words of a command, or -c and
    /// a text for /bin/sh, which leaves its working directory, exported variables and umask to the next command.
    SessionExec "session exec" "<session> [--] <command> [argument...]  |  <session> -c <text>", stops_at_id;
    "run a command in a session, or replay it";
    "session exec ada -c 'cd src && make'";
    with at: SessionPlace;
    places { session: String, command: Vec<String>, }
    flags {
        stdin: bool = "stdin" | 'i', "", "read standard input to its end and give it to the command (default: it is empty)";
        env: Vec<String> = "env" | 'e', "NAME=VALUE", "set a variable for this command; may be repeated";
        cwd: Option<String> = "cwd", "DIR", "the command's working directory instead of the session's";
        user: Option<UserSpec> = "user" | 'u', "UID[:GID]", "run as this user, by number (default: 0:0)";
        timeout: Option<Interval> = "timeout", "DURATION", "end the command when it takes longer; the exit code is 124 then";
        timing: bool = "timing", "", "replay with the pauses of the first run";
        verify: bool = "verify", "", "run a hit again and compare; session policy says what becomes of a result that differs";
        network: bool = "network", "", "give the command the machine's network; its result expires";
        tty: bool = "tty" | 't', "", "give the command a terminal; its output streams become one";
        size: Option<WindowSize> = "size", "ROWSxCOLUMNS", "the terminal's size (default: that of the own one, or 24x80)";
        keep_background: bool = "keep-background", "", "let processes that the command leaves behind go on; the session is live until they are gone";
    }

    /// The files come into the session as if a command had written them, and nothing is run: the same files put from the
    /// same state lead to the same state. With one path, the file's content is read from the standard input. A file that
    /// is there keeps its owner and permissions; a new one is root's.
    SessionPut "session put" "<session> [file...] <path>";
    "put files into a session";
    "session put ada main.c util.c /srv";
    with at: SessionPlace;
    places { session: String, paths: Vec<PathBuf>, }
    flags {
        mode: Option<Permissions> = "mode", "MODE", "the permissions, in octal digits (default: those of the file)";
    }

    /// Starts $VISUAL, $EDITOR or vi here, with a copy of the file, and puts what was saved; a file that is not there
    /// begins empty. When the session has moved to another content of the file meanwhile, the copy is kept and named.
    SessionEdit "session edit" "<session> <path>";
    "edit a file of a session";
    "session edit ada /srv/main.c";
    with at: SessionPlace;
    places { session: String, path: String, } flags {}

    /// At a terminal the line is edited with the usual keys, the history is the session's own, and names of files and
    /// programs are completed from its state. A mark tells whether the last command was replayed (=), run (+), or run and
    /// not kept for others (~). Without a terminal, lines are read from the standard input. :help tells the rest.
    SessionShell "session shell" "<session>";
    "type commands of a session at a prompt";
    "session shell ada";
    with at: SessionPlace;
    places { session: String, } flags {}

    /// Shows from its begin what a command writes that runs in the session now, whoever started it, also when another
    /// session runs it and this one waits for the result. The exit code is the command's. When nothing runs, the last
    /// command is told again, and that this is so.
    SessionWatch "session watch" "<session>";
    "see the output of what runs in a session as it happens";
    "session watch ada";
    with at: SessionPlace;
    places { session: String, } flags {}

    /// Ends what `session exec --keep-background` has kept running, and seals what it leads to: first with SIGTERM, after
    /// --grace with SIGKILL. With --discard the session stays where it was before.
    SessionSettle "session settle" "<session>";
    "end the background processes of a session";
    "session settle ada";
    with at: SessionPlace;
    places { session: String, }
    flags {
        discard: bool = "discard", "", "keep nothing of what they did";
        grace: Option<Interval> = "grace", "DURATION", "time to end by themselves after SIGTERM (default: 5s)";
    }

    /// Prints where each session stands and how many of its commands were hits.
    SessionList "session list" "";
    "list sessions";
    "session list --json";
    with at: SessionPlace;
    places {} flags {}

    /// An act is hit (replayed), run, or once: run, and not kept for others.
    SessionLog "session log" "<session>";
    "print what a session went through";
    "session log ada";
    with at: SessionPlace;
    places { session: String, } flags {}

    /// Leads a session back to where it was, one command or more; nothing is run, and what was undone stays in the
    /// store.
    SessionUndo "session undo" "<session> [steps]";
    "take back the last command of a session";
    "session undo ada 2";
    with at: SessionPlace;
    places { session: String, steps: Option<u32>, } flags {}

    /// A state is named by its id, the beginning of one, or a session that stands at it.
    SessionGoto "session goto" "<session> <state>";
    "lead a session to another state";
    "session goto ada 3f2a91";
    with at: SessionPlace;
    places { session: String, state: String, } flags {}

    /// Both go their own ways from there, and share what they have in common.
    SessionBranch "session branch" "<state> <session>";
    "begin a session from a state or from where another stands";
    "session branch ada ada-without-tests";
    with at: SessionPlace;
    places { state: String, session: String, } flags {}

    /// Its journal and states stay as they are.
    SessionRename "session rename" "<session> <name>";
    "give a session another name";
    "session rename ada ada-2026";
    with at: SessionPlace;
    places { session: String, name: String, } flags {}

    /// Its states stay until gc wants their room, and what it ran stays known.
    SessionClose "session close" "<session>";
    "end a session";
    "session close ada";
    with at: SessionPlace;
    places { session: String, } flags {}

    /// One line for each file that differs, and for what differs in the shell's context.
    SessionDiff "session diff" "<state> <state>";
    "say what differs between two states";
    "session diff ada bob";
    with at: SessionPlace;
    places { old: String, new: String, } flags {}

    /// Nothing is mounted or run.
    SessionLs "session ls" "<state> [path]";
    "list a directory of a state";
    "session ls ada /srv";
    with at: SessionPlace;
    places { state: String, path: Option<String>, } flags {}

    /// Nothing is mounted or run; the content is checked.
    SessionCat "session cat" "<state> <path>";
    "print a file of a state";
    "session cat ada /etc/passwd";
    with at: SessionPlace;
    places { state: String, path: String, } flags {}

    /// As a tree, every file of a state comes into a new directory: a root file system for `deja run`, `podman run
    /// --rootfs`, tar, or `session new --rootfs` in another store, where it is the same state. As a bundle the directory
    /// holds these files as rootfs, and a config.json whose program is a shell where the session stands: `deja run` and
    /// other runtimes run it. As a layout or an archive it is an OCI image, one layer for each of the state's, that podman, docker and skopeo load, and `session new --image`.
    /// An archive may go to - , the standard output. With --json the shell's context is printed.
    SessionExport "session export" "<state> <path>";
    "write a state as a directory of files or as an image";
    "session export --format archive --name ada:1 ada ada.tar";
    with at: SessionPlace;
    places { state: String, path: PathBuf, }
    flags {
        format: StateForm = "format" | 'f', "tree|bundle|layout|archive", "what is written (default: tree)";
        name: Option<String> = "name", "NAME[:TAG]", "what the image is called (default: deja:STATE)";
    }

    /// Everything that the sessions stand on or can go back to, and the commands they ran: put into another store, they
    /// go on with hits. Without names, the whole store. The file may be - , the standard output.
    SessionBackup "session backup" "<file> [session...]";
    "write sessions, their states and results to a file";
    "session backup ada.deja ada";
    with at: SessionPlace;
    places { file: PathBuf, sessions: Vec<String>, } flags {}

    /// All of it is checked before anything is taken into the store; what is there already stays. Results are believed:
    /// restore only what comes from somebody whose runs you would take for yours. The file may be - , the standard input.
    SessionRestore "session restore" "<file>";
    "take sessions from a backup into a store";
    "session restore --as ada-2026 ada.deja";
    with at: SessionPlace;
    places { file: PathBuf, }
    flags {
        name: Option<String> = "as", "NAME", "what the backup's only session is called here";
    }

    /// Says in one sentence whether the command would be replayed, and otherwise which run of it is nearest and what
    /// differs first: a file, a variable, an argument. Nothing is run.
    SessionExplain "session explain" "<session> [--] <command> [argument...]  |  <session> -c <text>", stops_at_id;
    "say whether a command would be a hit, or why not";
    "session explain ada -c make";
    with at: SessionPlace;
    places { session: String, command: Vec<String>, }
    flags {
        env: Vec<String> = "env" | 'e', "NAME=VALUE", "as for session exec; may be repeated";
        cwd: Option<String> = "cwd", "DIR", "as for session exec";
        user: Option<UserSpec> = "user" | 'u', "UID[:GID]", "as for session exec";
        network: bool = "network", "", "as for session exec";
        tty: bool = "tty" | 't', "", "as for session exec";
        size: Option<WindowSize> = "size", "ROWSxCOLUMNS", "as for session exec";
    }

    /// Without flags, prints it. --sample and --twice say how often runs are compared with one another, --output and
    /// --state what happens to a command whose runs were found to differ: its first result is replayed for everybody,
    /// or everybody's run is their own. Only who may write to a store publishes in it: --readable opens one to readers, who
    /// --trust it from stores of their own. --memory, --pids, --cpus and --time bound what each command may use; what
    /// runs into one of them is nobody else's result.
    SessionPolicy "session policy" "";
    "say what commands may use, and what becomes of results";
    "session policy --sample 2 --twice=yes";
    with at: SessionPlace;
    places {}
    flags {
        sample: Option<u32> = "sample", "PERCENT", "run so many of a hundred hits again and compare (default: 0)";
        twice: Option<Choice> = "twice", "yes|no", "compare the first runs of a command with a second (default: no)";
        output: Option<Variation> = "output", "replay|run", "when only the output varies (default: replay)";
        state: Option<Variation> = "state", "replay|run", "when the state or the exit code varies (default: run)";
        network: Option<Interval> = "network", "DURATION", "how long a result that used the network is given to others (default: 1h)";
        memory: Option<Bound<Bytes>> = "memory", "SIZE|none", "memory that a command has at the most (default: none, no limit)";
        pids: Option<Bound<u32>> = "pids", "N|none", "processes and threads that a command has at the most";
        cpus: Option<Bound<Cpus>> = "cpus", "N|none", "CPUs that a command has at the most, as in 0.5";
        time: Option<Bound<Interval>> = "time", "DURATION|none", "how long a command may take; its exit code is 124 then";
        trust: Vec<PathBuf> = "trust", "DIR", "take the results of this store for own ones, without writing to it; may be repeated";
        distrust: Vec<PathBuf> = "distrust", "DIR", "no longer; may be repeated";
        readable: Option<Choice> = "readable", "yes|no", "let others read what was run and where it led, but no layers (default: no)";
    }

    /// Nobody is given it any more, nor what was run from it, nor what came of that, unless something else leads there,
    /// too. Sessions that stand there are named and stay; what leads there again later is not kept for others.
    SessionDisown "session disown" "<state>";
    "withdraw a state that turned out wrong";
    "session disown 3f2a91";
    with at: SessionPlace;
    places { state: String, }
    flags {
        take_back: bool = "take-back", "", "let results lead to the state again";
    }

    /// Every state that a session began with, below each the commands that were run from it and where they led, with
    /// the time they took and how often they were replayed.
    SessionTree "session tree" "";
    "show the states of a store and the commands between them";
    "session tree";
    with at: SessionPlace;
    places {} flags {}

    /// Commands asked for, replayed and run, the time both took and saved, and what the store holds.
    SessionStats "session stats" "";
    "count hits, runs and the time saved";
    "session stats --plot class.svg --plot class.png";
    with at: SessionPlace;
    places {} flags {
        plot: Vec<PathBuf> = "plot", "FILE", "also draw commands asked for, run and replayed over time: SVG, or PNG for FILE.png; may be repeated";
    }

    /// Reads every byte of the store and removes what is damaged or incomplete, which is run again when it is asked
    /// for. Fails when a session stands at a state that is lost.
    SessionVerify "session verify" "";
    "check the store and remove what is damaged";
    "session verify";
    with at: SessionPlace;
    places {} flags {}

    /// Removes what nothing leads to. With --limit also what was run, first what saves the least time for its bytes;
    /// never a state that a session stands at or can go back to.
    SessionGc "session gc" "";
    "make a store smaller";
    "session gc --limit 10G";
    with at: SessionPlace;
    places {}
    flags {
        limit: Option<Bytes> = "limit", "SIZE", "keep the whole store below this size";
    }

    /// Called by deja itself in a session's container.
    SessionInside "session inside" "<what> [word...]", stops_at_id, hidden;
    "process 1 of a session's container";
    "session inside words / true";
    places { what: String, words: Vec<String>, } flags {}
}
