//! One memory region that all processes of a session share.
//!
//! It is a memfd (memfd_create(2)): nothing has a name in the file system, so whatever dies,
//! nothing stays. It is sparse and large from the start, so it never has to be mapped again.
//! Everything in it is found by an offset, and every offset is checked here against the bounds
//! before it becomes a reference.

use super::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64};
use crate::error::{CoreError, Result};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of a page, the unit of allocation.
pub(crate) const PAGE: usize = 4096;
/// The smallest region that a session can live in.
const SMALLEST: usize = 256 << 20;

/// Types that may lie in shared memory and be used through `&T` by several processes.
///
/// # Safety
/// Every bit pattern is a valid value, all fields can be changed through `&` (atomics and types
/// made of them), the layout is `repr(C)` and the same in every process, and nothing in it is a
/// pointer.
pub(crate) unsafe trait Shared {}

// SAFETY: an atomic integer is all of that.
unsafe impl Shared for AtomicU8 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicI32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}

/// The mapped region. Never unmapped: references into it live as long as the process.
#[derive(Debug)]
pub(crate) struct Region {
    base: *mut u8,
    len: usize,
    fd: OwnedFd,
}

// SAFETY: the base pointer never changes and is only used to make references to `Shared` types
// and for checked copies.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// A new region, zeroed, as large as memory and limits allow (256 MiB at least).
    pub(crate) fn create() -> Result<Self> {
        let fd = memfd_create(c"mphost", MFdFlags::MFD_CLOEXEC)
            .map_err(|e| CoreError::os("memfd_create", e as i32))?;
        let mut len = wanted_len();
        loop {
            match map(fd.as_fd(), len, libc::PROT_READ | libc::PROT_WRITE) {
                Ok(base) => {
                    // The mapping comes first: it may lie beyond the end, and the size is set
                    // once only, to what could be mapped.
                    nix::unistd::ftruncate(&fd, len as i64)
                        .map_err(|e| CoreError::os("ftruncate", e as i32))?;
                    return Ok(Self { base, len, fd });
                }
                Err(_) if len / 2 >= SMALLEST => len /= 2,
                Err(e) => return Err(e),
            }
        }
    }

    /// Maps the region of another process by its descriptor.
    pub(crate) fn attach(fd: OwnedFd) -> Result<Self> {
        Self::of_fd(fd, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Maps the region of a program that this process isn't of: a write would be a fault.
    pub(crate) fn view(fd: OwnedFd) -> Result<Self> {
        Self::of_fd(fd, libc::PROT_READ)
    }

    fn of_fd(fd: OwnedFd, access: libc::c_int) -> Result<Self> {
        let stat = nix::sys::stat::fstat(&fd).map_err(|e| CoreError::os("fstat", e as i32))?;
        let len = usize::try_from(stat.st_size).unwrap_or(0);
        if len < SMALLEST || !len.is_multiple_of(PAGE) {
            return Err(CoreError::Value(
                "this descriptor is not the memory of a session".into(),
            ));
        }
        let base = map(fd.as_fd(), len, access)?;
        Ok(Self { base, len, fd })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The `T` at `offset`; `None` out of bounds or unaligned.
    #[inline]
    pub(crate) fn at<T: Shared>(&self, offset: usize) -> Option<&'static T> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.len || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: inside the mapping, which is never unmapped; aligned, since the base is
        // page-aligned; `Shared` promises that any bytes are a `T`.
        Some(unsafe { &*self.base.add(offset).cast::<T>() })
    }

    /// `count` times `T` at `offset`; `None` out of bounds or unaligned.
    #[inline]
    pub(crate) fn array<T: Shared>(&self, offset: usize, count: usize) -> Option<&'static [T]> {
        let end = count.checked_mul(size_of::<T>())?.checked_add(offset)?;
        if end > self.len || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: as in `at`.
        Some(unsafe { std::slice::from_raw_parts(self.base.add(offset).cast::<T>(), count) })
    }

    /// Where `len` bytes at `offset` lie; `None` out of bounds. The caller sees to it that
    /// nobody else writes there while it uses them.
    #[inline]
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> Option<*mut u8> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        Some(self.base.wrapping_add(offset))
    }

    /// The offset of something that lies in the region; 0 for what doesn't.
    #[inline]
    pub(crate) fn offset_of<T>(&self, thing: &T) -> usize {
        let offset = (std::ptr::from_ref(thing) as usize).wrapping_sub(self.base as usize);
        if offset < self.len { offset } else { 0 }
    }

    /// Asks the kernel for memory behind a range now, so that lack of it is an error here rather
    /// than a SIGBUS later (fallocate(2)).
    pub(crate) fn reserve(&self, offset: usize, len: usize) -> Result<()> {
        loop {
            match fallocate(
                &self.fd,
                FallocateFlags::FALLOC_FL_KEEP_SIZE,
                offset as i64,
                len as i64,
            ) {
                Ok(()) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return Err(CoreError::OutOfMemory),
            }
        }
    }

    /// Gives the memory behind a range back; it reads as zeroes afterwards. Failing does no harm.
    pub(crate) fn discard(&self, offset: usize, len: usize) {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        while fallocate(&self.fd, flags, offset as i64, len as i64) == Err(nix::errno::Errno::EINTR)
        {
        }
    }
}

/// Four times the memory or 64 GiB, whichever is more, within RLIMIT_FSIZE.
fn wanted_len() -> usize {
    // SAFETY: sysconf has no preconditions.
    let (pages, page) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let ram = usize::try_from(pages)
        .unwrap_or(0)
        .saturating_mul(usize::try_from(page).unwrap_or(PAGE));
    let mut len = (64 << 30).max(ram.saturating_mul(4));
    // Beyond this limit ftruncate would raise SIGXFSZ.
    if let Ok((soft, _)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE)
    {
        len = len
            .min(usize::try_from(soft).unwrap_or(usize::MAX))
            .max(SMALLEST);
    }
    // One number for a page must fit 32 bits.
    len.min(PAGE << 31) & !(PAGE - 1)
}

fn map(fd: BorrowedFd<'_>, len: usize, access: libc::c_int) -> Result<*mut u8> {
    use std::os::fd::AsRawFd;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            access,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
            fd.as_raw_fd(),
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(CoreError::os_last("mmap"));
    }
    // SAFETY: the mapping has just been made, with this length. A core dump of it would be huge
    // and of no use; failing does no harm.
    unsafe { libc::madvise(base, len, libc::MADV_DONTDUMP) };
    Ok(base.cast())
}
