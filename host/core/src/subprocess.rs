//! Other programs, run by a process of the session.
//!
//! They aren't of the session: they know nothing of its memory, and get none of its descriptors. Their ends are noticed where all ends
//! are ([`reap`]), so they can be waited for like everything else, and nobody reaps them in passing.
//!
//! Invariants:
//! - A program doesn't outlive the process that runs it, however that one ends (`PR_SET_PDEATHSIG` in prctl(2)). Programs that it
//!   starts itself are its own affair.
//! - A signal is only sent to a program whose end hasn't been noticed: never to another process that got its number.
//! - Between fork and exec there are system calls only.

use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::reap;
use crate::signals;
use crate::sys;
use crate::table::ExitStatus;
use crate::transport::restore_descriptor_limit;
use crate::wait::{PollFd, WaitInfo, WaitKind, wait_fds};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid, pipe2};
use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// How much is read or written at a time, in bytes: what a pipe holds.
const PIECE: usize = 64 << 10;

/// What a program has as one of its standard streams.
#[derive(Debug, Default)]
pub enum Stream {
    /// What this process has.
    #[default]
    Inherit,
    /// The null device.
    Null,
    /// A pipe whose other end is this process's.
    Pipe,
    /// A descriptor.
    Fd(OwnedFd),
    /// For the standard error: wherever the standard output goes.
    ToOutput,
}

/// What is to be run, and how.
#[derive(Debug, Default)]
pub struct Spec {
    /// The program (a path, or a name that is looked for in `PATH`) and its arguments.
    pub argv: Vec<OsString>,
    /// Where it runs; where this process is, if there is none.
    pub cwd: Option<PathBuf>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its standard input.
    pub stdin: Stream,
    /// Its standard output.
    pub stdout: Stream,
    /// Its standard error.
    pub stderr: Stream,
}

/// A program that was started.
#[derive(Debug)]
pub struct Program {
    pid: i32,
    status: Cell<Option<ExitStatus>>,
}

/// This process's ends of the pipes to a program.
#[derive(Debug, Default)]
pub struct Pipes {
    /// To its standard input.
    pub stdin: Option<OwnedFd>,
    /// From its standard output.
    pub stdout: Option<OwnedFd>,
    /// From its standard error.
    pub stderr: Option<OwnedFd>,
}

fn os(call: &'static str) -> impl Fn(Errno) -> CoreError {
    move |errno| CoreError::os(call, errno as i32)
}

/// A pipe: this process's end, which never blocks, and the program's.
fn pipe(writing: bool) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(os("pipe2"))?;
    let (ours, theirs) = if writing {
        (write, read)
    } else {
        (read, write)
    };
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(os("fcntl"))?;
    Ok((ours, theirs))
}

/// One stream: this process's end, and what the program gets; `None` for what this process has.
fn stream(stream: Stream, writing: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    Ok(match stream {
        Stream::Inherit | Stream::ToOutput => (None, None),
        Stream::Null => {
            let null = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/null");
            let null = null.map_err(|e| from_io("open", &e))?;
            (None, Some(null.into()))
        }
        Stream::Pipe => {
            let (ours, theirs) = pipe(writing)?;
            (Some(ours), Some(theirs))
        }
        Stream::Fd(fd) => (None, Some(fd)),
    })
}

fn from_io(call: &'static str, error: &io::Error) -> CoreError {
    CoreError::os(call, error.raw_os_error().unwrap_or(libc::EIO))
}

/// Starts a program.
///
/// # Errors
/// [`CoreError::Os`]: there is no such program (ENOENT), it can't be executed (EACCES, ENOEXEC), its folder isn't there;
/// [`CoreError::Value`] for an empty `argv` or a NUL in it; [`CoreError::Runtime`] if there are too many already.
pub fn start(spec: Spec) -> Result<(Program, Pipes)> {
    let mut argv = spec.argv.into_iter();
    let program = argv
        .next()
        .ok_or_else(|| CoreError::Value("there is no program to run: args is empty".into()))?;
    let (stdin, their_in) = stream(spec.stdin, true)?;
    let (stdout, their_out) = stream(spec.stdout, false)?;
    let to_output = matches!(spec.stderr, Stream::ToOutput);
    let (stderr, mut their_err) = stream(spec.stderr, false)?;
    if to_output {
        let copy = match &their_out {
            Some(output) => output.try_clone(),
            None => std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned(),
        };
        their_err = Some(copy.map_err(|e| from_io("fcntl(F_DUPFD_CLOEXEC)", &e))?);
    }
    let mut command = Command::new(program);
    command.args(argv).env_clear().envs(spec.env);
    if let Some(cwd) = spec.cwd {
        command.current_dir(cwd);
    }
    for (fd, set) in [
        (
            their_in,
            Command::stdin as fn(&mut Command, OwnedFd) -> &mut Command,
        ),
        (their_out, Command::stdout),
        (their_err, Command::stderr),
    ] {
        if let Some(fd) = fd {
            set(&mut command, fd);
        }
    }
    let parent = getpid();
    let prepare = move || -> io::Result<()> {
        sys::process::close_on_exec(3);
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        restore_descriptor_limit();
        sys::signal::reset();
        Ok(())
    };
    // SAFETY: the closure makes system calls only: it takes no lock and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    // The end of a program that ends at once isn't noticed before it is known that somebody wants it.
    let pid = signals::blocked(|| {
        reap::expect_foreign();
        let child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::InvalidInput if e.raw_os_error().is_none() => {
                CoreError::Value("embedded null byte".into())
            }
            _ => from_io("exec", &e),
        })?;
        let pid = i32::try_from(child.id()).unwrap_or(-1);
        reap::register_foreign(pid).inspect_err(|_| sys::process::kill(pid, libc::SIGKILL))?;
        Ok::<_, CoreError>(pid)
    })?;
    let program = Program {
        pid,
        status: Cell::new(None),
    };
    let pipes = Pipes {
        stdin,
        stdout,
        stderr,
    };
    Ok((program, pipes))
}

