# shellcheck shell=bash
# Sourced by the scripts here: where things are, how they speak, and how deja is built.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034
target=${CARGO_TARGET_DIR:-$here/target}
name=${0##*/}

fail() { echo "$name: $*" >&2; exit 1; }
say() { echo "$name: $*" >&2; }

# The comment block at the top of a script is its manual.
usage() { sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p}}' "$0"; exit "${1:-0}"; }

need_root() { [[ $EUID -eq 0 ]] || fail "needs root (try: sudo $0)"; }

need_tool() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || fail "needs \`$tool\`, which is not installed (scripts/setup installs it)"
    done
}

# sudo's PATH leaves out a cargo that rustup installed for the user or for root.
find_cargo() {
    local home
    for home in "${CARGO_HOME:-}" "$HOME/.cargo" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)/.cargo"; do
        [[ -x $home/bin/cargo ]] && PATH=$home/bin:$PATH && break
    done
    command -v cargo >/dev/null
}

# Every artefact is linked statically, so that a binary built here runs in any bed. musl starts in a tenth of the time
# of a static glibc; where Rust has no library for it (Debian's own packages), glibc it is. Addresses are fixed, because
# moving the program costs every start, and the child, a tenth of its page faults; what starts containers lies together
# (scripts/layout, docs/speed.md). The explicit target keeps the flags away from procedural macros.
static_build() {
    find_cargo || fail "needs cargo, which is not installed (scripts/setup installs it)"
    local host musl
    host=$(rustc -vV | sed -n 's/^host: //p')
    musl=${host%%-*}-unknown-linux-musl
    triple=$host
    ! rust_knows "$musl" || triple=$musl
    local flags="-C target-feature=+crt-static -C relocation-model=static -C link-arg=-Wl,-T,$here/scripts/layout.ld"
    export CARGO_BUILD_TARGET=$triple RUSTFLAGS=$flags CARGO_TERM_COLOR=never
}

# What the program gets beside that, and tests do not: no tables for unwinding, which a test that fails does; and names that tell
# every type, so that scripts/layout.ld means one instance of a generic function and not all of them. A function that is marked
# as worth copying into its callers is copied no more readily than any other: by itself `opt-level = "s"` makes an exception
# for them that takes a fortieth of the program.
program_build() {
    static_build
    RUSTFLAGS+=" -C symbol-mangling-version=v0 -C link-arg=-Wl,-T,$here/scripts/tables.ld -C llvm-args=-inlinehint-threshold=50"
}

# True when programs can be built for target $1.
rust_knows() { compgen -G "$(rustc --print target-libdir --target "$1")/libstd-*.rlib" >/dev/null; }
