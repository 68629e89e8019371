//! The architectures of `linux.seccomp.architectures` and what a filter must know about each: the token the
//! kernel reports, its numbering, how wide arguments are, and which architectures one kernel runs together.

use super::numbers::{Name, Numbering};

macro_rules! architectures {
    ($($arch:ident = $name:literal, $machine:literal | $bits:literal, $numbering:ident + $base:literal, $width:ident;)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Arch { $($arch,)* }

        impl Arch {
            pub const ALL: &[Arch] = &[$(Arch::$arch,)*];

            /// The name in config.json.
            pub const fn name(self) -> &'static str {
                match self { $(Arch::$arch => $name,)* }
            }

            const fn facts(self) -> Facts {
                match self {
                    $(Arch::$arch => Facts {
                        token: $machine | $bits,
                        numbering: Numbering::$numbering,
                        base: $base,
                        width: Width::$width,
                    },)*
                }
            }
        }
    };
}

#[derive(Clone, Copy)]
struct Facts {
    token: u32,
    numbering: Numbering,
    base: u32,
    width: Width,
}

// An architecture without a name here must not build: it would run containers without their filter.
const _: Arch = Arch::native();

/// How much of an argument is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    Bits32,
    Bits64,
}

const LITTLE_ENDIAN: u32 = 0x4000_0000;

/// The bit in the number that tells a call of x32 from one of x86-64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

// Name, ELF machine | 0x8000_0000 for 64 bits, 0x4000_0000 for little endian, 0x2000_0000 for MIPS n32 (the
// kernel's AUDIT_ARCH_*), numbering + base, width. x32 has the token of x86-64.
architectures! {
    X86 = "SCMP_ARCH_X86", 3 | 0x4000_0000, X86 + 0, Bits32;
    X86_64 = "SCMP_ARCH_X86_64", 62 | 0xc000_0000, X86_64 + 0, Bits64;
    X32 = "SCMP_ARCH_X32", 62 | 0xc000_0000, X32 + 0x4000_0000, Bits32;
    Arm = "SCMP_ARCH_ARM", 40 | 0x4000_0000, Arm + 0, Bits32;
    Aarch64 = "SCMP_ARCH_AARCH64", 183 | 0xc000_0000, Aarch64 + 0, Bits64;
    Mips = "SCMP_ARCH_MIPS", 8 | 0, Mips + 4000, Bits32;
    Mips64 = "SCMP_ARCH_MIPS64", 8 | 0x8000_0000, Mips64 + 5000, Bits64;
    Mips64N32 = "SCMP_ARCH_MIPS64N32", 8 | 0xa000_0000, Mips64N32 + 6000, Bits32;
    Mipsel = "SCMP_ARCH_MIPSEL", 8 | 0x4000_0000, Mips + 4000, Bits32;
    Mipsel64 = "SCMP_ARCH_MIPSEL64", 8 | 0xc000_0000, Mips64 + 5000, Bits64;
    Mipsel64N32 = "SCMP_ARCH_MIPSEL64N32", 8 | 0xe000_0000, Mips64N32 + 6000, Bits32;
    Ppc = "SCMP_ARCH_PPC", 20 | 0, Ppc + 0, Bits32;
    Ppc64 = "SCMP_ARCH_PPC64", 21 | 0x8000_0000, Ppc64 + 0, Bits64;
    Ppc64le = "SCMP_ARCH_PPC64LE", 21 | 0xc000_0000, Ppc64 + 0, Bits64;
    S390 = "SCMP_ARCH_S390", 22 | 0, S390 + 0, Bits32;
    S390x = "SCMP_ARCH_S390X", 22 | 0x8000_0000, S390x + 0, Bits64;
    Parisc = "SCMP_ARCH_PARISC", 15 | 0, Parisc + 0, Bits32;
    Parisc64 = "SCMP_ARCH_PARISC64", 15 | 0x8000_0000, Parisc64 + 0, Bits64;
    Riscv64 = "SCMP_ARCH_RISCV64", 243 | 0xc000_0000, Riscv64 + 0, Bits64;
    Loongarch64 = "SCMP_ARCH_LOONGARCH64", 258 | 0xc000_0000, Loongarch64 + 0, Bits64;
    M68k = "SCMP_ARCH_M68K", 4 | 0, M68k + 0, Bits32;
    Sh = "SCMP_ARCH_SH", 42 | 0x4000_0000, Sh + 0, Bits32;
    Sheb = "SCMP_ARCH_SHEB", 42 | 0, Sh + 0, Bits32;
}

