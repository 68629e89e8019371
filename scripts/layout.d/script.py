"""usage: script.py PROGRAM ADDRESSES: prints a linker script that puts the executed functions of PROGRAM first.

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
TAIL = """  }
}
INSERT BEFORE .text;
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


def main():
    program, addresses = sys.argv[1:]
    known = functions(program)
    begins = [begin for begin, _, _ in known]
    touched = set()
    with open(addresses, encoding="ascii") as lines:
        for address in {int(line, 16) for line in lines}:
            place = bisect.bisect_right(begins, address) - 1
            if place >= 0 and address < known[place][1]:
                touched.add(known[place])
    patterns = sorted({pattern(name) for _, _, name in touched} - {None})
    size = sum(end - begin for begin, end, _ in touched)
    print(f"script.py: {len(touched)} functions of {len(known)}, {size} bytes", file=sys.stderr)
    print(HEAD + "".join(f"    *(.text.{one} .text.unlikely.{one})\n" for one in patterns) + TAIL, end="")


main()
