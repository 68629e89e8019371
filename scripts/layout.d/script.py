"""usage: script.py PROGRAM ADDRESSES MAP [OLD]: prints a linker script that puts the executed functions of PROGRAM first.

ADDRESSES is a directory with a file for each verb; MAP is the linker's, which tells the archive members of a C library; a line
that OLD has is kept. Names are patterns without what differs between builds and compilers; one that matches nothing does no harm.
"""

import bisect
import os
import re
import subprocess
import sys

HEAD = """/* Made by scripts/layout: the functions that containers' lives execute come first in the program, those of the shortest verb
 * before those of longer ones, and then the modules they are of. The kernel maps sixteen pages around each that is touched;
 * what is scattered costs memory and page faults. */
SECTIONS
{
  .fini : { KEEP(*(SORT_NONE(.fini))) }
  .text.first :
  {
    *crt*.o(.text .text.*)
"""
# What is not named, because it is new or was merged into others before, lies beside what is.
MODULES = """    /* the modules of those above */
"""
# Texts and constants have no names that last; the tables of branches have that of their function. What is left, the large
# tables and those of code that is seldom executed, follows.
TEXTS = """  }
}
INSERT BEFORE .text;
SECTIONS
{
  .rodata.first :
  {
"""
TAIL = """    *(.rodata..L* .rodata.str* .rodata.cst*)
  }
}
INSERT BEFORE .rodata;
"""


def functions(program):
    """Of the program, by address: (begin, end, name)."""
    listing = subprocess.run(["nm", "-S", program], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in listing.splitlines()]
    found = [(int(row[0], 16), int(row[0], 16) + int(row[1], 16), row[3])
             for row in rows if len(row) == 4 and row[2] in "tTwW"]
    return sorted(found)


def pattern(name):
    """Without hashes; None for what is not Rust's and has no section of its own."""
    if name.startswith("_ZN"):
        return re.sub(r"17h[0-9a-f]{16}E(\..*)?$", "17h*", name)
    if name.startswith("_R"):
        return re.sub(r"\.(llvm\.)?\d+$", "", re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", name)) + "*"
    return None


def members(linker_map):
    """The code of archive members, by address: (begin, end, line for the script)."""
    found = []
    with open(linker_map, encoding="utf-8") as lines:
        # A long section name has a line of its own.
        text = re.sub(r"^( \.text\S*)\n +0x", r"\1 0x", lines.read(), flags=re.MULTILINE)
    # GNU's lines, and those of LLVM.
    gnu = r"^ \.text\S* +0x([0-9a-f]+) +0x([0-9a-f]+) \S*/(\S+?\.(?:a|rlib))\((\S+)\)$"
    llvm = r"^ *([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+) +\d+ +\S*/(\S+?\.(?:a|rlib))\((\S+)\):\(\.text\S*\)$"
    for begin, size, archive, member in re.findall(gnu, text, re.MULTILINE) + re.findall(llvm, text, re.MULTILINE):
        archive = re.sub(r"-([0-9a-f]{16}|[0-9.]+)\.", "-*.", archive)
        found.append((int(begin, 16), int(begin, 16) + int(size, 16), f"*{archive}:{member}(.text .text.*)"))
    return sorted(found)


class Ranges:
    def __init__(self, ranges):
        self.ranges = ranges
        self.begins = [begin for begin, _, _ in ranges]

    def at(self, address):
        place = bisect.bisect_right(self.begins, address) - 1
        return self.ranges[place] if place >= 0 and address < self.ranges[place][1] else None


def module(name):
    """The pattern for all of the module that `name` is of, if it is deja's: two levels of commands, one of others."""
    place = re.match(r"_R[A-Za-z]*?(?:Nt)*Cs\*_4deja(\d+[a-z_]+)(\d+[a-z_]+)?", name)
    if not place:
        return None
    parts = place.groups(default="") if place[1] == "7command" else (place[1], "")
    return f"*(.text._R*Cs*_4deja{parts[0]}{parts[1]}*)"


def main():
    program, addresses, linker_map, *old = sys.argv[1:]
    known, archived = Ranges(functions(program)), Ranges(members(linker_map))
    executed = {}
    for verb in os.listdir(addresses):
        with open(os.path.join(addresses, verb), encoding="ascii") as lines:
            executed[verb] = {int(line, 16) for line in lines}
    verbs = {}
    for number, verb in enumerate(sorted(executed, key=lambda verb: len(executed[verb]))):
        for place in {known.at(address) or archived.at(address) for address in executed[verb]} - {None}:
            verbs.setdefault(place, []).append(number)
    code, tables, modules = [], [], set()
    for place in sorted(verbs, key=lambda place: (verbs[place][0], -len(verbs[place]), verbs[place], place[2])):
        name = pattern(place[2])
        if name:
            code.append(f"*(.text.{name} .text.unlikely.{name})")
            tables.append(f"*(.rodata.{name})")
            modules.add(module(name))
        elif archived.at(place[0]):
            code.append(archived.at(place[0])[2])
    sections = [code, sorted(modules - {None}), tables]
    for path in old:
        with open(path, encoding="ascii") as script:
            keep(script.read(), sections)
    size = sum(end - begin for begin, end, _ in verbs)
    print(f"script.py: {len(verbs)} functions of {len(known.ranges)}, {size} bytes", file=sys.stderr)
    code, modules, tables = ("".join(f"    {line}\n" for line in dict.fromkeys(lines)) for lines in sections)
    print(HEAD + code + MODULES + modules + TEXTS + tables + TAIL, end="")


def keep(script, sections):
    """Adds the lines of an older script behind the new ones."""
    code, _, rest = script.removeprefix(HEAD).partition(MODULES)
    modules, _, tables = rest.partition(TEXTS)
    for lines, text in zip(sections, (code, modules, tables.removesuffix(TAIL))):
        lines += [line.strip() for line in text.splitlines() if line.startswith("    *")]


main()
