"""usage: table.py [--write] RESULT

Prints the figures that native.py and smallest.py found as tables that read well as text and as Markdown. With
--write they also replace what stands between <!-- bench --> and <!-- /bench --> in docs/speed.md (all tables)
and README.md (the short one).
"""
import contextlib
import io
import json
import os
import re
import sys

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Row and what must hold: deja / crun, or a figure of deja alone.
TIMES = [
    ("run true", 0.50), ("run true, seccomp", 0.50), ("create + start + delete", 0.50), ("create", None),
    ("start", None), ("delete", 0.50), ("exec true", 0.50), ("exec true, seccomp", 0.50), ("state", 0.50),
    ("kill", 0.50), ("100 parallel creates", 0.50),
]
VERBS = ["run true", "run true, seccomp", "create", "start", "exec true", "state", "list", "kill", "delete"]
MEMORY_MOST, CALLS_MOST, BINARY_MOST, SMALLEST_MOST = 2048, 250, 4 << 20, 512


def print_table(head, rows):
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells):
        first, *others = zip(cells, widths)
        return " | ".join([first[0].ljust(first[1])] + [cell.rjust(width) for cell, width in others])

    print(f"| {line(head)} |")
    print("|" + "|".join(["-" * (widths[0] + 2)] + ["-" * (width + 1) + ":" for width in widths[1:]]) + "|")
    for row in rows:
        print(f"| {line(row)} |")
    print()


def milliseconds(place):
    return f"{place['median'] / 1e6:.2f} / {place['minimum'] / 1e6:.2f}" if place else "-"


def ratio(columns, kind):
    if "deja" not in columns or "crun" not in columns:
        return None
    return columns["deja"][kind] / columns["crun"][kind]


def verdict(value, most):
    if most is None or value is None:
        return ""
    return f"{'yes' if value <= most else 'NO'}: ≤ {most:.2f}".removesuffix(".00")


def timed(result, names, what, rows):
    head = [f"{what}: median / minimum", *names, "deja / crun", "must"]
    lines = []
    for row, most in rows:
        columns = result.get(row)
        if columns:
            ratios = [ratio(columns, kind) for kind in ("median", "minimum")]
            shown = " / ".join(f"{value:.2f}" for value in ratios) if None not in ratios else "-"
            lines.append([row, *(milliseconds(columns.get(name)) for name in names), shown, verdict(ratios[0], most)])
    print_table(head, lines)


def floor_table(result, what):
    columns = result["run true"]
    head = [f"the floor, {what}, ms", "median / minimum", "deja / floor"]
    lines = []
    meanings = {"floor": "the same namespaces, exec, wait", "without network": "without the network namespace",
                "no namespace": "clone, exec, wait"}
    for column, meaning in meanings.items():
        ratios = [columns["deja"][kind] / columns[column][kind] for kind in ("median", "minimum")]
        lines.append([meaning, milliseconds(columns[column]), " / ".join(f"{value:.2f}" for value in ratios)])
    print_table(head, lines)


def counted(figures, names, what, most):
    lines = []
    for verb in VERBS:
        columns = figures.get(f"{what}, {verb}", {})
        values = [columns.get(name) for name in names]
        if any(value is not None for value in values):
            bound = most if what.startswith("peak") or verb == "run true" else None
            lines.append([verb, *("-" if value is None else str(value) for value in values), verdict(values[0], bound)])
    if lines:
        print_table([what, *names, "must"], lines)
    else:
        print(f"{what}: not counted (this machine has no performance counters)\n")


def crowd(result, names, live):
    rows = [(f"{verb}, beside {size}", None) for verb in ("create", "state", "list") for size in (1, live)]
    timed(result, [name for name in names if " " not in name], "live containers, ms", rows)


def single(data, names):
    lines = [["binary, bytes", *(str(data["figures"]["binary, bytes"].get(name, "-")) for name in names),
              verdict(data["figures"]["binary, bytes"]["deja"], BINARY_MOST)]]
    smallest = data.get("smallest memory limit, KiB")
    if smallest:
        lines.append(["smallest memory limit for run true, KiB",
                      *(str(smallest.get(name) or "-") for name in names), verdict(smallest.get("deja"), SMALLEST_MOST)])
    print_table(["size", *names, "must"], lines)


def conditions(data):
    machine, load = data["machine"], data["load"]
    print(f"{machine['processors']} processors, {machine['model']}, Linux {machine['kernel']}; "
          f"load {load['before']} before, {load['after']} after; {data['runs']} rounds")


def all_tables(data):
    names = list(data["versions"])
    conditions(data)
    print("; ".join(f"{name}: {version}" for name, version in data["versions"].items()))
    for name, reason in data["absent"].items():
        print(f"{name} is absent: {reason}")
    print()
    timed(data["nanoseconds"], names, "time, ms", TIMES)
    floor_table(data["nanoseconds"], "time")
    timed(data["processor nanoseconds"], names, "processor time, ms", [(row, None) for row, _ in TIMES])
    floor_table(data["processor nanoseconds"], "processor time")
    counted(data["figures"], [*names, "floor"], "system calls", CALLS_MOST)
    counted(data["figures"], [*names, "floor"], "peak memory, KiB", MEMORY_MOST)
    counted(data["figures"], names, "instructions", None)
    if data["live"]:
        crowd(data["nanoseconds"], names, data["live"])
    single(data, names)


def short_table(data):
    names = [name for name in data["versions"] if " " not in name]
    conditions(data)
    print()
    rows = ["run true", "run true, seccomp", "create + start + delete", "exec true", "state", "kill", "delete",
            "100 parallel creates"]
    lines = []
    for row in rows:
        columns = data["nanoseconds"].get(row, {})
        ratios = [ratio(columns, kind) for kind in ("median", "minimum")]
        shown = " / ".join(f"{value:.2f}" for value in ratios) if None not in ratios else "-"
        lines.append([row, *(milliseconds(columns.get(name)) for name in names), shown])
    for row, what in (("system calls, run true", "system calls of `run true`"),
                      ("peak memory, KiB, run true", "peak memory of `run true`, KiB")):
        columns = data["figures"][row]
        lines.append([what, *(str(columns.get(name, "-")) for name in names), share(columns)])
    smallest = data.get("smallest memory limit, KiB")
    if smallest:
        lines.append(["smallest memory limit, KiB", *(str(smallest.get(name) or "-") for name in names), share(smallest)])
    print_table(["", *names, "deja / crun"], lines)


def share(columns):
    return f"{columns['deja'] / columns['crun']:.2f}" if columns.get("deja") and columns.get("crun") else "-"


def captured(table, data):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        table(data)
    return text.getvalue().rstrip()


def replace(path, text):
    path = os.path.join(PROJECT, path)
    with open(path, encoding="utf-8") as file:
        content = file.read()
    marked = re.compile("(<!-- bench -->\n).*?(\n<!-- /bench -->)", re.DOTALL)
    with open(path, "w", encoding="utf-8") as file:
        file.write(marked.sub(lambda match: match[1] + text + match[2], content))


def main():
    *flags, result = sys.argv[1:]
    with open(result, encoding="utf-8") as file:
        data = json.load(file)
    full = captured(all_tables, data)
    print(full)
    if "--write" in flags:
        replace("docs/speed.md", full)
        replace("README.md", captured(short_table, data))


if __name__ == "__main__":
    main()
