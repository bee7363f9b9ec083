//! What becomes of memory that a process has freed.
//!
//! Problem: the C library gets blocks of more than 128 KiB from the kernel and gives them back when they are freed, until it has seen how
//! large they come. Messages of mebibytes are such blocks, several for each message, and every page of each is a page fault
//! again: copying is a tenth of what these cost.

/// From now on this process keeps what it frees, up to [`KEPT`] bytes at the end of its heap, for blocks of less than [`LARGE`]. These are what
/// the C library itself goes over to as soon as a block of [`LARGE`] bytes has been freed (mallopt(3), M_MMAP_THRESHOLD). For a
/// program that is nothing but a host; a library had better not.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, bytes) in [
        (libc::M_MMAP_THRESHOLD, LARGE),
        (libc::M_TRIM_THRESHOLD, KEPT),
    ] {
        // SAFETY: it takes any numbers, and refuses those that make no sense.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// Larger blocks are the kernel's, in bytes.
pub const LARGE: i32 = 32 << 20;
/// How much is kept, in bytes.
pub const KEPT: i32 = 2 * LARGE;
