//! Asking for memory ahead of its use, so that many waits for it overlap.

/// Bytes that memory is asked for at a time.
const LINE: usize = 64;

/// Asks for the memory of a value, which has a size, and does not wait for it.
#[inline]
pub fn prefetch<T>(value: &T) {
    const { assert!(size_of::<T>() > 0) };
    ask_for(std::ptr::from_ref(value).cast());
}

/// As [`prefetch`], of all of a value that lies in several lines.
#[inline]
pub fn prefetch_whole<T>(value: &T) {
    const { assert!(size_of::<T>() > LINE) };
    let first: *const u8 = std::ptr::from_ref(value).cast();
    let places = (0..size_of::<T>()).step_by(LINE);
    places
        .chain([size_of::<T>() - 1])
        .for_each(|at| ask_for(first.wrapping_add(at)));
}

#[inline]
fn ask_for(byte: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it fills caches only. Nothing that the program sees is read or written, and no address makes it fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(byte.cast()) };
    }
    // Waits that depend on nothing overlap a little by themselves.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = byte;
}
