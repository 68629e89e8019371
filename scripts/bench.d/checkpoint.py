"""usage: checkpoint.py ROUNDS WORK ROOTFS, in a bed with Debian's tree: what it takes to save and restore containers."""
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


class Failed(Exception):
    pass


# What containers inherit as their output: runc cannot save one that writes to a file of the host.
HEARD, SAID = os.pipe()
os.set_blocking(HEARD, False)


def done(*words):
    """Seconds; what the program says is only heard if it fails."""
    begun = time.perf_counter()
    code = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=SAID, stderr=SAID, check=False).returncode
    took = time.perf_counter() - begun
    try:
        said = os.read(HEARD, 1 << 16).decode()
    except BlockingIOError:
        said = ""
    if code:
        raise Failed(f"{' '.join(words)}: exit code {code}: {said.strip()}")
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

    def do(self, verb, *words):
        return done(self.program, "--root", self.root, verb, *words)

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
    words = [f"--external={name}" for name in {name for _, name in streams if name.startswith("file[")}]
    words += [f"--external=mnt[{point}]:/dev/null" for point in masked(pid)]
    dump = done(CRIU, "dump", "-t", str(pid), *common, "--freeze-cgroup", f"/sys/fs/cgroup{cgroup}",
                "-o", "dump.log", *words)
    root = f"{PLACE}/root"
    os.makedirs(root, exist_ok=True)
    done("mount", "--bind", ROOTFS, root)
    words = ["--external=mnt[/dev/null]:/dev/null"]
    # Without its first letter it is taken as it is, and its size is not compared (src/checkpoint/request.rs).
    names = {name[1:] if name.startswith("file[") else name: number for number, name in streams}
    words += [f"--inherit-fd=fd[{number}]:{name}" for name, number in names.items()]
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
    flags = ["--image-path", image]
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.2)
    runtime.do("checkpoint", *flags, "--leave-running", box)
    os.kill(pid, signal.SIGUSR2)
    frozen = int(wait_for(lambda: read(pid, "pulse").strip().removeprefix("ready"))) / 1e6
    shutil.rmtree(image)
    dump = runtime.do("checkpoint", *flags, box)
    restore = runtime.do("restore", "--detach", "--bundle", path, *flags, box)
    manifest = f"{image}/deja.json"
    streams = json.load(open(manifest)) if os.path.exists(manifest) else None
    runtime.do("delete", "--force", box)
    return {"frozen": frozen, "dump": dump, "restore": restore}, streams


def compare(size, rounds):
    runtimes = {"deja": Runtime(DEJA), "runc": Runtime(RUNC)}
    path = make_bundle(f"pulse{size}", ["/pulse", str(size), "/tmp/pulse"])
    found = {}
    for _ in range(rounds):
        for name, runtime in list(runtimes.items()):
            try:
                took, streams = cycle(runtime, path, f"{name}{size}")
            except Failed as failure:
                if name == "deja":
                    raise
                print(f"{name} cannot do it here: {failure}\n{reasons(f'{PLACE}/image/dump.log')}")
                runtime.do("delete", "--force", f"{name}{size}")
                del runtimes[name]
                continue
            manifest = streams or manifest
            for what, seconds in took.items():
                found.setdefault((what, name), []).append(seconds)
        for what, seconds in zip(("dump", "restore"), bare_criu(runtimes["deja"], path, f"bare{size}", manifest)):
            found.setdefault((what, "criu"), []).append(seconds)
    return {key: (statistics.median(all), min(all)) for key, all in found.items()}


def reasons(log):
    """What CRIU has written down of its errors."""
    try:
        with open(log, errors="replace") as file:
            return "".join(line for line in file if "Error" in line)
    except OSError:
        return ""


def comparisons():
    shutil.copy(os.path.join(WORK, "pulse"), f"{ROOTFS}/pulse")
    rows = []
    for size, rounds in [(10, ROUNDS), (500, max(1, ROUNDS // 3))]:
        found = compare(size, rounds)
        for what in ("dump", "restore", "frozen"):
            columns = {name: found.get((what, name)) for name in ("deja", "criu", "runc")}
            cells = [f"{time[0] * 1e3:.0f} / {time[1] * 1e3:.0f}" if time else "-" for time in columns.values()]
            ratios = [
                f"{columns['deja'][0] / columns[name][0]:.2f}" if columns[name] else "-" for name in ("criu", "runc")
            ]
            rows.append([f"{size} MB, {what}", *cells, *ratios])
    head = ["ms, median / minimum", "deja", "bare criu", "runc", "deja / criu", "deja / runc"]
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


def memory(pid):
    """What only this process has, and its part of what it shares, in MB."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def copies():
    deja = Runtime(DEJA)
    rows = []
    image = f"{PLACE}/image-copies"
    path = make_bundle("copies", ["/pulse", "10", "/tmp/pulse", "still"])
    pid = deja.run(path, "copies")
    wait_for(lambda: read(pid, "pulse"))
    deja.do("checkpoint", "--image-path", image, "copies")
    for number in (1, 10, 100):
        words = ["--detach", "--bundle", path, "--image-path", image, "--copies", str(number), "copies"]
        took = deja.do("restore", *words)
        names = [f"copies-{copy}" for copy in range(1, number + 1)]
        used = sum(memory(deja.pid(name)) for name in names)
        for name in names:
            deja.do("delete", "--force", name)
        rows.append([str(number), f"{took:.2f}", f"{took / number * 1e3:.0f}", f"{used / number:.1f}"])
    print_table(["copies of 10 MB", "seconds", "ms each", "MB each"], rows)


def main():
    os.makedirs(PLACE, exist_ok=True)
    load = open("/proc/loadavg").read().split()[0]
    print(f"{os.cpu_count()} processors, load {load} at the beginning, {ROUNDS} rounds, Linux {os.uname().release}\n")
    comparisons()
    warm_and_cold()
    copies()


main()
