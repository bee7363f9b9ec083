//! Everything that the command line itself prints: results, errors, progress.
//!
//! One object writes both streams, so that a progress line on the terminal never tears a
//! result in two. Text is styled with [`anstyle`] everywhere; the styles are taken out again where the
//! stream is no terminal or `NO_COLOR` is set (<https://no-color.org>). What a script prints doesn't come through here.
//!
//! Invariant: printing never fails. A closed pipe (`mphost test | head`) loses text, and no more.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Good news.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Bad news.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// A line that is missing.
pub(crate) const MISSING: Style = AnsiColor::Red.on_default();
/// A line that is too many.
pub(crate) const EXTRA: Style = AnsiColor::Green.on_default();
/// What may be passed over.
pub(crate) const DIM: Style = Style::new().dimmed();
/// A heading.
pub(crate) const BOLD: Style = Style::new().bold();

/// `text` in a style.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

type Sink = Mutex<Box<dyn Write + Send>>;

/// The two streams and the progress line.
pub(crate) struct Ui {
    out: Sink,
    err: Sink,
    progress: ProgressBar,
}

impl Ui {
    /// Standard output and standard error, each with colour if it is a terminal.
    pub(crate) fn standard() -> Ui {
        Ui {
            out: Mutex::new(Box::new(anstream::AutoStream::auto(std::io::stdout()))),
            err: Mutex::new(Box::new(anstream::AutoStream::auto(std::io::stderr()))),
            progress: ProgressBar::hidden(),
        }
    }

    /// Writes both streams, without colour, to `sink`.
    #[cfg(test)]
    pub(crate) fn captured(sink: impl Write + Send + Clone + 'static) -> Ui {
        let stripped =
            || -> Sink { Mutex::new(Box::new(Stripped(sink.clone(), Default::default()))) };
        Ui {
            out: stripped(),
            err: stripped(),
            progress: ProgressBar::hidden(),
        }
    }

    /// Prints lines on standard output.
    pub(crate) fn print(&self, text: &str) {
        self.write(&self.out, text);
    }

    /// Prints lines on standard error.
    pub(crate) fn eprint(&self, text: &str) {
        self.write(&self.err, text);
    }

    /// Prints `error: …` on standard error.
    pub(crate) fn error(&self, text: impl std::fmt::Display) {
        self.eprint(&format!("{}: {text}", styled(BAD, "error")));
    }

    fn write(&self, sink: &Sink, text: &str) {
        self.progress.suspend(|| {
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            let end = if text.ends_with('\n') { "" } else { "\n" };
            let _ = write!(sink, "{text}{end}").and_then(|()| sink.flush());
        });
    }

    /// Shows a progress line for `total` steps, if standard error is a terminal.
    pub(crate) fn begin_progress(&mut self, total: usize) {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        self.progress = bar;
    }

    /// Says what is going on, in the progress line.
    pub(crate) fn progress(&self, done: usize, message: String) {
        self.progress.set_position(done as u64);
        self.progress.set_message(message);
    }

    /// Takes the progress line away.
    pub(crate) fn end_progress(&self) {
        self.progress.finish_and_clear();
    }
}

/// Takes styles out of what a test looks at.
#[cfg(test)]
struct Stripped<W>(W, anstream::adapter::StripBytes);

#[cfg(test)]
impl<W: Write> Write for Stripped<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for piece in self.1.strip_next(bytes) {
            self.0.write_all(piece)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
