//! Files and the standard streams: `open`, `sys::stdin`, `sys::stdout`, `sys::stderr`.
//!
//! Writes go to the system at once: nothing is left in a buffer that a forked child would write a second time, or that a killed
//! process would take along. Reads are buffered; a write or a seek first gives back what was read ahead. A read that may block (a
//! terminal, a pipe) waits in the core's own way, so that signals and callbacks are minded.
//!
//! Text is UTF-8; `\r\n` reads as `\n`. Source: CPython Library Reference, `open` and the module `io`.

use crate::api::Call;
use crate::core_error;
use crate::error::{Error, Kind, Result, ScriptError, raise};
use mphost_core::clock::Deadline;
use mphost_core::position::Position;
use mphost_core::wait::{self, PollFd, WaitInfo, WaitKind};
use nix::errno::Errno;
use nix::unistd::Whence;
use rhai::{Array, Blob, Dynamic, ImmutableString};
use std::cell::{Ref, RefCell, RefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

const CHUNK: usize = 64 * 1024;

enum Stream {
    Opened(std::fs::File),
    Stdin(std::io::Stdin),
    Stdout(std::io::Stdout),
    Stderr(std::io::Stderr),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Opened(file) => file.as_fd(),
            Stream::Stdin(stream) => stream.as_fd(),
            Stream::Stdout(stream) => stream.as_fd(),
            Stream::Stderr(stream) => stream.as_fd(),
        }
    }
}

/// What a mode such as `r+b` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mode {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create_new: bool,
    binary: bool,
}

impl Mode {
    fn parse(text: &str) -> Result<Mode> {
        let invalid = || raise(Kind::ValueError, format!("invalid mode: '{text}'"));
        let mut mode = Mode::default();
        let (mut kinds, mut plus, mut text_mode) = (0, false, false);
        for (index, letter) in text.chars().enumerate() {
            if text.chars().take(index).any(|earlier| earlier == letter) {
                return Err(invalid());
            }
            match letter {
                'r' => mode.read = true,
                'w' => (mode.write, mode.truncate) = (true, true),
                'a' => (mode.write, mode.append) = (true, true),
                'x' => (mode.write, mode.create_new) = (true, true),
                '+' => plus = true,
                'b' => mode.binary = true,
                't' => text_mode = true,
                _ => return Err(invalid()),
            }
            kinds += usize::from(matches!(letter, 'r' | 'w' | 'a' | 'x'));
        }
        if mode.binary && text_mode {
            return Err(raise(
                Kind::ValueError,
                "can't have text and binary mode at once",
            ));
        }
        if kinds != 1 {
            return Err(raise(
                Kind::ValueError,
                "must have exactly one of create/read/write/append mode",
            ));
        }
        if plus {
            (mode.read, mode.write) = (true, true);
        }
        Ok(mode)
    }
}

struct State {
    stream: Option<Stream>,
    name: String,
    mode_text: String,
    mode: Mode,
    /// Reading may block: no regular file.
    may_block: bool,
    /// What was read ahead; used up to `start`.
    buffer: Vec<u8>,
    start: usize,
}

/// An open file; copying it copies the reference.
#[derive(Clone)]
pub struct File(Rc<RefCell<State>>);

thread_local! {
    static STDIN: File = File::standard(Stream::Stdin(std::io::stdin()), "<stdin>", "r");
}

/// This process's standard input: one buffer for `sys::stdin` and `input`.
#[must_use]
pub fn stdin() -> File {
    STDIN.with(File::clone)
}

/// Forgets what was read ahead of standard input: first thing in a forked child, whose parent goes on reading it.
pub fn forget_input() {
    let stdin = stdin();
    let mut state = stdin.0.borrow_mut();
    state.buffer.clear();
    state.start = 0;
}

fn closed() -> Error {
    raise(Kind::ValueError, "I/O operation on closed file.")
}

