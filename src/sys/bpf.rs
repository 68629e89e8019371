//! bpf(2): loading a device program, attaching it to a cgroup, and looking at what is attached.
//!
//! The attributes are our own `repr(C)` structures: a prefix of the kernel's union, the rest of which it
//! takes as zero.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{AsFd, AsRawFd, BorrowedFd, Call, FromRawFd, OwnedFd, Result, last_errno};

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const PROG_QUERY: i32 = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// The kernel attaches at most this many programs to one cgroup.
const MOST_ATTACHED: usize = 64;

/// One eBPF instruction as the kernel reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Instruction {
    pub code: u8,
    registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

impl Instruction {
    pub const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        let registers = if cfg!(target_endian = "little") {
            destination | source << 4
        } else {
            source | destination << 4
        };
        Self { code, registers, offset, immediate }
    }

    pub const fn destination(self) -> u8 {
        if cfg!(target_endian = "little") { self.registers & 15 } else { self.registers >> 4 }
    }

    pub const fn source(self) -> u8 {
        if cfg!(target_endian = "little") { self.registers >> 4 } else { self.registers & 15 }
    }
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// To the end of the kernel's structure: Linux 6.17 to 7.1 write `revision` whatever size they are told.
#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

/// # Safety
/// `T` is the start of the attribute `command` takes, and the addresses in it are valid for the call.
unsafe fn bpf<T>(command: i32, attribute: &mut T) -> Result<i32> {
    let size = std::mem::size_of::<T>();
    // SAFETY: the caller vouches for the attribute and for what it points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size) };
    if result < 0 { Err(Call::Bpf.fault(last_errno())) } else { Ok(result as i32) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Loads and verifies a device program.
pub fn load_device_program(instructions: &[Instruction]) -> Result<OwnedFd> {
    let mut attribute = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"deja_devices\0\0\0\0",
    };
    // SAFETY: instructions and license outlive the call, and the count is theirs.
    let fd = unsafe { bpf(PROG_LOAD, &mut attribute) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a cgroup beside what is there, or in place of `replaced`, which the kernel
/// does in one step (since Linux 5.6; before, it answers EINVAL).
pub fn attach_device_program(
    cgroup: impl AsFd,
    program: impl AsFd,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attribute = Attach {
        target: number(cgroup.as_fd()),
        program: number(program.as_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map_or(0, number),
    };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(PROG_ATTACH, &mut attribute) }.map(drop)
}

pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    let mut attribute = Attach {
        target: number(cgroup.as_fd()),
        program: number(program.as_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
        replaced: 0,
    };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(PROG_DETACH, &mut attribute) }.map(drop)
}

/// Writes the ids of the device programs attached to a cgroup itself to `ids`; gives their number.
pub fn device_programs(cgroup: impl AsFd, ids: &mut [u32; MOST_ATTACHED]) -> Result<usize> {
    let mut attribute = Query {
        target: number(cgroup.as_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MOST_ATTACHED as u32,
        padding: 0,
        program_flags: 0,
        link_ids: 0,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: `ids` is writable for `count` numbers and outlives the call.
    unsafe { bpf(PROG_QUERY, &mut attribute) }?;
    Ok((attribute.count as usize).min(MOST_ATTACHED))
}

/// A descriptor of the loaded program with this id.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let mut attribute = [id, 0, 0, 0];
    // SAFETY: the attribute holds no address.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attribute) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// RLIMIT_MEMLOCK as it was before `raise`; dropping it puts the limit back.
pub struct LockedMemory(Rlimit);

impl LockedMemory {
    /// Raises the limit as far as this process may. Kernels before 5.11 charge programs to it.
    pub fn raise() -> Self {
        let before = getrlimit(Resource::Memlock);
        let unlimited = Rlimit { current: None, maximum: None };
        if setrlimit(Resource::Memlock, unlimited).is_err() {
            let most = Rlimit { current: before.maximum, maximum: before.maximum };
            // Best effort: what then does not fit is reported by the load that follows.
            let _ignored = setrlimit(Resource::Memlock, most);
        }
        Self(before)
    }
}

impl Drop for LockedMemory {
    fn drop(&mut self) {
        // Lowering one's own limit is always allowed; there is nothing else to do if it fails.
        let _ignored = setrlimit(Resource::Memlock, self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_what_the_kernel_reads() {
        assert_eq!(std::mem::size_of::<Instruction>(), 8);
        let instruction = Instruction::new(0x61, 2, 1, 4, 0);
        assert_eq!((instruction.destination(), instruction.source()), (2, 1));
        // struct bpf_attr: prog_name starts at byte 48, the revision of a query at byte 56.
        assert_eq!(std::mem::offset_of!(Load, name), 48);
        assert_eq!(std::mem::offset_of!(Query, revision), 56);
    }
}
