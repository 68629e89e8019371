"""Measures what deja fair run itself costs: starts containers, lets it watch them, and reads its CPU time before
and after; scripts/fair-cost calls it on this machine's kernel.

usage: cost.py DEJA ROOTFS CONTAINERS PROCESSES SECONDS LOAD...
LOAD: asleep (nothing happens), light (every fifth process starts a program ten times a second), mixed (two
processes of every tenth container always want to run).
"""
import json
import os
import subprocess
import sys
import tempfile
import time

DEJA, ROOTFS = sys.argv[1:3]
CONTAINERS, PROCESSES, SECONDS = map(int, sys.argv[3:6])
# Arrivals are over and everything is as it will stay.
SETTLE = 45
SLEEP, WAKE, SPIN = "sleep 1000", "while :; do sleep 0.1; done", "while :; do :; done"


def script(load, number):
    """One process each, the shell being the first."""
    kinds = {
        "asleep": [SLEEP] * PROCESSES,
        "light": [WAKE if (number * PROCESSES + place) % 5 == 0 else SLEEP for place in range(PROCESSES)],
        "mixed": [SPIN if number % 10 == 0 and place < 2 else SLEEP for place in range(PROCESSES)],
    }[load]
    return " ".join(f"({kind}) &" for kind in kinds[1:]) + " " + kinds[0]


def config(load, number):
    return {
        "ociVersion": "1.3.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh", "-c", script(load, number)],
                    "cwd": "/", "env": ["PATH=/bin"], "scheduler": {"policy": "SCHED_OTHER", "nice": 19}},
        "root": {"path": ROOTFS, "readonly": True},
        "linux": {"cgroupsPath": f"/fair/c{number}",
                  "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }


def cpu_seconds(pid):
    """Finer than times(2)."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def measure(load, work):
    root = os.path.join(work, "state")
    deja = [DEJA, "--root", root]

    def status():
        told = subprocess.run([*deja, "fair", "status", "--format", "json"], check=True, capture_output=True, text=True)
        return json.loads(told.stdout)

    try:
        for number in range(CONTAINERS):
            bundle = os.path.join(work, load, str(number))
            os.makedirs(bundle)
            with open(os.path.join(bundle, "config.json"), "w") as file:
                json.dump(config(load, number), file)
            subprocess.run([*deja, "run", "--detach", "--bundle", bundle, f"c{number}"], check=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        daemon = subprocess.Popen([*deja, "fair", "run"], stdout=subprocess.DEVNULL)
        time.sleep(SETTLE)
        before, began = cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(SECONDS)
        used, took = cpu_seconds(daemon.pid) - before, time.monotonic() - began
        told = status()
        daemon.terminate()
        if daemon.wait() != 0:
            sys.exit("deja fair run failed")
    finally:
        for number in range(CONTAINERS):
            subprocess.run([*deja, "delete", "--force", f"c{number}"], stderr=subprocess.DEVNULL)
    print(f"{load:8} {used / took * 100:6.3f} % of a CPU   a sample: {told['sampleSeconds'] * 1000:6.3f} ms on average, "
          f"{told['longestSampleSeconds'] * 1000:6.3f} ms at most   {told['memoryBytes'] / 2**20:4.1f} MiB", flush=True)


for kind in sys.argv[6:]:
    with tempfile.TemporaryDirectory() as directory:
        measure(kind, directory)
