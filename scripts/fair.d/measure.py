"""Runs scenarios on this machine's kernel and measures what every container receives; scripts/fair calls it in
the virtual machine.

usage: measure.py DEJA ROOTFS PLAN RESULT
PLAN is JSON: {"runs", "settle", "window", "cases": [{"name", "scenario", "entitled": {container: part}}],
"modes": [{"name", "flags": [...] or null for no deja fair run at all, "settles", "plotted"}], "recordings": DIRECTORY,
"reactions": how often to measure how soon weights follow arrivals, exits and updates}.
RESULT becomes a list of {"case", "mode", "run", "worst", "jain", "used", "writes"}, after one {"reactions"}.
"""
import calendar
import json
import os
import subprocess
import sys
import tempfile
import time

DEJA, ROOTFS = sys.argv[1:3]
TREE = "/sys/fs/cgroup"
PARENT = "fair"


def config(container, scenario):
    spin = "while :; do :; done"
    more = "".join(f"({spin}) & " for _ in range(container.get("threads", 1) - 1))
    annotations = {f"deja.fair.{word}": container[word] for word in ("class", "tenant") if word in container}
    return {
        "ociVersion": "1.3.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh", "-c", more + spin], "cwd": "/", "env": ["PATH=/bin"]},
        "root": {"path": ROOTFS, "readonly": True},
        "annotations": annotations,
        "linux": {
            "cgroupsPath": f"/{PARENT}/{container['name']}",
            "resources": {"cpu": {"shares": round(1024 * container.get("shares", 1))}},
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
        },
    }


def expand(scenario):
    """Copies as the simulator makes them."""
    for container in scenario["containers"]:
        copies = container.get("copies", 1)
        for number in range(1, copies + 1):
            numbered = {word: value.replace("{n}", str(number)) if isinstance(value, str) else value
                        for word, value in container.items()}
            if copies > 1 and "{n}" not in container["name"]:
                numbered["name"] += str(number)
            yield numbered


