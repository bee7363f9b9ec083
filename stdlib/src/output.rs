//! What scripts print: one `print` is one write, made at once, so that lines of different processes never mix.

use crate::core_error;
use crate::error::Result;
use nix::errno::Errno;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::fd::AsFd;

/// Writes all of `text` to standard output, in one system call as long as the reader keeps up.
///
/// # Errors
/// `BrokenPipeError` and its kin.
pub fn write_stdout(text: &str) -> Result<()> {
    let above = crate::bars::above(text);
    let text = above.as_deref().unwrap_or(text);
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

/// Writes the report of an error to standard error, with colours if that is a terminal.
///
/// The environment variable `NO_COLOR` turns them off (<https://no-color.org>), as a terminal does that has none.
///
/// # Errors
/// As [`write_stdout`].
pub fn write_report(report: &str) -> Result<()> {
    let set = |name| std::env::var_os(name).is_some_and(|value: OsString| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if std::io::stderr().is_terminal() && !set("NO_COLOR") && !dumb {
        return write_stderr(&crate::traceback::coloured(report));
    }
    write_stderr(report)
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
