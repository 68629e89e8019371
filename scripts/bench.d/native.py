"""usage: native.py RUNS LIVE TOOLS RESULT NAME=PROGRAM...

Measures runtimes side by side in the native bed and writes the figures into RESULT as JSON. Everything that is
timed goes round in turns (A B C, B C A, ...), so that whatever else the machine does hits all alike.
"""
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

from bundle import SLEEP, TRUE, Bundles
from runtime import Pace, Runtime

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(os.path.dirname(HERE))
WARM_UP = 3
PARALLEL = 100
# The kernel counts resident pages with an error of some tens; the largest of a few runs is taken.
COUNTED = 5


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Table:
    """Samples by row and column."""

    def __init__(self):
        self.rows = {}

    def add(self, row, column, sample):
        self.rows.setdefault(row, {}).setdefault(column, []).append(sample)

    def result(self):
        return {
            row: {
                column: {"median": statistics.median(samples), "minimum": min(samples), "samples": len(samples)}
                for column, samples in columns.items()
            }
            for row, columns in self.rows.items()
        }


def in_turns(runs, columns, once, warm_up=WARM_UP):
    """Calls once(column, keep) for every column, `runs` times over; the first rounds are not kept."""
    warm_up = min(warm_up, runs)
    for number in range(runs + warm_up):
        for position in range(len(columns)):
            once(columns[(number + position) % len(columns)], number >= warm_up)


