//! The heap, forbidden between clone and exec.
//!
//! The child is a copy of one thread; another thread of the parent could have held the allocator's lock. deja has
//! no threads there, and this makes sure that nobody relies on it: a child that allocates dies loudly.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// From here on this process only makes system calls. There is no way back but exec or exit.
pub(super) fn forbid() {
    FORBIDDEN.store(true, Relaxed);
}

struct Guarded;

#[global_allocator]
static HEAP: Guarded = Guarded;

fn check() {
    if FORBIDDEN.load(Relaxed) {
        const MESSAGE: &[u8] = b"deja: bug: heap use between clone and exec\n";
        // SAFETY: writes bytes that live as long as the program.
        unsafe { libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
        // SAFETY: abort has no preconditions.
        unsafe { libc::abort() }
    }
}

// SAFETY: every method forwards to the system's allocator after a check that does not allocate.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        check();
        // SAFETY: the caller got `pointer` from this allocator, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check();
        // SAFETY: the caller got `pointer` from this allocator, which is the system's.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller upholds the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }
}
