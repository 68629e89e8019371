"""usage: session.py WORK ROOTFS ROUNDS FILES [PART...], in the native bed with Debian's tree: what commands of sessions take.

FILES: how many files the largest tree has. PART: hits, overhead, histories, storage, peers, trees; all of them if none is
named."""
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bundle

work, rootfs, rounds, most = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
deja = f"{work}/deja"
place = tempfile.mkdtemp(prefix="bench-session-")


def call(*words, text=None):
    given = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
    done = subprocess.run(words, capture_output=True, text=True, **given)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr}")
    return done


def session(verb, *words, text=None):
    return call(deja, "--root", f"{place}/run", "session", verb, "--store", f"{place}/store", *words, text=text).stdout


def watched(verb, *words):
    """Seconds that a verb takes, and the most memory it has, in MiB."""
    begin = time.perf_counter()
    command = [deja, "--root", f"{place}/run", "session", verb, "--store", f"{place}/store", *words]
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(started.pid, 0)
    if status:
        sys.exit(f"{' '.join(words)}: failed")
    return time.perf_counter() - begin, used.ru_maxrss / 1024


def milliseconds(act, *words):
    begin = time.perf_counter()
    act(*words)
    return (time.perf_counter() - begin) * 1e3


def timed(*acts, count=rounds):
    """Each act in turns, as median milliseconds."""
    times = [[] for _ in acts]
    for turn in range(count):
        for act, taken in zip(acts, times):
            taken.append(milliseconds(act, turn))
    return [statistics.median(taken) for taken in times]


def on_disk(path):
    """Bytes of the blocks of everything below."""
    return int(call("du", "--summarize", "--block-size=1", path).stdout.split()[0])


def table(title, rows):
    print(f"\n| {title} | |\n|---|---:|")
    for name, value in rows:
        print(f"| {name} | {value if isinstance(value, str) else f'{value:.1f}'} |")
    sys.stdout.flush()


def make_bundle(name, arguments):
    directory = f"{place}/{name}"
    os.mkdir(directory)
    shutil.copytree(rootfs, f"{directory}/rootfs", symlinks=True)
    config = bundle.config("rootfs", arguments, f"/bench-session/{name}")
    config["root"]["readonly"] = False
    pathlib.Path(directory, "config.json").write_text(json.dumps(config))
    return directory


def hits():
    directory = make_bundle("true", bundle.TRUE)
    session("new", "--rootfs", rootfs, "hits")
    session("exec", "hits", "true")
    session("branch", "hits", "misses")
    hit, deja_run, crun_run, miss, change = timed(
        lambda turn: session("exec", "hits", "true"),
        lambda turn: call(deja, "--root", f"{place}/run", "run", "--bundle", directory, f"deja-{turn}"),
        lambda turn: call("crun", "--root", f"{place}/crun", "run", "--bundle", directory, f"crun-{turn}"),
        lambda turn: session("exec", "misses", "true", str(turn)),
        lambda turn: session("exec", "misses", "-c", f"echo {turn} > /tmp/{turn % 7}"),
    )
    trace = f"{place}/calls"
    call("strace", "-f", "-o", trace, deja, "session", "exec", "--store", f"{place}/store", "hits", "true")
    calls = pathlib.Path(trace).read_text().splitlines()
    forbidden = [line for line in calls if any(f" {name}" in line for name in ("mount(", "clone", "fork", "vfork"))]
    session("branch", "hits", "typed")
    lines = 20_000
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = milliseconds(lambda: session("shell", "typed", text="true\n" * lines))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    table(
        "milliseconds, unless it says something else",
        [
            ("hit, a whole process", hit),
            ("crun run true", crun_run),
            ("deja run true", deja_run),
            ("**hit / crun run true**", f"**{hit / crun_run:.2f}**"),
            ("system calls of a hit; of them mount, clone, fork", f"{len(calls) - 1}; {len(forbidden)}"),
            (f"hits per second in one process, {lines:,} lines for `session shell`", f"{lines / taken * 1e3:.0f}"),
            ("the same, per second of processor time", f"{lines / worked:.0f}"),
            ("miss: true", miss),
            ("miss: a shell that writes one file", change),
        ],
    )