impl Arch {
    /// The architecture this program was built for.
    pub const fn native() -> Arch {
        const BIG_ENDIAN: bool = cfg!(target_endian = "big");
        match std::env::consts::ARCH.as_bytes() {
            b"x86" => Arch::X86,
            b"x86_64" if cfg!(target_pointer_width = "32") => Arch::X32,
            b"x86_64" => Arch::X86_64,
            b"arm" => Arch::Arm,
            b"aarch64" => Arch::Aarch64,
            b"mips" if BIG_ENDIAN => Arch::Mips,
            b"mips" => Arch::Mipsel,
            b"mips64" if BIG_ENDIAN => Arch::Mips64,
            b"mips64" => Arch::Mipsel64,
            b"powerpc" => Arch::Ppc,
            b"powerpc64" if BIG_ENDIAN => Arch::Ppc64,
            b"powerpc64" => Arch::Ppc64le,
            b"s390x" => Arch::S390x,
            b"riscv64" => Arch::Riscv64,
            b"loongarch64" => Arch::Loongarch64,
            b"m68k" => Arch::M68k,
            _ => panic!("no seccomp architecture has this name"),
        }
    }

    pub fn from_name(name: &str) -> Option<Arch> {
        Self::ALL.iter().copied().find(|arch| arch.name() == name)
    }

    /// `seccomp_data.arch` of its calls.
    pub const fn token(self) -> u32 {
        self.facts().token
    }

    pub const fn width(self) -> Width {
        self.facts().width
    }

    pub const fn is_big_endian(self) -> bool {
        self.token() & LITTLE_ENDIAN == 0
    }

    /// The number of the call `name`, as the kernel reports it.
    pub fn number(self, name: &str) -> Option<u32> {
        super::numbers::find(name).and_then(|name| self.number_of(name))
    }

    pub(super) fn number_of(self, name: Name) -> Option<u32> {
        // The private calls of ARM stand outside of every base; ARM's base is 0.
        name.number(self.facts().numbering).map(|number| number + self.facts().base)
    }

    /// Whether one kernel can serve processes of both. Calls of any other architecture cannot occur, so a
    /// filter need not spend instructions on them.
    pub fn shares_a_kernel_with(self, other: Arch) -> bool {
        self.kernel() == other.kernel()
    }

    const fn kernel(self) -> Arch {
        match self {
            Arch::X86 | Arch::X32 => Arch::X86_64,
            Arch::Arm => Arch::Aarch64,
            Arch::Mips | Arch::Mips64N32 => Arch::Mips64,
            Arch::Mipsel | Arch::Mipsel64N32 => Arch::Mipsel64,
            Arch::Ppc => Arch::Ppc64,
            Arch::S390 => Arch::S390x,
            Arch::Parisc => Arch::Parisc64,
            whole => whole,
        }
    }

