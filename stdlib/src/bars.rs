//! Bars of progress at the bottom of the terminal, and how everybody prints above them.
//!
//! Problem: the process that has a pool draws its bars in the last lines of the terminal, and leaves the cursor behind the last bar; its
//! workers print to the same terminal and know nothing of that. So how many bars there are stands in the session's memory, where every
//! process can see it: what is printed begins with going up to the first bar and clearing from there, and ends so many lines further down
//! that the next drawing finds the cursor where it left it.
//!
//! Where standard error is no terminal nothing is drawn, and where standard output is none prints stay as they are. There is no thread
//! behind a bar: it is drawn by whoever settles results.
//!
//! Source: indicatif's documentation; ECMA-48 for the control sequences.

use crate::error::Result;
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use mphost_core::names;
use mphost_core::position::Position;
use mphost_core::shared::Block;
use std::cell::OnceCell;
use std::io::IsTerminal;
use std::sync::atomic::Ordering::SeqCst;

/// Names of shared memory come from scripts as texts that begin with something that can be seen.
const NAME: &str = "\0bars";
/// More bars than a terminal has lines are none that were counted.
const MOST: u64 = 100;

thread_local! {
    static BARS: MultiProgress = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
    static COUNT: OnceCell<Block> = const { OnceCell::new() };
    static TERMINAL: OnceCell<bool> = const { OnceCell::new() };
}

/// A bar.
pub(crate) struct Bar {
    bar: ProgressBar,
    label: String,
    drawn: bool,
}

impl Bar {
    /// A bar with a label (which may be empty) for `total` steps, if that is known.
    pub(crate) fn new(label: &str, total: Option<usize>) -> Self {
        let label = match label {
            "" => String::new(),
            label => format!("{label} "),
        };
        let template = match total {
            Some(_) => "{prefix}{wide_bar} {pos}/{len} {per_sec} [{elapsed} < {eta}]",
            None => "{prefix}{spinner} {pos} {per_sec} [{elapsed}]",
        };
        let drawn = std::io::stderr().is_terminal() && count(1).is_ok();
        let bar = match total {
            _ if !drawn => ProgressBar::hidden(),
            Some(total) => BARS.with(|bars| bars.add(ProgressBar::new(total as u64))),
            None => BARS.with(|bars| bars.add(ProgressBar::new_spinner())),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(label.clone());
        bar.tick();
        Self { bar, label, drawn }
    }

    /// So many steps more are done.
    pub(crate) fn advance(&self, steps: usize) {
        self.bar.inc(steps as u64);
    }

    /// Takes the bar away, and leaves a line above the others that says how it went.
    pub(crate) fn finish(&self) {
        if self.bar.is_finished() {
            return;
        }
        let (done, took) = (self.bar.position(), self.bar.elapsed());
        let total = match self.bar.length() {
            Some(total) => format!("/{total}"),
            None => String::new(),
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate is shown with one decimal place"
        )]
        let rate = done as f64 / took.as_secs_f64().max(1e-9);
        let line = format!(
            "{}{done}{total} in {} ({rate:.1}/s)",
            self.label,
            HumanDuration(took)
        );
        BARS.with(|bars| {
            self.bar.finish_and_clear();
            bars.remove(&self.bar);
            if self.drawn {
                // The others are drawn again below. A terminal that is gone shows nothing more.
                bars.suspend(|| {
                    let _ = crate::output::write_stderr(&format!("\r{line}\n"));
                });
            }
        });
        if self.drawn {
            let _ = count(-1);
        }
    }
}

/// Counts bars of this program.
fn count(change: i64) -> Result<()> {
    if number()?.is_none() {
        let block = Block::create(8, Position::default())?;
        // Another process may just have done the same: then that one is taken.
        names::publish(NAME, block.obj(), Position::default())?;
        number()?;
    }
    COUNT.with(|count| match count.get() {
        Some(block) => {
            block.atomic(0)?.fetch_add(change.cast_unsigned(), SeqCst);
            Ok(())
        }
        None => Ok(()),
    })
}

/// How many bars there are; `None` where there has never been one.
fn number() -> Result<Option<u64>> {
    COUNT.with(|count| {
        if count.get().is_none() {
            let Some(object) = names::find(NAME)? else {
                return Ok(None);
            };
            let _ = count.set(Block::from_ref(object)?);
        }
        count
            .get()
            .map(|block| Ok(block.atomic(0)?.load(SeqCst)))
            .transpose()
    })
}

/// How `text` has to be written to standard output, if there are bars that it has to go above.
pub(crate) fn above(text: &str) -> Option<String> {
    let terminal = TERMINAL.with(|known| *known.get_or_init(|| std::io::stdout().is_terminal()));
    if !terminal || mphost_core::session::try_session().is_none() {
        return None;
    }
    let bars = number().ok().flatten().filter(|n| (1..=MOST).contains(n))?;
    Some(wrapped(text, bars))
}

fn wrapped(text: &str, bars: u64) -> String {
    let up = match bars {
        1 => String::new(),
        _ => format!("\x1b[{}A", bars - 1),
    };
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let down = "\n".repeat(usize::try_from(bars - 1).unwrap_or(0));
    format!("{up}\r\x1b[J{text}{end}{down}")
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn what_is_printed_leaves_room_for_the_bars() {
        assert_eq!(wrapped("a\n", 1), "\r\x1b[Ja\n");
        assert_eq!(wrapped("a", 3), "\x1b[2A\r\x1b[Ja\n\n\n");
    }
}
