"""Times engines on several runtimes, in turn. usage: bench.py ROUNDS (inside scripts/engines.d/bed)"""

import os
import statistics
import subprocess
import sys
import time

DEJA, CRUN, RUNC = "/usr/local/bin/deja", "/usr/bin/crun", "/usr/sbin/runc"
CTR = "ctr run --rm --cpu-shares 0 --runc-binary {} localhost/busy:latest timed true"
# docker gives its containers limits for devices, which crun refuses where there is no controller for them, as here.
ENGINES = {
    "podman run --rm": ("podman --runtime {} run --rm busy true", (DEJA, CRUN, RUNC)),
    "podman exec": ("podman --runtime {} exec kept-{} true", (DEJA, CRUN, RUNC)),
    "ctr run --rm": (CTR, (DEJA, CRUN, RUNC)),
    "docker run --rm": ("docker run --runtime {} --rm --network none busy true", (DEJA, RUNC)),
}


def command(engine, runtime):
    template = ENGINES[engine][0]
    name = os.path.basename(runtime)
    if engine.startswith("docker"):
        runtime = name
    return template.format(runtime, name).split()


def timed(words):
    begin = time.monotonic()
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return (time.monotonic() - begin) * 1000


def main():
    rounds = int(sys.argv[1])
    for runtime in (DEJA, CRUN, RUNC):
        name = os.path.basename(runtime)
        words = ["podman", "--runtime", runtime, "run", "--detach", "--name", f"kept-{name}", "busy", "sleep", "100000"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    print(f"{rounds} rounds each, the runtimes in turn; load before {os.getloadavg()[0]:.1f}\n")
    print("| | runtime | median ms | fastest ms | median, deja = 1 | fastest, deja = 1 |")
    print("|---|---|---|---|---|---|")
    for engine, (_, runtimes) in ENGINES.items():
        times = {runtime: [] for runtime in runtimes}
        for number in range(rounds + 2):
            # Each is as often the first as the others are.
            shift = number % len(runtimes)
            for runtime in runtimes[shift:] + runtimes[:shift]:
                took = timed(command(engine, runtime))
                if number >= 2:
                    times[runtime].append(took)
        middle = {runtime: statistics.median(list_) for runtime, list_ in times.items()}
        least = {runtime: min(list_) for runtime, list_ in times.items()}
        for runtime in runtimes:
            cells = [engine, os.path.basename(runtime), f"{middle[runtime]:.1f}", f"{least[runtime]:.1f}"]
            cells += [f"{middle[runtime] / middle[DEJA]:.2f}", f"{least[runtime] / least[DEJA]:.2f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
    subprocess.run(["podman", "rm", "--all", "--force", "--time", "0"], check=True, stdout=subprocess.DEVNULL)
    print(f"\nload after {os.getloadavg()[0]:.1f}")


main()
