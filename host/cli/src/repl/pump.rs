//! What the program's processes print, on its way to the terminal.
//!
//! They print into a terminal of their own, which one thread reads here. While something is evaluated it goes to the real terminal as
//! it is. While a line is being edited it goes above that line, whole lines at a time, by the editor's own means.
//!
//! Two threads, because the editor takes one message at a time and may be just about to stop reading: then the second one waits with
//! its message for the next line, and the first one goes on.

use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustyline::ExternalPrinter;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the beginning of a line waits for its end while a line is edited.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the marker may take: it is written before the reply that is waited for, so only a program that lost its output
/// sends none.
const MARKER_LIMIT: Duration = Duration::from_secs(5);

/// Where the program prints.
pub(super) struct Pump {
    master: std::fs::File,
    editing: Arc<AtomicBool>,
    marked: Receiver<()>,
    ended: Receiver<()>,
    column: Arc<Mutex<bool>>,
}

/// Makes the terminal that the program prints into: our end and its end.
///
/// # Errors
/// Where the system has none left.
pub(super) fn terminal() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let pair = openpty(None, None)?;
    let mut mode = tcgetattr(&pair.slave)?;
    cfmakeraw(&mut mode);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &mode)?;
    Ok((pair.master, pair.slave))
}

impl Pump {
    /// Begins to read; `marker` is what the program prints when all that belongs to a request is printed.
    ///
    /// # Errors
    /// Where the system has no descriptors left.
    pub(super) fn start(
        master: OwnedFd,
        marker: String,
        printer: impl ExternalPrinter + Send + 'static,
    ) -> std::io::Result<Self> {
        let master = std::fs::File::from(master);
        let editing = Arc::new(AtomicBool::new(false));
        let column = Arc::new(Mutex::new(true));
        let (mark, marked) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let (lines, above) = mpsc::channel();
        let reader = Reader {
            master: master.try_clone()?,
            marker: marker.into_bytes(),
            editing: editing.clone(),
            column: column.clone(),
            mark,
            lines,
            held: Vec::new(),
            above: Vec::new(),
        };
        std::thread::spawn(move || {
            reader.run();
            let _ = end.send(());
        });
        std::thread::spawn(move || print_above(printer, &above));
        Ok(Self {
            master,
            editing,
            marked,
            ended,
            column,
        })
    }

    /// Says whether a line is being edited.
    pub(super) fn set_editing(&self, editing: bool) {
        self.editing.store(editing, SeqCst);
    }

    /// Waits until everything that belongs to the last request is on the terminal, and the cursor at the beginning of a line.
    pub(super) fn wait_for_marker(&self) {
        let _ = self.marked.recv_timeout(MARKER_LIMIT);
        let mut at_beginning = self.column.lock().unwrap_or_else(PoisonError::into_inner);
        if !*at_beginning {
            write(b"\n");
            *at_beginning = true;
        }
    }

    /// Waits until the program has printed its last.
    pub(super) fn wait_for_end(&self) {
        let _ = self.ended.recv_timeout(MARKER_LIMIT);
    }

    /// Gives the program's terminal the size of the real one.
    pub(super) fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout()) {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }
}

fn print_above(mut printer: impl ExternalPrinter, lines: &Receiver<String>) {
    for text in lines {
        if printer.print(text).is_err() {
            return;
        }
    }
}

fn write(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    // A terminal that is gone ends the prompt by itself.
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

struct Reader {
    master: std::fs::File,
    marker: Vec<u8>,
    editing: Arc<AtomicBool>,
    column: Arc<Mutex<bool>>,
    mark: Sender<()>,
    lines: Sender<String>,
    /// What may be the beginning of a marker.
    held: Vec<u8>,
    /// The beginning of a line that is to go above the edited one.
    above: Vec<u8>,
}

impl Reader {
    fn run(mut self) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            if !self.above.is_empty() && !self.is_readable() {
                self.flush_above();
                continue;
            }
            // The last process that could print has ended.
            let Ok(length @ 1..) = (&self.master).read(&mut buffer) else {
                self.flush_above();
                return;
            };
            self.held.extend_from_slice(&buffer[..length]);
            self.take();
        }
    }

    fn is_readable(&self) -> bool {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        let limit = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(PATIENCE.subsec_nanos()),
        };
        poll(&mut fds, Some(&limit)).unwrap_or(1) > 0
    }

    /// Passes on what was read, up to what may be a marker's beginning.
    fn take(&mut self) {
        while let Some(at) = find(&self.held, &self.marker) {
            let before: Vec<u8> = self.held.drain(..at).collect();
            self.held.drain(..self.marker.len());
            self.put(&before);
            self.flush_above();
            let _ = self.mark.send(());
        }
        let kept = beginning_of(&self.marker, &self.held);
        let ready: Vec<u8> = self.held.drain(..self.held.len() - kept).collect();
        self.put(&ready);
    }

    fn put(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.editing.load(SeqCst) {
            self.above.extend_from_slice(bytes);
            if let Some(end) = self.above.iter().rposition(|byte| *byte == b'\n') {
                let whole: Vec<u8> = self.above.drain(..=end).collect();
                let _ = self
                    .lines
                    .send(String::from_utf8_lossy(&whole).into_owned());
            }
            return;
        }
        let before = std::mem::take(&mut self.above);
        // The terminal's own mode makes carriage returns of line ends.
        write(&before);
        write(bytes);
        *self.column.lock().unwrap_or_else(PoisonError::into_inner) = bytes.ends_with(b"\n");
    }

    fn flush_above(&mut self) {
        if self.above.is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.above);
        if self.editing.load(SeqCst) {
            let _ = self.lines.send(String::from_utf8_lossy(&text).into_owned());
        } else {
            write(&text);
            *self.column.lock().unwrap_or_else(PoisonError::into_inner) = text.ends_with(b"\n");
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

/// How many bytes at the end of `text` may be the beginning of `marker`.
fn beginning_of(marker: &[u8], text: &[u8]) -> usize {
    (1..marker.len().min(text.len() + 1))
        .rev()
        .find(|length| text.ends_with(&marker[..*length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_found_wherever_it_is_cut() {
        let marker = b"\x1b]done\x07";
        assert_eq!(beginning_of(marker, b"text\x1b]do"), 4);
        assert_eq!(beginning_of(marker, b"text"), 0);
        assert_eq!(beginning_of(marker, b"\x1b"), 1);
        assert_eq!(beginning_of(marker, b""), 0);
        assert_eq!(find(b"ab\x1b]done\x07c", marker), Some(2));
    }
}
