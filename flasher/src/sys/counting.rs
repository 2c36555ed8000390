//! An allocator that knows how much the calling thread has: for tests of how much something takes at most.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that are allocated, and the most that were since the last [`peak_of`] began.
    static BYTES: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// From this size on allocators give an allocation pages of its own.
const PAGES: usize = 128 << 10;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // A thread that is ending has no such cell any more.
    let _ = BYTES.try_with(|cell| {
        let (now, most) = cell.get();
        cell.set((now + bytes, most.max(now + bytes)));
    });
}

fn signed(size: usize) -> isize {
    isize::try_from(size).unwrap_or(isize::MAX)
}

// SAFETY: everything is left to the system's allocator; only numbers are kept beside it, in a cell that takes no memory
// of its own.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as above; the memory is the system allocator's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // What has pages of its own is moved page by page; anything smaller is copied, and stands there twice.
        if layout.size().min(size) < PAGES {
            count(signed(size));
            count(-signed(layout.size()));
        } else {
            count(signed(size) - signed(layout.size()));
        }
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// The most bytes that the calling thread had at once on the heap while `work` ran, beyond what it had before.
pub(crate) fn peak_of(work: impl FnOnce()) -> u64 {
    let before = BYTES.with(|cell| {
        let (now, _) = cell.get();
        cell.set((now, now));
        now
    });
    work();
    BYTES.with(|cell| u64::try_from(cell.get().1 - before).unwrap_or(0))
}
