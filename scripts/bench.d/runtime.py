"""A runtime that is measured, and the small programs that measure it."""
import os
import subprocess
import sys
import tempfile
import time

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


class Pace:
    """The program that starts others and takes their time; see pace.c."""

    def __init__(self, tools):
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            [os.path.join(tools, "pace")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            env=ENVIRONMENT, text=True, bufsize=1,
        )

    def take(self, *commands, may_fail=False):
        """Starts the commands at once: (nanoseconds, processor nanoseconds, instructions or None)."""
        lines = [str(len(commands))] + ["\t".join(command) for command in commands]
        self.process.stdin.write("\n".join(lines) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) != 4:
            sys.exit("bench: pace ended early")
        elapsed, used, instructions, bad = map(int, answer)
        if bad and not may_fail:
            self.errors.seek(0)
            said = self.errors.read()[-2000:]
            sys.exit(f"bench: {bad} of {len(commands)} failed: {' '.join(commands[-1])}\n{said}")
        return elapsed, used, None if instructions < 0 else instructions


class Runtime:
    """One column of the table."""

    def __init__(self, name, program, root, tools, bundles):
        self.name, self.program, self.root = name, program, os.path.join(root, name)
        self.tools, self.bundles = tools, bundles
        self.made = {}

    def command(self, verb, *arguments):
        return [self.program, "--root", self.root, verb, *arguments]

    def bundle(self, kind, arguments, **options):
        """The bundle of this kind for this runtime, made at first use."""
        name = f"{self.name.replace(' ', '-')}-{kind}"
        if name not in self.made:
            self.made[name] = self.bundles.make(name, arguments, **options)
        return self.made[name]

    def call(self, verb, *arguments, may_fail=False):
        """Runs a verb that is not measured; what it printed."""
        with tempfile.TemporaryFile() as output:
            # A pipe would stay open in the container that `create` leaves behind.
            done = subprocess.run(
                self.command(verb, *arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=ENVIRONMENT, check=False,
            )
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        if done.returncode and not may_fail:
            sys.exit(f"bench: {self.name} {verb} {' '.join(arguments)}: exit code {done.returncode}: {said}")
        return done.returncode, said

    def version(self):
        _, said = self.call("--version", may_fail=True)
        return said.splitlines()[0] if said else "unknown"

    def probe(self, bundle):
        """None when a container runs, or why not."""
        code, said = self.call("run", "--bundle", bundle, "probe", may_fail=True)
        return None if code == 0 else said or f"exit code {code}"

    def wait_until_empty(self, bundle):
        """Until no process is left in the container's cgroup."""
        events = "/sys/fs/cgroup/bench/" + os.path.basename(bundle) + "/cgroup.events"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with open(events, encoding="ascii") as file:
                    if "populated 0" in file.read():
                        return
            except FileNotFoundError:
                return
            time.sleep(0.0005)
        sys.exit(f"bench: {self.name}: the container of {bundle} does not end")

    def watch(self, command):
        """KiB of the largest process of the runtime that takes part in the command, and its system calls."""
        with tempfile.NamedTemporaryFile(mode="r") as result:
            not_counted = os.path.join(self.bundles.rootfs, "bin/busybox")
            quiet([os.path.join(self.tools, "watch"), result.name, not_counted, *command])
            peak, calls = map(int, result.read().split())
        return {"peak memory, KiB": peak, "system calls": calls}


def quiet(command):
    """Runs a command that must succeed, without its output."""
    with tempfile.TemporaryFile() as output:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=ENVIRONMENT, check=False
        ).returncode
        if code:
            output.seek(0)
            sys.exit(f"bench: {' '.join(command)}: exit code {code}: {output.read().decode(errors='replace')[-2000:]}")