def overhead():
    """A command of a second, as a miss and in a plain container."""
    text = "sleep 1; echo done > /tmp/second"
    directory = make_bundle("second", ["/bin/sh", "-c", text])
    session("new", "--rootfs", rootfs, "second")
    plain, miss = timed(
        lambda turn: call(deja, "--root", f"{place}/run", "run", "--bundle", directory, f"second-{turn}"),
        lambda turn: session("exec", "second", "-c", f"{text}; : {turn}"),
        count=max(5, rounds // 10),
    )
    rows = [("a command of 1 s in `deja run`", plain), ("the same as a miss", miss)]
    rows.append(("**overhead**", f"**{(miss - plain) / plain:.1%}**"))
    session("new", "--rootfs", rootfs, "sizes")
    for count in (1, 10, 100, 1000, 10_000):
        text = f"rm -rf /srv/x; mkdir /srv/x; cd /srv/x; i=0; while [ $i -lt {count} ]; do echo $i TURN > $i; i=$((i+1)); done"
        directory = make_bundle(f"size-{count}", ["/bin/sh", "-c", text])
        plain, miss = timed(
            lambda turn: call(deja, "--root", f"{place}/run", "run", "--bundle", directory, f"size-{count}-{turn}"),
            lambda turn: session("exec", "sizes", "-c", text.replace("TURN", str(turn))),
            count=3,
        )
        rows.append((f"a shell that makes {count:,} files: plain; as a miss", f"{plain:.1f}; {miss:.1f}"))
    table("misses, milliseconds", rows)


def histories():
    """A thousand different states behind each other, and what the first command costs behind so many hits."""
    session("new", "--rootfs", rootfs, "pioneer")
    lines = "".join(f"echo {number} > /srv/{number % 50}\n" for number in range(1000))
    ran = milliseconds(lambda: session("shell", "pioneer", text=lines))
    [early] = timed(lambda turn: one_more("early", lines.splitlines()[0] + "\n", turn), count=10)
    session("new", "--rootfs", rootfs, "late")
    replayed = milliseconds(lambda: session("shell", "late", text=lines))
    [late] = timed(lambda turn: one_more("late-again", lines, turn), count=10)
    table(
        "histories, milliseconds",
        [
            ("1000 commands that write, run: each", ran / 1000),
            ("the same, replayed in another session: each", replayed / 1000),
            ("the first miss after 1 hit", early),
            ("the first miss after 1000 hits", late),
        ],
    )


ready = set()


def one_more(name, lines, turn):
    """A command nobody ran, in a fresh session that has only had hits."""
    if name not in ready:
        session("new", "--rootfs", rootfs, name)
        session("shell", name, text=lines)
        ready.add(name)
    session("branch", name, f"{name}-{turn}")
    session("exec", f"{name}-{turn}", "true", name, str(turn))


def large_tree(count):
    """A root file system with many more files, a hundred in each directory, none of which is like another."""
    path = f"{place}/tree-{count}"
    shutil.copytree(rootfs, path, symlinks=True)
    for directory in range(count // 100):
        below = pathlib.Path(path, "data", str(directory // 100), str(directory))
        below.mkdir(parents=True)
        for name in range(100):
            (below / f"{directory}-{name}").touch()
    return path


def trees():
    rows = []
    for count in (10_000, 100_000, 1_000_000):
        if count > most:
            break
        name = f"large-{count}"
        tree = large_tree(count)
        taken, memory = watched("new", "--rootfs", tree, name)
        shutil.rmtree(tree)
        nodes = lambda: len(os.listdir(f"{place}/store/nodes"))
        rows.append((f"importing a tree of {count:,} files: seconds; MiB of memory", f"{taken:.1f}; {memory:.0f}"))
        rows.append(("directories in the store then", str(nodes())))
        before = nodes()
        [small] = timed(lambda turn: session("exec", name, "-c", f"echo {count} {turn} > /data/0/0/0-5"))
        made = (nodes() - before) / rounds
        rows.append((f"one file changed in it: time; directories hashed anew", f"{small:.1f}; {made:.0f}"))
        ten = f"for i in 0 1 2 3 4 5 6 7 8 9; do echo {count} %d > /data/0/$i/$i-5; done"
        before = nodes()
        [ten_times] = timed(lambda turn: session("exec", name, "-c", ten % turn))
        made = (nodes() - before) / rounds
        rows.append((f"ten in as many directories: time; directories hashed anew", f"{ten_times:.1f}; {made:.0f}"))
        taken, memory = watched("exec", name, "-c", f"echo {count} > /data/0/0/0-5")
        rows.append((f"MiB of memory for a change", f"{memory:.0f}"))
    table("state ids, milliseconds", rows)


def storage():
    session("new", "--rootfs", rootfs, "thrifty")
    layers = f"{place}/store/layers"
    begin = on_disk(layers)
    session("exec", "thrifty", "--", "ls", "/")
    idle = on_disk(layers) - begin
    session("exec", "thrifty", "-c", "head -c 1000000 /dev/urandom > /srv/once")
    once = on_disk(layers) - begin
    session("new", "--rootfs", rootfs, "other")
    other = "head -c 1000000 /dev/zero | tr '\\0' x > /srv/same"
    before = on_disk(layers)
    session("exec", "thrifty", "-c", f": 1; {other}")
    one = on_disk(layers) - before
    session("exec", "other", "-c", f": 2; {other}")
    two = on_disk(layers) - before
    count = 200
    begin = on_disk(f"{place}/store")
    for number in range(count):
        session("branch", "hits", f"parked-{number}")
    parked = (on_disk(f"{place}/store") - begin) / count
    journal = os.path.getsize(f"{place}/store/sessions/parked-0")
    table(
        "storage, bytes",
        [
            ("layers after a command that changes nothing", str(idle)),
            ("layers after one that writes 1,000,000 bytes", str(once)),
            ("two sessions make the same file of 1,000,000 bytes: after one, after both", f"{one}; {two}"),
            ("a parked session on the disk; its file", f"{parked:.0f}; {journal}"),
        ],
    )


def peers():
    """The same twenty commands by what else remembers them."""
    count = 20
    directory = f"{place}/build"
    os.mkdir(directory)
    call("tar", "-C", rootfs, "-cf", f"{directory}/root.tar", ".")
    commands = [f"echo {number} > /srv/{number}" for number in range(count)]
    steps = "".join(f"RUN {command}\n" for command in commands)
    pathlib.Path(directory, "Dockerfile").write_text(f"FROM scratch\nADD root.tar /\n{steps}")
    store = ["--root", f"{place}/images", "--runroot", f"{place}/images-run", "--storage-driver", "overlay"]
    build = ["buildah", *store, "build", "--layers", "--isolation", "oci", "--runtime", "crun", "--network", "none"]
    build += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--tag", "steps", directory]
    pathlib.Path(directory, "Dockerfile.base").write_text("FROM scratch\nADD root.tar /\n")
    call(*build[:-1], "--file", f"{directory}/Dockerfile.base", directory)
    begin = on_disk(f"{place}/images")
    built = milliseconds(call, *build)
    stored = on_disk(f"{place}/images") - begin
    [again] = timed(lambda turn: call(*build), count=5)
    session("new", "--rootfs", rootfs, "steps")
    session("exec", "steps", "true")
    before = on_disk(f"{place}/store")
    begin = time.perf_counter()
    for command in commands:
        session("exec", "steps", "-c", command)
    ran = (time.perf_counter() - begin) * 1e3
    kept = on_disk(f"{place}/store") - before
    lines = "".join(f"{command}\n" for command in commands)

    def replay(turn):
        session("new", "--rootfs", rootfs, f"steps-{turn}")
        for command in commands:
            session("exec", f"steps-{turn}", "-c", command)

    def type_in(turn):
        session("new", "--rootfs", rootfs, f"typed-{turn}")
        session("shell", f"typed-{turn}", text=lines)

    replayed, typed = timed(replay, type_in, count=5)
    print(f"\n| {count} commands that write a file | the first time | again | kept for them, KiB |\n|---|---:|---:|---:|")
    print(f"| deja: `session exec` for each | {ran:.0f} ms | {replayed:.0f} ms | {kept >> 10} |")
    print(f"| deja: lines for `session shell` | | {typed:.0f} ms | |")
    print(f"| buildah with `--layers`, a RUN for each, on crun | {built:.0f} ms | {again:.0f} ms | {stored >> 10} |")


def main():
    parts = {part.__name__: part for part in (hits, overhead, histories, storage, peers, trees)}
    wanted = sys.argv[5:] or list(parts)
    if unknown := set(wanted) - set(parts):
        sys.exit(f"session.py: no part is called {', '.join(sorted(unknown))}: there are {', '.join(parts)}")
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {rounds} rounds; medians")
    for name in wanted:
        parts[name]()
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


try:
    main()
finally:
    shutil.rmtree(place, ignore_errors=True)
