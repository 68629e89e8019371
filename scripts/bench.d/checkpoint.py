"""usage: checkpoint.py ROUNDS WORK ROOTFS

What it takes to save and restore containers: deja beside bare criu and runc, a warmed program beside a cold start,
and many copies of one image. Prints tables in Markdown.
"""
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

import bundle
from table import print_table

ROUNDS, WORK, ROOTFS = int(sys.argv[1]), sys.argv[2], sys.argv[3]
DEJA, CRIU, RUNC = os.path.join(WORK, "deja"), "/usr/sbin/criu", "/usr/sbin/runc"
PLACE = "/run/bench-checkpoint"
WARM = """
import time
begun = time.monotonic()
import argparse, asyncio, csv, ctypes, decimal, difflib, email.message, fractions, hashlib, html.parser, http.server
import json, logging.config, multiprocessing, pydoc, sqlite3, ssl, statistics, tempfile, unittest.mock, urllib.request
import xml.dom.minidom, zipfile
table = {str(number): hashlib.sha256(str(number).encode()).hexdigest() for number in range(50_000)}
rounds = 0
while True:
    open("/tmp/ready.new", "w").write(f"{rounds} {len(table)}")
    __import__("os").rename("/tmp/ready.new", "/tmp/ready")
    rounds += 1
    time.sleep(0.005)
"""


def done(*words, may_fail=False):
    """Seconds; what the program says is only shown if it fails."""
    with open(f"{PLACE}/log", "w+b") as log:
        begun = time.perf_counter()
        code = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
        took = time.perf_counter() - begun
        if code and not may_fail:
            log.seek(0)
            sys.exit(f"bench: {' '.join(words)}: exit code {code}\n{log.read().decode()[-2000:]}")
    return took


def make_bundle(name, arguments, mounts=(), rootfs=ROOTFS):
    path = f"{PLACE}/{name}"
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    config = bundle.config(rootfs, arguments, f"/bench-{name}")
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    config["mounts"].extend(mounts)
    with open(f"{path}/config.json", "w") as file:
        json.dump(config, file)
    return path


class Runtime:
    def __init__(self, program):
        self.program = program
        self.root = f"{PLACE}/state-{os.path.basename(program)}"

    def do(self, verb, *words, **options):
        return done(self.program, "--root", self.root, verb, *words, **options)

    def run(self, path, box):
        self.do("run", "--detach", "--bundle", path, box)
        return self.pid(box)

    def pid(self, box):
        words = [self.program, "--root", self.root, "state", box]
        return json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["pid"]


def read(pid, name):
    try:
        with open(f"/proc/{pid}/root/tmp/{name}") as file:
            return file.read()
    except OSError:
        return ""


def wait_for(condition):
    for _ in range(60_000):
        if found := condition():
            return found
        time.sleep(0.001)
    sys.exit("bench: it did not come")


def masked(pid):
    with open(f"/proc/{pid}/mountinfo") as table:
        fields = [line.split() for line in table]
    return [line[4] for line in fields if line[3].endswith("/null") and line[4] in bundle.MASKED]


def bare_criu(deja, path, box, manifest):
    """The same work without a runtime: what deja asks of CRIU, on its command line."""
    pid = deja.run(path, box)
    wait_for(lambda: read(pid, "pulse"))
    image = f"{PLACE}/image-criu"
    shutil.rmtree(image, ignore_errors=True)
    os.mkdir(image)
    common = ["-D", image, "--manage-cgroups=ignore", "--network-lock", "skip", "-v2"]
    cgroup = open(f"/proc/{pid}/cgroup").read().strip().split("::")[1]
    streams = [(number, name) for number, name in enumerate(manifest["streams"]) if name]
    words = [f"--external={name}" for name in {name for _, name in streams}]
    words += [f"--external=mnt[{point}]:/dev/null" for point in masked(pid)]
    dump = done(CRIU, "dump", "-t", str(pid), *common, "--freeze-cgroup", f"/sys/fs/cgroup{cgroup}",
                "-o", "dump.log", *words)
    root = f"{PLACE}/root"
    os.makedirs(root, exist_ok=True)
    done("mount", "--bind", ROOTFS, root)
    words = ["--external=mnt[/dev/null]:/dev/null"]
    seen = set()
    words += [f"--inherit-fd=fd[{number}]:{name}" for number, name in streams if not (name in seen or seen.add(name))]
    pidfile = f"{PLACE}/pid"
    if os.path.exists(pidfile):
        os.remove(pidfile)
    restore = done(CRIU, "restore", *common, "-d", "--root", root, "-o", "restore.log", "--pidfile", pidfile, *words)
    os.kill(int(open(pidfile).read()), signal.SIGKILL)
    done("umount", "-l", root)
    deja.do("delete", "--force", box)
    return dump, restore


def cycle(runtime, path, box):
    """Frozen seconds as the program sees them, and seconds of checkpoint and restore."""
    pid = runtime.run(path, box)
    wait_for(lambda: read(pid, "pulse"))
    image = f"{PLACE}/image"
    shutil.rmtree(image, ignore_errors=True)
    flags = ["--image-path", image, "--manage-cgroups-mode", "ignore"]
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.2)
    os.kill(pid, signal.SIGUSR1)
    runtime.do("checkpoint", *flags, "--leave-running", box)
    time.sleep(0.05)
    frozen = int(read(pid, "pulse")) / 1e6
    shutil.rmtree(image)
    dump = runtime.do("checkpoint", *flags, box)
    restore = runtime.do("restore", "--detach", "--bundle", path, *flags, box)
    manifest = f"{image}/deja.json"
    streams = json.load(open(manifest)) if os.path.exists(manifest) else None
    runtime.do("delete", "--force", box)
    return {"frozen": frozen, "dump": dump, "restore": restore}, streams


