//! Asking for memory ahead of its use, so that many waits for it overlap.

use std::mem::MaybeUninit;

/// Asks for the memory of a value, which has a size, and does not wait for it.
#[inline]
pub fn prefetch<T>(value: &T) {
    const { assert!(size_of::<T>() > 0) };
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it fills caches only. Nothing that the program sees is read or written, and no address makes it fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    // Waits that depend on nothing overlap a little by themselves.
    #[cfg(not(target_arch = "x86_64"))]
    {
        let first = std::ptr::from_ref(value).cast::<MaybeUninit<u8>>();
        // SAFETY: the first byte of a value can be read, and may be any or none.
        std::hint::black_box(unsafe { first.read_volatile() });
    }
}

/// Bytes that memory is asked for at a time.
const LINE: usize = 64;

/// As [`prefetch`], of all of a value that lies in several lines.
#[inline]
pub fn prefetch_whole<T>(value: &T) {
    const { assert!(size_of::<T>() > LINE) };
    let bytes = std::ptr::from_ref(value).cast::<MaybeUninit<u8>>();
    // SAFETY: the value has so many bytes, which may be any or none.
    let byte = |at| unsafe { &*bytes.add(at) };
    (0..size_of::<T>())
        .step_by(LINE)
        .for_each(|at| prefetch(byte(at)));
    prefetch(byte(size_of::<T>() - 1));
}