class Bench:
    def __init__(self, runs, live, tools, runtimes, directory):
        self.runs, self.live, self.tools = runs, live, tools
        self.runtimes, self.pace = runtimes, Pace(tools)
        self.times, self.used = Table(), Table()
        self.figures = {}
        self.directory = directory

    def take(self, row, column, keep, *commands):
        elapsed, used, _ = self.pace.take(*commands)
        if keep:
            self.times.add(row, column, elapsed)
            self.used.add(row, column, used)
        return elapsed

    def figure(self, row, column, value):
        """The largest of the values that are given for a place."""
        row = self.figures.setdefault(row, {})
        row[column] = max(value, row[column]) if row.get(column) is not None else value

    def run(self, row, seccomp):
        floors = {} if seccomp else {"floor": "pniumc", "without network": "piumc", "no namespace": "-"}
        program = os.path.join(self.runtimes[0].bundles.rootfs, "bin/true")

        def once(column, keep):
            if isinstance(column, str):
                self.take(row, column, keep, [os.path.join(self.tools, "floor"), floors[column], program])
                return
            bundle = column.bundle("seccomp" if seccomp else "true", TRUE, seccomp=seccomp)
            self.take(row, column.name, keep, column.command("run", "--bundle", bundle, "run"))

        in_turns(self.runs, self.runtimes + list(floors), once)

    def lifecycle(self):
        def once(runtime, keep):
            bundle = runtime.bundle("true", TRUE)
            total = self.take("create", runtime.name, keep, runtime.command("create", "--bundle", bundle, "life"))
            total += self.take("start", runtime.name, keep, runtime.command("start", "life"))
            runtime.wait_until_empty(bundle)
            total += self.take("delete", runtime.name, keep, runtime.command("delete", "life"))
            if keep:
                self.times.add("create + start + delete", runtime.name, total)

        in_turns(self.runs, self.runtimes, once)

    def on_a_live_one(self):
        for runtime in self.runtimes:
            for name, seccomp in (("live", False), ("guarded", True)):
                bundle = runtime.bundle(name, SLEEP, seccomp=seccomp)
                runtime.call("run", "--detach", "--bundle", bundle, name)
        verbs = {
            "exec true": ("exec", "live", *TRUE),
            "exec true, seccomp": ("exec", "guarded", *TRUE),
            "state": ("state", "live"),
            # A signal that the process survives.
            "kill": ("kill", "live", "CONT"),
        }
        for row, (verb, *arguments) in verbs.items():
            in_turns(self.runs, self.runtimes, lambda runtime, keep, row=row, verb=verb, arguments=arguments: self.take(
                row, runtime.name, keep, runtime.command(verb, *arguments)))
        for runtime in self.runtimes:
            for name in ("live", "guarded"):
                runtime.call("delete", "--force", name)

    def parallel(self):
        row = f"{PARALLEL} parallel creates"

        def once(runtime, keep):
            names = [f"many-{number}" for number in range(PARALLEL)]
            self.take(row, runtime.name, keep, *(
                runtime.command("create", "--bundle", runtime.bundle(name, TRUE), name) for name in names))
            self.pace.take(*(runtime.command("delete", "--force", name) for name in names))

        in_turns(max(3, self.runs // 20), self.runtimes, once, warm_up=1)

    def counted(self):
        """What needs no clock: system calls, peak memory and instructions of each verb."""
        for runtime in self.runtimes:
            for _ in range(COUNTED):
                self.count_verbs(runtime, runtime.watch)
            self.count_verbs(runtime, self.instructions)
        floor = [os.path.join(self.tools, "floor"), "pniumc", os.path.join(self.runtimes[0].bundles.rootfs, "bin/true")]
        for what, value in self.runtimes[0].watch(floor).items():
            self.figure(f"{what}, run true", "floor", value)

    def instructions(self, command):
        return {"instructions": self.pace.take(command)[2]}

    def count_verbs(self, runtime, count):
        plain, guarded = runtime.bundle("true", TRUE), runtime.bundle("seccomp", TRUE, seccomp=True)
        sleep = runtime.bundle("live", SLEEP)
        runs = {
            "run true": ("run", "--bundle", plain, "counted"),
            "run true, seccomp": ("run", "--bundle", guarded, "counted"),
            "create": ("create", "--bundle", sleep, "counted"),
            "start": ("start", "counted"),
            "exec true": ("exec", "counted", *TRUE),
            "state": ("state", "counted"),
            "list": ("list",),
            "kill": ("kill", "counted", "KILL"),
            "delete": ("delete", "counted"),
        }
        for verb, command in runs.items():
            if verb == "delete":
                runtime.wait_until_empty(sleep)
            for what, value in count(runtime.command(*command)).items():
                self.figure(f"{what}, {verb}", runtime.name, value)

    def crowd(self):
        """What one container more costs, and `state` and `list`, beside few and beside many live containers."""
        runtimes = [runtime for runtime in self.runtimes if " " not in runtime.name]
        present = 1
        for runtime in runtimes:
            self.grow(runtime, 0, present)
        self.in_a_crowd(runtimes, present)
        for runtime in runtimes:
            say(f"{self.live} live containers of {runtime.name}")
            self.grow(runtime, present, self.live)
        self.in_a_crowd(runtimes, self.live)
        for runtime in runtimes:
            names = [f"crowd-{number}" for number in range(self.live)]
            self.pace.take(*(runtime.command("delete", "--force", name) for name in names))

    @staticmethod
    def grow(runtime, start, end):
        for number in range(start, end):
            name = f"crowd-{number}"
            runtime.call("create", "--bundle", runtime.bundle(name, SLEEP, change=share_network), name)

    def in_a_crowd(self, runtimes, size):
        def once(runtime, keep):
            bundle = runtime.bundle("one-more", SLEEP, change=share_network)
            beside = f"beside {size}"
            for verb, *arguments in (("create", "--bundle", bundle, "one-more"), ("state", "one-more"), ("list",)):
                self.take(f"{verb}, {beside}", runtime.name, keep, runtime.command(verb, *arguments))
            runtime.call("delete", "--force", "one-more")

        in_turns(max(5, self.runs // 5), runtimes, once)


def share_network(config):
    # A thousand network namespaces would take the kernel seconds to clean up, in the middle of what comes next.
    config["linux"]["namespaces"] = [
        namespace for namespace in config["linux"]["namespaces"] if namespace["type"] != "network"
    ]


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return {"processors": os.cpu_count(), "model": model, "kernel": platform.release()}


def load():
    with open("/proc/loadavg", encoding="ascii") as file:
        return file.read().split()[0]


def on_read_only_mount(program, directory):
    """The same program where nobody can write to it: deja then has nothing to protect itself from."""
    os.makedirs(directory)
    shutil.copy2(program, directory)
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
    return os.path.join(directory, os.path.basename(program))


def choose(programs, tools, directory, bundles):
    """The runtimes that run the bundle here, and why the others do not."""
    chosen, absent = [], {}
    for name, program in programs:
        runtime = Runtime(name, program, os.path.join(directory, "state"), tools, bundles)
        os.makedirs(runtime.root)
        reasons = [runtime.probe(runtime.bundle(kind, TRUE, seccomp=kind == "seccomp")) for kind in ("true", "seccomp")]
        if any(reasons):
            absent[name] = next(filter(None, reasons))
            say(f"{name} is left out, it does not run the bundle here: {absent[name]}")
        else:
            chosen.append(runtime)
    return chosen, absent


def main():
    runs, live, tools, result = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5]
    programs = [tuple(argument.split("=", 1)) for argument in sys.argv[5:]]
    directory = tempfile.mkdtemp(prefix="bench-")
    os.chmod(directory, 0o755)
    name, program = programs[0]
    programs.insert(1, (f"{name} read-only", on_read_only_mount(program, os.path.join(directory, "read-only"))))
    # Engines have it already; whoever came first would have to make it, and some remove it again.
    os.mkdir("/sys/fs/cgroup/bench")
    bundles = Bundles(os.path.join(directory, "bundles"), os.path.join(PROJECT, "target/rootfs"),
                      os.path.join(PROJECT, "tests/data/seccomp-default.json"))
    runtimes, absent = choose(programs, tools, directory, bundles)
    if not runtimes or runtimes[0].name != name:
        sys.exit(f"bench: {name} does not run")
    bench = Bench(runs, live, tools, runtimes, directory)
    before = load()
    say("run")
    bench.run("run true", False)
    bench.run("run true, seccomp", True)
    say("create, start, delete")
    bench.lifecycle()
    say("exec, state, kill")
    bench.on_a_live_one()
    say(f"{PARALLEL} parallel creates")
    bench.parallel()
    say("system calls, memory, instructions")
    bench.counted()
    if live:
        bench.crowd()
    for runtime in runtimes:
        bench.figure("binary, bytes", runtime.name, os.stat(runtime.program).st_size)
    with open(result, "w", encoding="utf-8") as file:
        json.dump({
            "machine": machine(), "load": {"before": before, "after": load()}, "runs": runs, "live": live,
            "versions": {runtime.name: runtime.version() for runtime in runtimes}, "absent": absent,
            "nanoseconds": bench.times.result(), "processor nanoseconds": bench.used.result(),
            "figures": bench.figures,
        }, file, indent=1)


main()
