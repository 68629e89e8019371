//! The heap: an arena that is part of the program, and forbidden between clone and exec.
//!
//! Most verbs live for a millisecond and need some tens of kilobytes. They take them from a fixed arena, one after the
//! other, which costs no system call; only what does not fit goes to the system's allocator.
//!
//! The child is a copy of one thread; another thread of the parent could have held the allocator's lock. deja has
//! no threads there, and this makes sure that nobody relies on it: a child that allocates dies loudly.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// From here on this process only makes system calls. There is no way back but exec or exit.
pub(super) fn forbid() {
    FORBIDDEN.store(true, Relaxed);
}

/// Enough for every verb of a usual container; what is not used is never touched and costs no memory.
const ARENA: usize = 256 * 1024;

/// Blocks begin where a processor's widest type may lie, and grow from the start of the arena.
#[repr(align(64))]
struct Heap {
    arena: UnsafeCell<[u8; ARENA]>,
    /// How much of the arena is given away.
    used: AtomicUsize,
}

// SAFETY: a part of the arena is given to one caller only, which `used` decides atomically; nothing else of it is
// looked at.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap { arena: UnsafeCell::new([0; ARENA]), used: AtomicUsize::new(0) };

impl Heap {
    fn start(&self) -> *mut u8 {
        self.arena.get().cast()
    }

    /// Where in the arena a block begins; None: it is the system's.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        let offset = (pointer as usize).wrapping_sub(self.start() as usize);
        (offset < ARENA).then_some(offset)
    }

    fn take(&self, layout: Layout) -> Option<*mut u8> {
        if layout.align() > align_of::<Self>() {
            return None;
        }
        let mut used = self.used.load(Relaxed);
        loop {
            let offset = used.next_multiple_of(layout.align());
            let end = offset.checked_add(layout.size()).filter(|end| *end <= ARENA)?;
            match self.used.compare_exchange_weak(used, end, Relaxed, Relaxed) {
                // SAFETY: the offset lies in the arena.
                Ok(_) => return Some(unsafe { self.start().add(offset) }),
                Err(now) => used = now,
            }
        }
    }

    /// Only the block given away last can change its end. False: another one was.
    fn move_end(&self, offset: usize, from: usize, to: usize) -> bool {
        let end = offset + to;
        end <= ARENA && self.used.compare_exchange(offset + from, end, Relaxed, Relaxed).is_ok()
    }
}

fn check() {
    if FORBIDDEN.load(Relaxed) {
        const MESSAGE: &[u8] = b"deja: bug: heap use between clone and exec\n";
        // SAFETY: writes bytes that live as long as the program.
        unsafe { libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
        // SAFETY: abort has no preconditions.
        unsafe { libc::abort() }
    }
}

// SAFETY: blocks of the arena do not overlap, are as large and as aligned as asked for, and stay where they are until
// they are given back; all others come from the system's allocator and go back to it. The check does not allocate.
unsafe impl GlobalAlloc for Heap {
    // Not inlined: there are thousands of calls, and the program's size is memory too.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller upholds the contract of `alloc`.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check();
        match self.take(layout) {
            Some(pointer) => {
                // SAFETY: the block is as large as the layout says; it may have been used before.
                unsafe { pointer.write_bytes(0, layout.size()) };
                pointer
            }
            // SAFETY: the caller upholds the contract of `alloc_zeroed`.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        check();
        match self.offset(pointer) {
            Some(offset) => {
                self.move_end(offset, layout.size(), 0);
            }
            // SAFETY: it is not of the arena, so the caller got it from the system's allocator.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check();
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: it is not of the arena, so the caller got it from the system's allocator.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        if self.move_end(offset, layout.size(), size) {
            return pointer;
        }
        if size <= layout.size() {
            return pointer;
        }
        // SAFETY: the alignment was valid, and the caller promises the same of the new size.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the caller promises that the new size is not zero.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both blocks are at least as large as the old one was, and they are different blocks.
            unsafe { new.copy_from_nonoverlapping(pointer, layout.size()) };
        }
        new
    }
}

#[cfg(test)]
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "one promise covers a whole story")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fresh() -> Box<Heap> {
        Box::new(Heap { arena: UnsafeCell::new([0; ARENA]), used: AtomicUsize::new(0) })
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn the_last_block_grows_shrinks_and_goes_in_place() {
        let heap = fresh();
        // SAFETY: every block is used and given back as it was got.
        unsafe {
            let first = heap.alloc(layout(10, 1));
            let last = heap.alloc(layout(100, 8));
            assert_eq!(heap.realloc(last, layout(100, 8), 200), last);
            assert_ne!(heap.realloc(first, layout(10, 1), 20), first);
        }
    }

    #[test]
    fn what_does_not_fit_comes_from_the_system() {
        let heap = fresh();
        // SAFETY: every block is given back as it was got.
        unsafe {
            for layout in [layout(ARENA + 1, 1), layout(8, 4096)] {
                let block = heap.alloc(layout);
                assert!(heap.offset(block).is_none());
                heap.dealloc(block, layout);
            }
        }
        assert_eq!(heap.used.load(Relaxed), 0);
    }

    proptest! {
        /// Blocks keep their content whatever happens to others.
        #[test]
        fn blocks_do_not_overlap(actions in prop::collection::vec((0_usize..20, 1_usize..5000, 0_u32..7), 1..300)) {
            let heap = fresh();
            let mut blocks: Vec<(*mut u8, Layout, u8)> = Vec::new();
            for (number, (which, size, align)) in actions.into_iter().enumerate() {
                let mark = number as u8;
                // SAFETY: the list holds what was got and not given back yet, with its layout.
                unsafe {
                    if which < blocks.len() && size % 3 == 0 {
                        let (pointer, layout, _) = blocks.swap_remove(which);
                        heap.dealloc(pointer, layout);
                    } else if which < blocks.len() {
                        let (pointer, old, mark) = blocks[which];
                        let pointer = heap.realloc(pointer, old, size);
                        pointer.write_bytes(mark, size);
                        blocks[which] = (pointer, layout(size, old.align()), mark);
                    } else {
                        let layout = layout(size, 1 << align);
                        let pointer = heap.alloc(layout);
                        prop_assert_eq!(pointer as usize % layout.align(), 0);
                        pointer.write_bytes(mark, size);
                        blocks.push((pointer, layout, mark));
                    }
                    for (pointer, layout, mark) in &blocks {
                        let content = std::slice::from_raw_parts(*pointer, layout.size());
                        prop_assert!(content.iter().all(|byte| byte == mark));
                    }
                }
            }
            for (pointer, layout, _) in blocks {
                // SAFETY: as above.
                unsafe { heap.dealloc(pointer, layout) };
            }
        }
    }
}
