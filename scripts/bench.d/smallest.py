"""usage: smallest.py RESULT NAME=PROGRAM...

Finds, in the virtual machine, the smallest memory limit with which each runtime still runs `true`, and adds
it to what native.py wrote into RESULT.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

from bundle import TRUE, Bundles

STEP = 32
MOST = 64 * 1024
# Memory is charged in batches that depend on the processor, so one lucky run proves nothing.
TRIES = 3
SECONDS = 60


def works(program, root, bundle):
    for _ in range(TRIES):
        command = [program, "--root", root]
        try:
            done = subprocess.run([*command, "run", "--bundle", bundle, "small"], stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=SECONDS, check=False)
            good = done.returncode == 0
        except subprocess.TimeoutExpired:
            good = False
        if not good:
            subprocess.run([*command, "delete", "--force", "small"], capture_output=True, timeout=SECONDS, check=False)
            return False
    return True


def smallest(name, program, root, bundles):
    """KiB, or None when not even the largest limit is enough."""
    def fits(steps):
        def limit(config):
            config["linux"]["resources"]["memory"] = {"limit": steps * STEP * 1024}
        return works(program, root, bundles.make(name, TRUE, change=limit))

    low, high = 0, MOST // STEP
    if not fits(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2 if low else max(1, high // 2)
        if fits(middle):
            high = middle
        else:
            low = middle
    return high * STEP


def main():
    directory = tempfile.mkdtemp(prefix="bench-")
    os.chmod(directory, 0o755)
    project = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    bundles = Bundles(os.path.join(directory, "bundles"), os.path.join(project, "target/rootfs"),
                      os.path.join(project, "tests/data/seccomp-default.json"))
    found = {}
    for name, program in (argument.split("=", 1) for argument in sys.argv[2:]):
        # Off the share, which is slow and whose pages are somebody else's.
        own = shutil.copy2(program, os.path.join(directory, name))
        found[name] = smallest(name, own, os.path.join(directory, "state-" + name), bundles)
        print(f"bench: {name} runs `true` in {found[name]} KiB", file=sys.stderr, flush=True)
    with open(sys.argv[1], "r+", encoding="utf-8") as file:
        result = json.load(file)
        result["smallest memory limit, KiB"] = found
        file.seek(0)
        json.dump(result, file, indent=1)
        file.truncate()


main()
