"""usage: script.py PROGRAM ADDRESSES MAP [OLD]: prints a linker script that puts the executed functions of PROGRAM first.

MAP is the linker's, which tells the archive members of a C library; a line that OLD has is kept.
Names are patterns without the hashes that differ between builds and compilers; one that matches nothing does no harm.
"""

import bisect
import re
import subprocess
import sys

HEAD = """/* Made by scripts/layout: the functions that containers' lives execute come first in the program, beside each other.
 * The kernel maps sixteen pages around each that is touched; what is scattered costs memory and page faults. */
SECTIONS
{
  .text.first :
  {
"""
# The start of a static program on glibc reads all tables for unwinding from __EH_FRAME_BEGIN__ on, to register what
# .eh_frame_hdr tells as well: 300 KB touched for nothing. An end right behind its begin leaves nothing to read.
TAIL = """  }
}
INSERT BEFORE .text;
SECTIONS
{
  .eh_frame_begin : { KEEP(*crtbeginT.o(.eh_frame)) LONG(0) }
}
INSERT BEFORE .eh_frame;
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
        return re.sub(r"\.\d+$", "", re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", name)) + "*"
    return None


def members(linker_map):
    """The code of archive members, by address: (begin, end, line for the script)."""
    found = []
    with open(linker_map, encoding="utf-8") as lines:
        # A long section name has a line of its own.
        text = re.sub(r"^( \.text\S*)\n +0x", r"\1 0x", lines.read(), flags=re.MULTILINE)
    for begin, size, archive, member in re.findall(
            r"^ \.text\S* +0x([0-9a-f]+) +0x([0-9a-f]+) \S*/(\S+?\.(?:a|rlib))\((\S+)\)$", text, re.MULTILINE):
        archive = re.sub(r"-[0-9a-f]{16}\.", "-*.", archive)
        found.append((int(begin, 16), int(begin, 16) + int(size, 16), f"*{archive}:{member}(.text .text.*)"))
    return sorted(found)


class Ranges:
    def __init__(self, ranges):
        self.ranges = ranges
        self.begins = [begin for begin, _, _ in ranges]

    def at(self, address):
        place = bisect.bisect_right(self.begins, address) - 1
        return self.ranges[place] if place >= 0 and address < self.ranges[place][1] else None


def main():
    program, addresses, linker_map, *old = sys.argv[1:]
    known, archived = Ranges(functions(program)), Ranges(members(linker_map))
    touched, names = set(), set()
    with open(addresses, encoding="ascii") as lines:
        for address in {int(line, 16) for line in lines}:
            function, member = known.at(address), archived.at(address)
            touched.add(function or member)
            name = function and pattern(function[2])
            if name:
                names.add(f"*(.text.{name} .text.unlikely.{name})")
            elif member:
                names.add(member[2])
    touched.discard(None)
    for path in old:
        with open(path, encoding="ascii") as lines:
            names.update(line.strip() for line in lines if line.startswith("    *"))
    size = sum(end - begin for begin, end, _ in touched)
    print(f"script.py: {len(touched)} functions of {len(known.ranges)}, {size} bytes", file=sys.stderr)
    print(HEAD + "".join(f"    {name}\n" for name in sorted(names)) + TAIL, end="")


main()
