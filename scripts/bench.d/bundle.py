"""The bundles that are measured: a busybox root file system and what a careful engine sends."""
import copy
import json
import os
import shutil

CAPABILITIES = [
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
    "CAP_SYS_CHROOT",
]
MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
NAMESPACES = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
MOUNTS = [
    ("/proc", "proc", "proc", []),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
]
TRUE = ["/bin/true"]
SLEEP = ["/bin/sleep", "100000"]


def config(rootfs, arguments, cgroup):
    """config.json in the version that crun 1.21 and runc 1.1 accept."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": arguments,
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"],
            "cwd": "/",
            "capabilities": {kind: CAPABILITIES for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": rootfs},
        "hostname": "bench",
        "mounts": [
            {"destination": place, "type": kind, "source": source, "options": options}
            for place, kind, source, options in MOUNTS
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    }


class Bundles:
    """Bundle directories over one root file system, each with a cgroup of its own."""

    def __init__(self, directory, rootfs, seccomp):
        self.directory = directory
        self.rootfs = os.path.join(directory, "rootfs")
        os.makedirs(directory, exist_ok=True)
        shutil.copytree(rootfs, self.rootfs, symlinks=True)
        with open(seccomp, encoding="utf-8") as file:
            self.seccomp = json.load(file)

    def make(self, name, arguments, seccomp=False, change=None):
        """A bundle called `name`; `change` edits its configuration. The result is its directory."""
        place = os.path.join(self.directory, name)
        os.makedirs(place, exist_ok=True)
        content = copy.deepcopy(config(self.rootfs, arguments, "/bench/" + name))
        if seccomp:
            content["linux"]["seccomp"] = self.seccomp
        if change:
            change(content)
        with open(os.path.join(place, "config.json"), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        return place
