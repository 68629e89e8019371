"""Prints the medians of measure.py's figures as a table, and puts it between the markers of a page.

usage: table.py RESULT [PAGE]
"""
import json
import re
import statistics
import sys

with open(sys.argv[1]) as file:
    results = json.load(file)
reactions = [result["reactions"] for result in results if "reactions" in result]
results = [result for result in results if "case" in result]
cases = list(dict.fromkeys(result["case"] for result in results))
modes = list(dict.fromkeys(result["mode"] for result in results))


def median(case, mode, figure):
    values = [result[figure] for result in results if (result["case"], result["mode"]) == (case, mode)]
    return statistics.median(values)


runs = 1 + max(result["run"] for result in results)
lines = [f"Worst error of anybody's share, median of {runs} (in parentheses: Jain's index; CPUs used)", ""]
lines.append("| scenario | " + " | ".join(modes) + " |")
lines.append("|---|" + "---:|" * len(modes))
for case in cases:
    cells = [f"{median(case, mode, 'worst') * 100:.1f} % ({median(case, mode, 'jain'):.4f}; "
             f"{median(case, mode, 'used'):.2f})" for mode in modes]
    lines.append(f"| {case} | " + " | ".join(cells) + " |")
for found in reactions:
    lines.append("")
    lines.append("Milliseconds until the weights were written, the middle one of " + str(len(found["exit"])) + " (the longest): " +
                 ", ".join(f"after an {kind} {statistics.median(times):.1f} ({max(times):.1f})" for kind, times in found.items()))
table = "\n".join(lines)
print(table)
if len(sys.argv) > 2:
    with open(sys.argv[2]) as file:
        page = file.read()
    marked = re.compile(r"(<!-- figures -->\n).*?(\n<!-- /figures -->)", re.S)
    if not marked.search(page):
        sys.exit(f"{sys.argv[2]} has no markers for the figures")
    with open(sys.argv[2], "w") as file:
        file.write(marked.sub(lambda match: match.group(1) + table + match.group(2), page))
