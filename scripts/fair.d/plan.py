"""Writes the plan for measure.py: which scenarios, and what exact sharing gives each container in them, which is
what the simulator's reference says.

usage: plan.py DEJA RUNS SETTLE WINDOW REACTIONS RECORDINGS SCENARIO...
Where RECORDINGS is empty, nothing is recorded.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

deja, runs, settle, window, reactions, recordings, *paths = sys.argv[1:]
CPUS = 2
PLOTTED = ("threads-1-16", "tenants-5-1")
modes = [
    {"name": "nothing", "flags": None, "settles": False},
    {"name": "wfq", "flags": []},
    {"name": "quota", "flags": ["--policy", "quota"]},
    {"name": "per cpu: static", "flags": ["--policy", "static", "--emulate-per-cpu"], "settles": False},
    {"name": "per cpu: wfq", "flags": ["--emulate-per-cpu"], "plotted": True},
]


def entitled(scenario):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        # Nothing changes in these scenarios, so a few seconds say as much as many.
        json.dump({**scenario, "cpus": CPUS, "seconds": 5}, file)
        file.flush()
        return reference(file.name)


def reference(path):
    words = [deja, "fair", "simulate", "--format", "json", "--policy", "static", "--kernel", "group", path]
    outcome = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    containers = outcome["runs"][0]["containers"]
    total = sum(container["entitled"] for container in containers)
    return {container["name"]: container["entitled"] / total for container in containers}


def case(path):
    path = pathlib.Path(path)
    scenario = json.loads(path.read_text())
    parts = entitled(scenario)
    # Of very many containers each has too little for its own error to mean anything in so short a time.
    few = len(parts) <= 12
    judged = {name: name if few else name.rsplit("-", 1)[0] for name in parts}
    plotted = bool(recordings) and path.stem in PLOTTED
    return {"name": path.stem, "scenario": scenario, "entitled": parts, "judged": judged, "plotted": plotted}


plan = {"runs": int(runs), "settle": float(settle), "window": float(window), "recordings": recordings, "modes": modes,
        "reactions": int(reactions), "cases": [case(path) for path in paths]}
json.dump(plan, sys.stdout)