impl File {
    /// Opens a file as Python's `open(path, mode)` does.
    ///
    /// # Errors
    /// `ValueError` for a bad mode; `FileNotFoundError` and its kin.
    pub fn open(path: &str, mode_text: &str) -> Result<File> {
        let mode = Mode::parse(mode_text)?;
        let mut options = std::fs::OpenOptions::new();
        options
            .read(mode.read)
            .write(mode.write && !mode.append)
            .append(mode.append)
            .truncate(mode.truncate)
            .create(mode.truncate || mode.append)
            .create_new(mode.create_new);
        let failed =
            |error: &std::io::Error| Error::Script(core_error::from_io(error, "open", Some(path)));
        let file = loop {
            match options.open(path) {
                Ok(file) => break file,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    wait::poll_interrupts()?
                }
                Err(error) => return Err(failed(&error)),
            }
        };
        let metadata = file.metadata().map_err(|error| failed(&error))?;
        if metadata.is_dir() {
            return Err(core_error::os("open", Errno::EISDIR as i32, Some(path)).into());
        }
        Ok(File(Rc::new(RefCell::new(State {
            stream: Some(Stream::Opened(file)),
            name: path.to_owned(),
            mode_text: mode_text.to_owned(),
            mode,
            may_block: !metadata.is_file(),
            buffer: Vec::new(),
            start: 0,
        }))))
    }

    fn standard(stream: Stream, name: &str, mode_text: &str) -> File {
        let mode = Mode {
            read: mode_text == "r",
            write: mode_text == "w",
            ..Mode::default()
        };
        File(Rc::new(RefCell::new(State {
            stream: Some(stream),
            name: name.to_owned(),
            mode_text: mode_text.to_owned(),
            mode,
            may_block: true,
            buffer: Vec::new(),
            start: 0,
        })))
    }

    /// One end of a pipe, as a file; it is read (`r`, `rb`) or written (`w`, `wb`).
    pub(crate) fn of_pipe(fd: OwnedFd, name: &str, mode_text: &str) -> File {
        let file = File::standard(Stream::Opened(fd.into()), name, mode_text);
        {
            let mut state = file.0.borrow_mut();
            state.mode.read = mode_text.starts_with('r');
            state.mode.write = !state.mode.read;
            state.mode.binary = mode_text.ends_with('b');
        }
        file
    }

    /// Takes the descriptor out of an open file, which is closed then, with what was read ahead.
    pub(crate) fn take_parts(&self) -> Option<(OwnedFd, Vec<u8>)> {
        let mut state = self.0.borrow_mut();
        match state.stream.take() {
            Some(Stream::Opened(file)) => {
                let start = std::mem::take(&mut state.start);
                let ahead = std::mem::take(&mut state.buffer).split_off(start);
                Some((file.into(), ahead))
            }
            other => {
                state.stream = other;
                None
            }
        }
    }

    /// A duplicate of the descriptor, for another program.
    ///
    /// # Errors
    /// `ValueError` where it is closed; OSError where there are too many descriptors.
    pub(crate) fn duplicate(&self) -> Result<OwnedFd> {
        let state = self.state()?;
        let stream = state.stream.as_ref().ok_or_else(closed)?;
        let copy = stream.as_fd().try_clone_to_owned();
        copy.map_err(|error| core_error::from_io(&error, "dup", Some(&state.name)).into())
    }

    fn state(&self) -> Result<Ref<'_, State>> {
        let state = self.0.borrow();
        if state.stream.is_none() {
            Err(closed())
        } else {
            Ok(state)
        }
    }

    fn state_mut(&self) -> Result<RefMut<'_, State>> {
        let state = self.0.borrow_mut();
        if state.stream.is_none() {
            Err(closed())
        } else {
            Ok(state)
        }
    }

    /// Everything that is left, as a string or, in binary mode, a blob.
    ///
    /// # Errors
    /// `ValueError` where it is closed, the OSError kin, `UnicodeDecodeError`.
    pub fn read_all(&self, at: Position) -> Result {
        while self.fill(at)? {}
        let mut state = self.state_mut()?;
        let end = state.buffer.len();
        state.take(end)
    }

    /// At most `count` characters (bytes in binary mode); fewer only at the end.
    fn read_some(&self, count: usize, at: Position) -> Result {
        loop {
            let state = self.state()?;
            let ahead = &state.buffer[state.start..];
            let enough = if state.mode.binary {
                Some(count).filter(|n| *n <= ahead.len())
            } else {
                characters(ahead, count)
            };
            let end = enough.map(|length| state.start + length);
            drop(state);
            if let Some(end) = end {
                return self.state_mut()?.take(end);
            }
            if !self.fill(at)? {
                return self.read_all(at);
            }
        }
    }

    /// The next line with its end, or nothing at the end of the file.
    ///
    /// # Errors
    /// As [`File::read_all`].
    pub fn read_line(&self, at: Position) -> Result<Option<Dynamic>> {
        let mut searched = 0;
        loop {
            let mut state = self.state_mut()?;
            let from = state.start + searched;
            if let Some(found) = state.buffer[from..].iter().position(|byte| *byte == b'\n') {
                return state.take(from + found + 1).map(Some);
            }
            searched = state.buffer.len() - state.start;
            drop(state);
            if !self.fill(at)? {
                let mut state = self.state_mut()?;
                let end = state.buffer.len();
                return if end == state.start {
                    Ok(None)
                } else {
                    state.take(end).map(Some)
                };
            }
        }
    }

    /// Reads one more piece into the buffer; `false` at the end. The state isn't borrowed while it waits: what runs meanwhile may
    /// use the file.
    fn fill(&self, at: Position) -> Result<bool> {
        let state = self.state()?;
        if !state.mode.read {
            return Err(raise(
                Kind::OSError,
                format!("not readable: '{}' was opened for writing", state.name),
            ));
        }
        if state.may_block
            && let Some(stream) = &state.stream
        {
            let mut fds = [PollFd {
                fd: stream.as_fd().as_raw_fd(),
                events: nix::libc::POLLIN,
                revents: 0,
            }];
            drop(state);
            wait::wait_fds(
                &mut fds,
                WaitInfo::new(WaitKind::Descriptors, 0, at),
                Deadline::NEVER,
            )?;
        } else {
            drop(state);
        }
        let mut state = self.state_mut()?;
        let start = state.start;
        state.buffer.drain(..start);
        state.start = 0;
        let old = state.buffer.len();
        state.buffer.resize(old + CHUNK, 0);
        let State {
            stream,
            buffer,
            name,
            ..
        } = &mut *state;
        let stream = stream.as_ref().ok_or_else(closed)?;
        let count = loop {
            match nix::unistd::read(stream, &mut buffer[old..]) {
                Ok(count) => break Ok(count),
                Err(Errno::EINTR) => {}
                // A terminal that has gone has no more to say.
                Err(Errno::EIO) if matches!(stream, Stream::Stdin(_)) => break Ok(0),
                Err(errno) => break Err(core_error::os("read", errno as i32, Some(name)).into()),
            }
        };
        state
            .buffer
            .truncate(old + count.as_ref().copied().unwrap_or(0));
        count.map(|count| count > 0)
    }

    /// Writes all of `bytes`, at once.
    ///
    /// # Errors
    /// `ValueError` where it is closed, the OSError kin.
    pub fn write_bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut left = bytes;
        self.give_back()?;
        while !left.is_empty() {
            let state = self.state()?;
            if !state.mode.write {
                return Err(raise(
                    Kind::OSError,
                    format!("not writable: '{}' was opened for reading", state.name),
                ));
            }
            let stream = state.stream.as_ref().ok_or_else(closed)?;
            match nix::unistd::write(stream, left) {
                Ok(written) => left = &left[written..],
                Err(Errno::EINTR) => {
                    drop(state);
                    wait::poll_interrupts()?;
                }
                Err(Errno::EAGAIN) => {
                    let mut fds = [PollFd {
                        fd: stream.as_fd().as_raw_fd(),
                        events: nix::libc::POLLOUT,
                        revents: 0,
                    }];
                    drop(state);
                    let info = WaitInfo::new(WaitKind::Descriptors, 0, Position::default());
                    wait::wait_fds(&mut fds, info, Deadline::NEVER)?;
                }
                Err(errno) => {
                    return Err(core_error::os("write", errno as i32, Some(&state.name)).into());
                }
            }
        }
        Ok(())
    }

    fn write(&self, call: &Call<'_>) -> Result {
        let value = call.peek(0).cloned().unwrap_or_default();
        self.write_value(&value).map(Dynamic::from)
    }

    /// Writes a text, or a blob in binary mode: how many characters or bytes that were.
    ///
    /// # Errors
    /// `TypeError` for anything else; as [`File::write_bytes`].
    pub fn write_value(&self, value: &Dynamic) -> Result<i64> {
        let binary = self.state()?.mode.binary;
        let got = crate::api::type_name(value);
        let length = if binary {
            let Some(blob) = value.read_lock::<Blob>() else {
                return Err(raise(
                    Kind::TypeError,
                    format!("write(): a file in binary mode takes a blob, not {got}"),
                ));
            };
            self.write_bytes(&blob)?;
            blob.len()
        } else {
            let text = match value.read_lock::<ImmutableString>() {
                Some(text) => text.clone(),
                None => value
                    .as_char()
                    .map(|letter| letter.to_string().into())
                    .map_err(|_| {
                        raise(
                            Kind::TypeError,
                            format!("write(): a text file takes a string, not {got}"),
                        )
                    })?,
            };
            self.write_bytes(text.as_bytes())?;
            text.chars().count()
        };
        Ok(i64::try_from(length).unwrap_or(i64::MAX))
    }

    /// Moves the file's position back over what was read ahead, and forgets it.
    fn give_back(&self) -> Result<()> {
        let mut state = self.state_mut()?;
        let ahead = state.buffer.len() - state.start;
        state.buffer.clear();
        state.start = 0;
        if ahead > 0
            && let Some(Stream::Opened(file)) = &state.stream
            && !state.may_block
        {
            let back = -i64::try_from(ahead).unwrap_or(i64::MAX);
            nix::unistd::lseek(file, back, Whence::SeekCur)
                .map_err(|errno| core_error::os("seek", errno as i32, Some(&state.name)))?;
        }
        Ok(())
    }

    fn seek(&self, offset: i64, whence: i64) -> Result {
        self.give_back()?;
        let state = self.state()?;
        let whence = match whence {
            0 if offset < 0 => {
                return Err(raise(
                    Kind::ValueError,
                    format!("negative seek position {offset}"),
                ));
            }
            0 => Whence::SeekSet,
            1 => Whence::SeekCur,
            2 => Whence::SeekEnd,
            other => {
                return Err(raise(
                    Kind::ValueError,
                    format!("invalid whence ({other}, should be 0, 1 or 2)"),
                ));
            }
        };
        let stream = state.stream.as_ref().ok_or_else(closed)?;
        nix::unistd::lseek(stream, offset, whence)
            .map(Dynamic::from)
            .map_err(|errno| core_error::os("seek", errno as i32, Some(&state.name)).into())
    }

    fn close(&self) {
        let mut state = self.0.borrow_mut();
        // The standard streams belong to the process; closing them here would hand their numbers to the next file.
        if matches!(state.stream, Some(Stream::Opened(_))) {
            state.stream = None;
            state.buffer = Vec::new();
            state.start = 0;
        }
    }

    fn lines(&self, at: Position) -> Result<Array> {
        let mut lines = Array::new();
        while let Some(line) = self.read_line(at)? {
            lines.push(line);
        }
        Ok(lines)
    }
}

