"""usage: session.py ROUNDS WORK ROOTFS, in the native bed with Debian's tree: what commands of sessions take."""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bundle

rounds, work, rootfs = int(sys.argv[1]), sys.argv[2], sys.argv[3]
deja = f"{work}/deja"
place = tempfile.mkdtemp(prefix="bench-session-")


def call(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr}")
    return done.stdout


def session(verb, *words):
    return call(deja, "--root", f"{place}/run", "session", verb, "--store", f"{place}/store", *words)


def timed(*acts):
    """Each act in turns, as median milliseconds."""
    times = [[] for _ in acts]
    for turn in range(rounds):
        for act, taken in zip(acts, times):
            begin = time.perf_counter()
            act(turn)
            taken.append((time.perf_counter() - begin) * 1e3)
    return [statistics.median(taken) for taken in times]


def large_tree(count):
    """A root file system with many more files."""
    path = f"{place}/tree-{count}"
    shutil.copytree(rootfs, path, symlinks=True)
    for directory in range(count // 100):
        below = pathlib.Path(path, "data", str(directory // 100), str(directory))
        below.mkdir(parents=True)
        for name in range(100):
            (below / str(name)).write_text(str(name))
    return path


def main():
    directory = f"{place}/bundle"
    os.mkdir(directory)
    shutil.copytree(rootfs, f"{directory}/rootfs", symlinks=True)
    pathlib.Path(directory, "config.json").write_text(
        json.dumps(bundle.config("rootfs", bundle.TRUE, "/bench-session/run"))
    )
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
    calls = len(pathlib.Path(trace).read_text().splitlines()) - 1
    rows = [
        ("hit, a whole process", hit),
        ("crun run true", crun_run),
        ("deja run true", deja_run),
        ("miss: true", miss),
        ("miss: a shell that writes one file", change),
    ]
    session("new", "--rootfs", rootfs, "long")
    for number in range(1000):
        session("exec", "long", "true")
    [late] = timed(lambda turn: session("exec", "long", "true", f"late-{turn}"))
    rows.append(("miss: true, after 1000 hits", late))
    for count in (10_000, 100_000):
        name = f"large-{count}"
        begin = time.perf_counter()
        session("new", "--rootfs", large_tree(count), name)
        imported = (time.perf_counter() - begin) * 1e3
        [small] = timed(lambda turn: session("exec", name, "-c", f"echo {turn} > /data/0/0/5"))
        rows.append((f"the same, in a tree of {count:,} files", small))
        rows.append((f"importing the tree of {count:,} files", imported))
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} processors, load {load:.1f}, {rounds} rounds; median milliseconds\n")
    print("| | ms |\n|---|---:|")
    for name, taken in rows:
        print(f"| {name} | {taken:.1f} |")
    print(f"| system calls of a hit | {calls} |")
    print(f"\nhit / crun run true: {hit / crun_run:.2f}")


try:
    main()
finally:
    shutil.rmtree(place, ignore_errors=True)
