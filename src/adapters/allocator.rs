//! The allocator of the system, told what it cannot know: that threads may share, and when much has become free.

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
