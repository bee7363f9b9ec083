//! Taking a printed line apart into text and slots: numbers, times, paths of this machine, addresses.
//!
//! For each slot it is also said whether it may ever be written to the letter (`forced`: never), and
//! whether it could be the process id of one of the run's processes: the system gives these out in
//! order, so they lie between the main process's and the last one given when it ended.
//!
//! Invariant: the pieces' texts put together are the line.

use std::sync::LazyLock;

use regex::Regex;

/// One run's output, and what is needed to recognise what is its own.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// The lines it printed.
    pub(crate) lines: Vec<String>,
    /// The process id of its main process.
    pub(crate) pid: i32,
    /// The last process id given when it ended.
    pub(crate) last_pid: i32,
    /// Paths of this machine that it knows: its working directory, the script's folder.
    pub(crate) paths: Vec<String>,
}

/// What is the same for all runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// The runner's process id: a main process's parent.
    pub(crate) runner: i32,
    /// Seconds since 1970.
    pub(crate) now: f64,
}

/// What kind of thing a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A number.
    Number,
    /// A date and time, or a time of day.
    Time,
    /// A path of this machine, or an address.
    Opaque,
}

/// A part of a line.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Text(String),
    Slot {
        class: Class,
        text: String,
        forced: bool,
        pid: bool,
    },
}

static SLOT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?P<time>[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4}",
        r"|[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?(?:Z|[+-][0-9]{2}:?[0-9]{2}))?",
        r"|\b[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?)",
        r"|(?P<address>\b0[xX][0-9a-fA-F]+)",
        r"|(?P<number>[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?)?)"
    ))
    .expect("a constant")
});
static UNIT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^ ?(?:s|secs?|seconds?|ms|us|µs|ns|minutes?)\b|^ ?(?:秒|毫秒)")
        .expect("a constant")
});

/// Takes a line apart.
pub(crate) fn pieces(line: &str, run: &Run, context: Context) -> Vec<Piece> {
    let path = run
        .paths
        .iter()
        .filter(|path| path.len() > 1)
        .filter_map(|path| Some((line.find(path.as_str())?, path)));
    if let Some((at, path)) = path.max_by_key(|(_, path)| path.len()) {
        let mut all = pieces(&line[..at], run, context);
        all.push(Piece::Slot {
            class: Class::Opaque,
            text: path.clone(),
            forced: true,
            pid: false,
        });
        all.extend(pieces(&line[at + path.len()..], run, context));
        return all;
    }
    let mut all = Vec::new();
    let mut end = 0;
    for found in SLOT.captures_iter(line) {
        let whole = found.get_match();
        let mut start = whole.start();
        let number = found.name("number").is_some();
        let before = &line[end..start];
        // A minus is a sign unless it joins words: Process-1, 3-4.
        if number
            && before.ends_with(['-', '+'])
            && !before[..before.len() - 1].ends_with(|c: char| c.is_alphanumeric())
        {
            let joins = before.len() == 1 && end > 0;
            start -= usize::from(!joins);
        }
        if start > end {
            all.push(Piece::Text(line[end..start].to_owned()));
        }
        let text = line[start..whole.end()].to_owned();
        end = whole.end();
        all.push(if number {
            number_slot(text, &line[end..], run, context)
        } else if found.name("address").is_some() {
            Piece::Slot {
                class: Class::Opaque,
                text,
                forced: false,
                pid: false,
            }
        } else {
            Piece::Slot {
                class: Class::Time,
                text,
                forced: true,
                pid: false,
            }
        });
    }
    if end < line.len() {
        all.push(Piece::Text(line[end..].to_owned()));
    }
    all
}

fn number_slot(text: String, after: &str, run: &Run, context: Context) -> Piece {
    let value = text.parse::<f64>().unwrap_or(0.0);
    let whole = text.parse::<i32>().ok();
    let clock = (value - context.now).abs() < 86_400.0;
    let elapsed = text.contains('.') && UNIT.is_match(after);
    let parent = whole == Some(context.runner);
    // The process ids given while it ran; they may have begun anew meanwhile.
    let own = whole.is_some_and(|pid| {
        if run.pid <= run.last_pid {
            (run.pid..=run.last_pid).contains(&pid)
        } else {
            pid >= run.pid || pid <= run.last_pid
        }
    });
    let positive = text.starts_with(|c: char| ('1'..='9').contains(&c));
    Piece::Slot {
        class: Class::Number,
        forced: clock || elapsed || parent,
        pid: positive && (own || parent),
        text,
    }
}