    /// Where `name` is also reached through socketcall(2) or ipc(2): the number of that call and the value
    /// of its first argument. Where both doors exist a rule for `name` has to guard both.
    pub(super) fn second_door(self, name: Name) -> Option<(u32, u64)> {
        use Numbering::*;
        if !matches!(self.facts().numbering, X86 | M68k | Mips | Ppc | Ppc64 | S390 | S390x | Sh) {
            return None;
        }
        let (door, function) = match name.as_str() {
            "socket" => ("socketcall", 1),
            "bind" => ("socketcall", 2),
            "connect" => ("socketcall", 3),
            "listen" => ("socketcall", 4),
            "accept" => ("socketcall", 5),
            "getsockname" => ("socketcall", 6),
            "getpeername" => ("socketcall", 7),
            "socketpair" => ("socketcall", 8),
            "send" => ("socketcall", 9),
            "recv" => ("socketcall", 10),
            "sendto" => ("socketcall", 11),
            "recvfrom" => ("socketcall", 12),
            "shutdown" => ("socketcall", 13),
            "setsockopt" => ("socketcall", 14),
            "getsockopt" => ("socketcall", 15),
            "sendmsg" => ("socketcall", 16),
            "recvmsg" => ("socketcall", 17),
            "accept4" => ("socketcall", 18),
            "recvmmsg" => ("socketcall", 19),
            "sendmmsg" => ("socketcall", 20),
            "semop" => ("ipc", 1),
            "semget" => ("ipc", 2),
            "semctl" => ("ipc", 3),
            "semtimedop" => ("ipc", 4),
            "msgsnd" => ("ipc", 11),
            "msgrcv" => ("ipc", 12),
            "msgget" => ("ipc", 13),
            "msgctl" => ("ipc", 14),
            "shmat" => ("ipc", 21),
            "shmdt" => ("ipc", 22),
            "shmget" => ("ipc", 23),
            "shmctl" => ("ipc", 24),
            _ => return None,
        };
        self.number(door).map(|number| (number, function))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_architecture() {
        use Arch::*;
        let table = [
            ("read", [(X86_64, 0), (X86, 3), (Aarch64, 63), (Mips, 4003), (Mips64, 5000), (Mips64N32, 6000)]),
            ("write", [(S390x, 4), (S390, 4), (Ppc64le, 4), (Parisc, 4), (M68k, 4), (Sh, 4)]),
            (
                "clone3",
                [(X86_64, 435), (X32, 0x4000_01b3), (Mipsel, 4435), (Riscv64, 435), (Arm, 435), (S390, 435)],
            ),
            (
                "ioctl",
                [(X86_64, 16), (X32, 0x4000_0202), (X86, 54), (Loongarch64, 29), (Sheb, 54), (Parisc64, 54)],
            ),
            ("set_tls", [(Arm, 0x0f_0005); 6]),
            (
                "listns",
                [(X86_64, 470), (X86, 470), (Aarch64, 470), (Mips64, 5470), (Riscv64, 470), (S390x, 470)],
            ),
            (
                "file_setattr",
                [(X86_64, 469), (X32, 0x4000_01d5), (Arm, 469), (Ppc64, 469), (M68k, 469), (Sh, 469)],
            ),
        ];
        for (name, expected) in table {
            for (arch, number) in expected {
                assert_eq!(arch.number(name), Some(number), "{name} on {arch:?}");
            }
        }
        assert_eq!(X86_64.number("socketcall"), None);
        assert_eq!(Aarch64.number("open"), None);
        assert_eq!(Sh.number("clone3"), None);
        assert_eq!(X86_64.number("no_such_call"), None);
        assert_eq!(X86_64.number(""), None);
    }

    /// The kernel never renumbers, so whatever headers a machine has must agree with the table; only newer
    /// headers may know more names.
    #[test]
    fn the_headers_of_this_machine_agree() {
        let headers =
            [(Arch::X86_64, "unistd_64.h"), (Arch::X86, "unistd_32.h"), (Arch::X32, "unistd_x32.h")];
        let mut compared = 0;
        for (arch, header) in headers {
            let path = format!("/usr/include/x86_64-linux-gnu/asm/{header}");
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            for line in text.lines().filter_map(|line| line.strip_prefix("#define __NR_")) {
                let (name, value) = line.split_once(' ').expect("a name and a number");
                let value = value.trim_matches(['(', ')', ' ']).replace("__X32_SYSCALL_BIT +", "");
                let number: u32 = value.trim().parse().expect("a number");
                let number = if arch == Arch::X32 { number | X32_BIT } else { number };
                if let Some(known) = arch.number(name) {
                    assert_eq!(known, number, "{name} on {arch:?}");
                    compared += 1;
                }
            }
            assert!(compared > 300, "{path} was not read");
        }
    }

    #[test]
    fn the_table_is_sorted_and_no_number_has_two_names() {
        use super::super::numbers::{all, find};
        assert!(all().is_sorted_by(|a, b| a.as_str() < b.as_str()));
        for name in all() {
            assert_eq!(find(name.as_str()), Some(name));
        }
        for arch in Arch::ALL {
            let mut numbers: Vec<u32> = all().filter_map(|name| arch.number_of(name)).collect();
            let count = numbers.len();
            assert!(count > 300, "{arch:?} has {count} calls");
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count, "{arch:?}");
        }
    }

    #[test]
    fn names_round_trip_and_tokens_are_the_kernel_s() {
        for arch in Arch::ALL {
            assert_eq!(Arch::from_name(arch.name()), Some(*arch));
        }
        assert_eq!(Arch::from_name("SCMP_ARCH_VAX"), None);
        assert_eq!(Arch::X86_64.token(), 0xc000_003e);
        assert_eq!(Arch::X32.token(), 0xc000_003e);
        assert_eq!(Arch::X86.token(), 0x4000_0003);
        assert_eq!(Arch::Aarch64.token(), 0xc000_00b7);
        assert_eq!(Arch::Riscv64.token(), 0xc000_00f3);
        assert_eq!(Arch::S390x.token(), 0x8000_0016);
        assert_eq!(Arch::Mipsel64N32.token(), 0xe000_0008);
        assert!(Arch::S390x.is_big_endian() && !Arch::Ppc64le.is_big_endian());
    }

    #[test]
    fn socket_has_a_second_door_on_old_architectures() {
        let socket = super::super::numbers::find("socket").unwrap();
        assert_eq!(Arch::X86.second_door(socket), Some((102, 1)));
        assert_eq!(Arch::Mips.second_door(socket), Some((4102, 1)));
        assert_eq!(Arch::X86_64.second_door(socket), None);
        assert_eq!(Arch::Arm.second_door(socket), None);
        let shmctl = super::super::numbers::find("shmctl").unwrap();
        assert_eq!(Arch::Ppc64le.second_door(shmctl), Some((117, 24)));
    }
}
