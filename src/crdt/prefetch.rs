//! Asking for memory ahead of its use, so that many waits for it overlap.

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
        let first = std::ptr::from_ref(value).cast::<std::mem::MaybeUninit<u8>>();
        // SAFETY: the first byte of a value can be read, and may be any or none.
        std::hint::black_box(unsafe { first.read_volatile() });
    }
}
