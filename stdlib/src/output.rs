//! What scripts print: one `print` is one write, made at once, so that lines of different processes never mix.

use crate::core_error;
use crate::error::Result;
use nix::errno::Errno;
use std::os::fd::AsFd;

/// Writes all of `text` to standard output, in one system call as long as the reader keeps up.
///
/// # Errors
/// `BrokenPipeError` and its kin.
pub fn write_stdout(text: &str) -> Result<()> {
    write_all(
        std::io::stdout().as_fd(),
        text.as_bytes(),
        "standard output",
    )
}

/// Writes all of `text` to standard error.
///
/// # Errors
/// As [`write_stdout`].
pub fn write_stderr(text: &str) -> Result<()> {
    write_all(std::io::stderr().as_fd(), text.as_bytes(), "standard error")
}

fn write_all(fd: impl AsFd, mut bytes: &[u8], what: &str) -> Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(&fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => mphost_core::wait::poll_interrupts()?,
            Err(Errno::EAGAIN) => wait_writable(&fd)?,
            Err(errno) => return Err(core_error::os(what, errno as i32, None).into()),
        }
    }
    Ok(())
}

// Somebody made our standard output non-blocking (a terminal shared with another program may be).
fn wait_writable(fd: &impl AsFd) -> Result<()> {
    let mut fds = [nix::poll::PollFd::new(
        fd.as_fd(),
        nix::poll::PollFlags::POLLOUT,
    )];
    match nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(core_error::os("poll", errno as i32, None).into()),
    }
}