class Case:
    def __init__(self, case):
        self.case = case
        self.scenario = case["scenario"]
        self.containers = list(expand(self.scenario))
        self.work = tempfile.TemporaryDirectory()
        self.root = os.path.join(self.work.name, "state")

    def deja(self, *words, **more):
        return subprocess.run([DEJA, "--root", self.root, *words], check=True, text=True, capture_output=True, **more)

    def __enter__(self):
        for container in self.containers:
            bundle = os.path.join(self.work.name, container["name"])
            os.mkdir(bundle)
            with open(os.path.join(bundle, "config.json"), "w") as file:
                json.dump(config(container, self.scenario), file)
            subprocess.run([DEJA, "--root", self.root, "run", "--detach", "--bundle", bundle, container["name"]],
                           check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for group, terms in self.scenario.get("groups", {}).items():
            self.deja("fair", "set", "--shares", str(terms.get("shares", 1)), f"@{group}")
        return self

    def __exit__(self, *_):
        for container in self.containers:
            self.deja("delete", "--force", container["name"])
        self.work.cleanup()

    def used(self):
        def one(name):
            with open(f"{TREE}/{PARENT}/{name}/cpu.stat") as file:
                return int(file.readline().split()[1]) / 1e6
        return {container["name"]: one(container["name"]) for container in self.containers}

    def measure(self, mode, settle, window, recording=None):
        daemon = None
        if mode["flags"] is not None:
            words = [DEJA, "--root", self.root, "fair", "run", *mode["flags"]]
            words += ["--record", recording] if recording else []
            daemon = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        time.sleep(settle if mode.get("settles", True) else min(settle, 3))
        before, began = self.used(), time.monotonic()
        time.sleep(window)
        after, took = self.used(), time.monotonic() - began
        writes = 0
        if daemon:
            status = json.loads(self.deja("fair", "status", "--format", "json").stdout)
            writes = sum(entry["writes"] for group in status["siblings"] for entry in group["containers"])
            daemon.terminate()
            if daemon.wait() != 0:
                sys.exit("deja fair run failed")
        received = {name: after[name] - before[name] for name in after}
        return {**judge(received, self.case["entitled"], self.case["judged"]), "used": sum(received.values()) / took, "writes": writes}


def judge(received, entitled, judged):
    """`judged` names the group each container is judged with."""
    total = sum(received.values())
    groups = {group: [name for name in judged if judged[name] == group] for group in judged.values()}
    parts = {group: sum(received[name] for name in names) / total / sum(entitled[name] for name in names)
             for group, names in groups.items()}
    worst = max(abs(part - 1) for part in parts.values())
    values = list(parts.values())
    jain = sum(values) ** 2 / (len(values) * sum(value * value for value in values))
    return {"worst": worst, "jain": jain, "parts": {name: round(part, 3) for name, part in parts.items()}}


def nanoseconds(moment):
    """Of RFC 3339's form, since 1970."""
    whole, _, fraction = moment.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(fraction.ljust(9, "0"))


def told(path, kind, after):
    """When the daemon said it, in nanoseconds, waiting until it has said it and for half a second nothing more."""
    for _ in range(600):
        with open(path) as file:
            events = [json.loads(line) for line in file if line.endswith("\n")]
        times = [nanoseconds(event["time"]) for event in events if event["event"] == kind]
        times = [moment for moment in times if moment > after]
        if times and time.time_ns() - max(times) > 500_000_000:
            return times
        time.sleep(0.05)
    raise TimeoutError(f"no event {kind}")


def reaction(rounds):
    """Milliseconds from what happens to the weight that follows. A container's record is replaced as the last act
    of its arrival or update, and tells when; nobody writes down when a container ends, so there the kill counts."""
    ann = [{"name": f"ann-{number}", "tenant": "ann"} for number in range(3)]
    scenario = {"containers": [*ann, {"name": "bob", "tenant": "bob"}]}
    found = {"arrival": [], "update": [], "exit": []}
    with Case({"scenario": scenario}) as case, tempfile.NamedTemporaryFile("w", dir=case.work.name) as said:
        # A sample an hour: what is written is the answer to something.
        words = [DEJA, "--root", case.root, "fair", "run", "--json", "--period", "1h"]
        daemon = subprocess.Popen(words, stdout=said)
        told(said.name, "begun", 0)

        def changed(name):
            return os.stat(os.path.join(case.root, name, "record.json")).st_mtime_ns

        def note(kind, before, since):
            # The last weight that follows counts. It may be there before the last thing the verb does, and file
            # times are as coarse as ticks.
            found[kind].append(max(0, max(told(said.name, "wrote", before)) - since) / 1e6)

        for number in range(rounds):
            before = time.time_ns()
            case.deja("fair", "set", "--shares", str(2 + number % 2), "bob")
            note("update", before, changed("bob"))
            before = time.time_ns()
            case.deja("kill", "ann-2", "KILL")
            note("exit", before, before)
            case.deja("delete", "--force", "ann-2")
            before = time.time_ns()
            subprocess.run([DEJA, "--root", case.root, "run", "--detach", "--bundle",
                            os.path.join(case.work.name, "ann-2"), "ann-2"],
                           check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            note("arrival", before, changed("ann-2"))
        daemon.terminate()
        if daemon.wait() != 0:
            sys.exit("deja fair run failed")
    return found


def main():
    with open(sys.argv[3]) as file:
        plan = json.load(file)
    results = []
    reactions = {}
    try:
        reactions = reaction(plan["reactions"]) if plan["reactions"] else {}
    except TimeoutError as error:
        print(f"how soon weights follow was not measured: {error}", flush=True)
    if reactions:
        for kind, times in reactions.items():
            print(f"{kind:8} to weight: {sorted(times)[len(times) // 2]:.1f} ms in the middle, {max(times):.1f} ms at most",
                  flush=True)
        results.append({"reactions": reactions})
    for case in plan["cases"]:
        with Case(case) as running:
            for run in range(plan["runs"]):
                for mode in plan["modes"]:
                    result = running.measure(mode, plan["settle"], plan["window"])
                    result.update(case=case["name"], mode=mode["name"], run=run)
                    results.append(result)
                    print(f"{case['name']:14} {mode['name']:14} {result['worst'] * 100:6.2f} %  "
                          f"Jain {result['jain']:.4f}  {result['used']:.2f} CPUs  {result['writes']} writes", flush=True)
            # A recording costs a sample with everybody in it four times a second, which no figure shall have in it.
            for mode in plan["modes"] if case["plotted"] else []:
                if mode.get("plotted"):
                    recording = os.path.join(plan["recordings"], f"{case['name']}-{mode['name']}.jsonl")
                    running.measure(mode, plan["settle"], plan["window"], recording)
        with open(sys.argv[4], "w") as file:
            json.dump(results, file)


main()
