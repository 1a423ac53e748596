//! Two allocators: small blocks, of which a call takes dozens and frees some on other threads, come from mimalloc. Large ones are
//! few, live long and come in many sizes; they come from the allocator of the system, which packs them more tightly. It is
//! told what it cannot know: that threads may share, and when much has become free.

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

/// Bytes of the largest block that counts as small. The tables of a post with many likers are larger.
const SMALL_MAX: usize = 4 * 1024;

/// What a process with a node allocates with.
pub struct BySize;

fn is_small(bytes: usize) -> bool {
    bytes <= SMALL_MAX
}

// SAFETY: a block goes back to the allocator that it came from, for its layout tells which one that is, and each of the
// two keeps the contract for its own blocks.
unsafe impl GlobalAlloc for BySize {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match is_small(layout.size()) {
            true => unsafe { MiMalloc.alloc(layout) },
            false => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match is_small(layout.size()) {
            true => unsafe { MiMalloc.alloc_zeroed(layout) },
            false => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match is_small(layout.size()) {
            true => unsafe { MiMalloc.dealloc(block, layout) },
            false => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match (is_small(layout.size()), is_small(size)) {
            (true, true) => unsafe { MiMalloc.realloc(block, layout, size) },
            (false, false) => unsafe { System.realloc(block, layout, size) },
            _ => unsafe { self.moved(block, layout, size) },
        }
    }
}

impl BySize {
    /// A block of the other allocator with the same contents.
    ///
    /// # Safety
    ///
    /// As for [`GlobalAlloc::realloc`].
    unsafe fn moved(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: both blocks have at least as many bytes as are copied, and the new one is another.
        unsafe {
            let other = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !other.is_null() {
                std::ptr::copy_nonoverlapping(block, other, layout.size().min(size));
                self.dealloc(block, layout);
            }
            other
        }
    }
}

/// Cores that share an arena of glibc's allocator. By itself it takes up to eight arenas a core, and what is free in one serves
/// no thread of another: a node with millions of likers needs a tenth more memory so.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const CORES_AN_ARENA: usize = 4;

/// Does nothing where the environment says how many arenas there may be, and where the allocator is another one. Called
/// before there are other threads.
pub fn share_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let arenas = cores.div_ceil(CORES_AN_ARENA);
        // SAFETY: it stores a number, and no other thread is there yet to read it.
        let is_taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas as libc::c_int) };
        if is_taken == 0 {
            tracing::debug!(arenas, "the allocator took no number of arenas");
        }
    }
}

/// Pages between what is in use go back to the system. Whoever allocates meanwhile waits, some milliseconds for hundreds of
/// megabytes.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it touches free memory only, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From each size to each other, over the border and along it.
    #[test]
    fn a_block_keeps_its_contents_when_its_size_changes() {
        let sizes = [1, 24, SMALL_MAX - 1, SMALL_MAX, SMALL_MAX + 1, 1 << 20];
        for (from, to) in sizes.iter().flat_map(|from| sizes.map(|to| (*from, to))) {
            for align in [1, 64, 8_192] {
                let layout = |size| Layout::from_size_align(size, align).expect("valid");
                let contents = |place: usize| (place % 251) as u8;
                // SAFETY: each block is used within its size, and given back with the layout that it has.
                unsafe {
                    let block = BySize.alloc_zeroed(layout(from));
                    let bytes = std::slice::from_raw_parts_mut(block, from);
                    assert!(bytes.iter().all(|byte| *byte == 0));
                    (0..from).for_each(|place| bytes[place] = contents(place));
                    let block = BySize.realloc(block, layout(from), to);
                    assert_eq!(block as usize % align, 0);
                    let bytes = std::slice::from_raw_parts(block, from.min(to));
                    assert!((0..from.min(to)).all(|place| bytes[place] == contents(place)));
                    BySize.dealloc(block, layout(to));
                }
            }
        }
    }
}