impl State {
    /// Takes the buffer's bytes up to `end` as a value.
    fn take(&mut self, end: usize) -> Result {
        let bytes = &self.buffer[self.start..end];
        let value = if self.mode.binary {
            Dynamic::from_blob(bytes.to_vec())
        } else {
            let text = std::str::from_utf8(bytes).map_err(|error| {
                let at = error.valid_up_to();
                let byte = bytes.get(at).copied().unwrap_or(0);
                let message = format!("'utf-8' codec can't decode byte {byte:#04x} in position {at}: '{}' is no UTF-8 text", self.name);
                Error::Script(ScriptError::new(Kind::UnicodeDecodeError, message))
            })?;
            if text.contains("\r\n") {
                text.replace("\r\n", "\n").into()
            } else {
                text.into()
            }
        };
        self.start = end;
        Ok(value)
    }
}

/// The length in bytes of the first `count` characters, if there are so many; `\r\n` is one.
fn characters(bytes: &[u8], count: usize) -> Option<usize> {
    let mut at = 0;
    for _ in 0..count {
        let first = *bytes.get(at)?;
        at += match first {
            b'\r' => match bytes.get(at + 1)? {
                b'\n' => 2,
                _ => 1,
            },
            // What is no UTF-8 counts as it comes; decoding will say so.
            0..=0xbf => 1,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        if at > bytes.len() {
            return None;
        }
    }
    Some(at)
}

mod calls;
pub use calls::register;

#[cfg(test)]
mod tests;