impl Program {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it has ended, if it has.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        if self.status.get().is_none()
            && let Some(status) = reap::foreign_status(self.pid)
        {
            self.ended(status);
        }
        self.status.get()
    }

    fn ended(&self, status: ExitStatus) {
        reap::forget_foreign(self.pid);
        self.status.set(Some(status));
    }

    /// Waits for its end; `None` at the deadline.
    ///
    /// # Errors
    /// What the interrupt hook raises.
    pub fn wait(&self, deadline: Deadline, position: Position) -> Result<Option<ExitStatus>> {
        if self.status.get().is_none()
            && let Some(status) = reap::wait_foreign(self.pid, deadline, position)?
            // A callback may have asked meanwhile.
            && self.status.get().is_none()
        {
            self.ended(status);
        }
        Ok(self.status.get())
    }

    /// Sends it a signal; nothing happens if it has ended.
    ///
    /// # Errors
    /// [`CoreError::Os`]: there is no such signal.
    pub fn signal(&self, signo: i32) -> Result<()> {
        // While signals are blocked no end is noticed, so that its number stays its own.
        signals::blocked(|| {
            if self.status().is_some() {
                return Ok(());
            }
            let pid = nix::unistd::Pid::from_raw(self.pid);
            let signal = Signal::try_from(signo).map_err(os("kill"))?;
            match nix::sys::signal::kill(pid, signal) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(errno) => Err(CoreError::os("kill", errno as i32)),
            }
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.status.get().is_none() {
            reap::forget_foreign(self.pid);
        }
    }
}

/// What goes to a program and comes from it, all at the same time, so that neither side waits for the other.
#[derive(Debug, Default)]
pub struct Exchange {
    pipes: Pipes,
    input: Vec<u8>,
    written: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Exchange {
    /// Sends `input` and collects what comes behind what was read already.
    #[must_use]
    pub fn new(pipes: Pipes, input: Vec<u8>, stdout: Vec<u8>, stderr: Vec<u8>) -> Exchange {
        Exchange {
            pipes,
            input,
            written: 0,
            stdout,
            stderr,
        }
    }

    /// Goes on until all is sent and both streams have ended; false at the deadline, after which it can be called again.
    ///
    /// # Errors
    /// [`CoreError::Os`]; what the interrupt hook raises.
    pub fn run(&mut self, deadline: Deadline, position: Position) -> Result<bool> {
        loop {
            if self.written == self.input.len() {
                // The program's input ends here.
                self.pipes.stdin = None;
            }
            let mut polled = Vec::with_capacity(3);
            let mut add = |fd: &Option<OwnedFd>, events| {
                if let Some(fd) = fd {
                    polled.push(PollFd {
                        fd: fd.as_raw_fd(),
                        events,
                        revents: 0,
                    });
                }
            };
            add(&self.pipes.stdin, libc::POLLOUT);
            add(&self.pipes.stdout, libc::POLLIN);
            add(&self.pipes.stderr, libc::POLLIN);
            if polled.is_empty() {
                return Ok(true);
            }
            let info = WaitInfo::new(WaitKind::Descriptors, 0, position);
            if wait_fds(&mut polled, info, deadline)? == 0 {
                return Ok(false);
            }
            self.feed()?;
            drain(&mut self.pipes.stdout, &mut self.stdout)?;
            drain(&mut self.pipes.stderr, &mut self.stderr)?;
        }
    }

    fn feed(&mut self) -> Result<()> {
        let Some(stdin) = &self.pipes.stdin else {
            return Ok(());
        };
        let end = self.input.len().min(self.written + PIECE);
        match nix::unistd::write(stdin, &self.input[self.written..end]) {
            Ok(written) => self.written += written,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // It doesn't want more: its own affair, as in Python.
            Err(Errno::EPIPE) => self.written = self.input.len(),
            Err(errno) => return Err(CoreError::os("write", errno as i32)),
        }
        Ok(())
    }

    /// What has come on the standard output so far.
    #[must_use]
    pub fn stdout(&self) -> &[u8] {
        &self.stdout
    }

    /// What has come on the standard error so far.
    #[must_use]
    pub fn stderr(&self) -> &[u8] {
        &self.stderr
    }
}

/// Reads once what there is; at the end the pipe is closed.
fn drain(pipe: &mut Option<OwnedFd>, into: &mut Vec<u8>) -> Result<()> {
    let Some(fd) = pipe else { return Ok(()) };
    let old = into.len();
    into.resize(old + PIECE, 0);
    let read = nix::unistd::read(&*fd, &mut into[old..]);
    into.truncate(old + read.as_ref().copied().unwrap_or(0));
    match read {
        Ok(0) => *pipe = None,
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
        Err(errno) => return Err(CoreError::os("read", errno as i32)),
    }
    Ok(())
}