def compare(size, rounds):
    deja, runc = Runtime(DEJA), Runtime(RUNC)
    shutil.copy(os.path.join(WORK, "pulse"), f"{ROOTFS}/pulse")
    path = make_bundle(f"pulse{size}", ["/pulse", str(size), "/tmp/pulse"])
    found = {}
    for _ in range(rounds):
        for name, runtime in [("deja", deja), ("runc", runc)]:
            took, streams = cycle(runtime, path, f"{name}{size}")
            manifest = streams or manifest
            for what, seconds in took.items():
                found.setdefault((what, name), []).append(seconds)
        for what, seconds in zip(("dump", "restore"), bare_criu(deja, path, f"bare{size}", manifest)):
            found.setdefault((what, "criu"), []).append(seconds)
    return {key: (statistics.median(all), min(all)) for key, all in found.items()}


def comparisons():
    rows = []
    for size, rounds in [(10, ROUNDS), (500, max(3, ROUNDS // 3))]:
        found = compare(size, rounds)
        for what in ("dump", "restore", "frozen"):
            def cell(name):
                return " / ".join(f"{value * 1e3:.0f}" for value in found[what, name]) if (what, name) in found else "-"

            def ratio(name):
                if (what, name) not in found:
                    return "-"
                return f"{found[what, 'deja'][0] / found[what, name][0]:.2f}"
            rows.append([f"{size} MB, {what}", cell("deja"), cell("criu"), cell("runc"), ratio("criu"), ratio("runc")])
    head = ["median / minimum in ms", "deja", "bare criu", "runc", "deja / criu", "deja / runc"]
    print_table(head, rows)


def warm_and_cold():
    deja = Runtime(DEJA)
    rootfs = f"{PLACE}/python"
    shutil.copytree(ROOTFS, rootfs, symlinks=True)
    own = []
    for name in ("usr", "lib", "lib64", "etc"):
        source = os.path.realpath(f"/{name}")
        if os.path.isdir(source):
            os.makedirs(f"{rootfs}/host/{name}", exist_ok=True)
            own.append({"destination": f"/host/{name}", "type": "bind", "source": source, "options": ["rbind", "ro"]})
    with open(f"{rootfs}/warm.py", "w") as file:
        file.write(WARM)
    for name in ("dev", "proc", "tmp"):
        os.makedirs(f"{rootfs}/host/{name}", exist_ok=True)
    words = ["/host/lib64/ld-linux-x86-64.so.2", "--library-path", "/host/usr/lib/x86_64-linux-gnu",
             "/host/usr/bin/python3", "/warm.py"]
    path = make_bundle("warm", words, own, rootfs)
    config = json.load(open(f"{path}/config.json"))
    config["process"]["env"] += ["PYTHONHOME=/host/usr", "PYTHONDONTWRITEBYTECODE=1"]
    json.dump(config, open(f"{path}/config.json", "w"))
    image, cold, warm = f"{PLACE}/image-warm", [], []
    for _ in range(max(3, ROUNDS // 2)):
        begun = time.perf_counter()
        pid = deja.run(path, "warm")
        wait_for(lambda: read(pid, "ready"))
        cold.append(time.perf_counter() - begun)
        shutil.rmtree(image, ignore_errors=True)
        deja.do("checkpoint", "--image-path", image, "warm")
        begun = time.perf_counter()
        deja.do("restore", "--detach", "--bundle", path, "--image-path", image, "warm")
        pid = deja.pid("warm")
        before = read(pid, "ready")
        wait_for(lambda: read(pid, "ready") not in ("", before))
        warm.append(time.perf_counter() - begun)
        deja.do("delete", "--force", "warm")
    size = sum(os.path.getsize(f"{image}/{name}") for name in os.listdir(image)) >> 20
    cold, warm = statistics.median(cold), statistics.median(warm)
    print_table(["until the program does its work", "ms"], [
        ["started (`run`)", f"{cold * 1e3:.0f}"],
        [f"restored from an image of {size} MB", f"{warm * 1e3:.0f}"],
        ["ratio", f"{cold / warm:.1f}"],
    ])


def available():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable")) / 1024


def copies():
    deja = Runtime(DEJA)
    rows = []
    image = f"{PLACE}/image-copies"
    path = make_bundle("copies", ["/pulse", "10", "/tmp/pulse"])
    pid = deja.run(path, "copies")
    wait_for(lambda: read(pid, "pulse"))
    deja.do("checkpoint", "--image-path", image, "copies")
    for number in (1, 10, 100):
        before = available()
        took = deja.do("restore", "--detach", "--bundle", path, "--image-path", image, "--copies", str(number), "copies")
        used = before - available()
        for copy in range(1, number + 1):
            deja.do("delete", "--force", f"copies-{copy}")
        rows.append([str(number), f"{took:.2f}", f"{took / number * 1e3:.0f}", f"{used / number:.1f}"])
    print_table(["copies of 10 MB", "seconds", "ms each", "MB of memory each"], rows)


os.makedirs(PLACE, exist_ok=True)
load = open("/proc/loadavg").read().split()[0]
print(f"{os.cpu_count()} processors, load {load} at the begin, {ROUNDS} rounds, Linux {os.uname().release}\n")
comparisons()
warm_and_cold()
copies()
