//! Socket options by number (setsockopt(2), getsockopt(2)): those that scripts name themselves.

use crate::error::{CoreError, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets an option whose value is an int.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> Result<()> {
    // SAFETY: the value is an int that lives for the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(CoreError::os_last("setsockopt"))
    }
}

/// Reads an option whose value is an int; of a longer one, the beginning.
pub(crate) fn option(socket: BorrowedFd<'_>, level: i32, name: i32) -> Result<i32> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes, which is the size of the int that is borrowed for the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(CoreError::os_last("getsockopt"))
    }
}
