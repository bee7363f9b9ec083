//! Comparing what a script did with what it should do, and saying how they differ.
//!
//! A difference in the lines is shown as a unified diff between what was expected and what came. An expectation that
//! fits a line is shown as that line, so that only real differences stand out.
//!
//! Invariant: a run without failures matched every expectation, left nothing behind and was read whole.

use std::fmt::Write as _;

use similar::{ChangeTag, TextDiff};

use super::execute::{Ended, Outcome};
use super::expectations::{Expectations, Order};
use super::matching::{Item, Verdict, any_order, pair_any_order, pair_in_order, strict};
use super::pattern::{Bindings, Name, Pattern};
use crate::ui::{BOLD, DIM, EXTRA, MISSING, styled};

/// How a test failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What was wrong, in one line.
    pub(crate) summary: String,
    /// The evidence: lines with styles, or nothing.
    pub(crate) detail: String,
}

impl Failure {
    /// A failure that a line says all about.
    pub(crate) fn new(summary: impl Into<String>) -> Failure {
        Failure {
            summary: summary.into(),
            detail: String::new(),
        }
    }
}

/// Pairs of lines beyond which a diff isn't worth its memory.
const MAX_DIFF_PAIRS: usize = 4_000_000;
/// Lines of a diff or of a stream that are shown.
const MAX_SHOWN: usize = 200;

/// Splits output into lines. A missing newline at the end makes no difference.
pub(crate) fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    lines
}

/// Judges a script's run.
pub(crate) fn judge(expected: &Expectations, outcome: &Outcome) -> Vec<Failure> {
    let mut failures = judge_end(expected.exit, outcome);
    if outcome.ended == Ended::Cancelled {
        return failures;
    }
    let (printed, errors) = (lines(&outcome.stdout), lines(&outcome.stderr));
    match compare(expected, &printed, &errors) {
        Verdict::Match => {}
        Verdict::TooHard => failures.push(Failure::new(
            "the comparison was given up: there are too many ways in which the names of the tags could be chosen; use fewer names",
        )),
        Verdict::Mismatch => failures.extend(explain(expected, &printed, &errors)),
    }
    failures
}

/// Judges how a run ended, and what it left behind.
pub(crate) fn judge_end(exit: i32, outcome: &Outcome) -> Vec<Failure> {
    let mut failures = Vec::new();
    match outcome.ended {
        Ended::With(code) if code == exit => {}
        Ended::With(code) => failures.push(Failure::new(format!(
            "{}, expected {exit}",
            end_words(code)
        ))),
        Ended::Cancelled => failures.push(Failure::new("cancelled")),
        Ended::TimedOut => {
            let dump = outcome.dump.as_deref().unwrap_or_default();
            failures.push(Failure {
                summary: format!("timed out after {:.1} s", outcome.duration.as_secs_f64()),
                detail: if dump.trim().is_empty() {
                    String::new()
                } else {
                    format!(
                        "{}\n{}",
                        styled(BOLD, "who waited for what:"),
                        shown(&lines(dump))
                    )
                },
            });
        }
    }
    failures.extend(
        outcome
            .leftovers
            .iter()
            .map(|left| Failure::new(format!("left behind: {left}"))),
    );
    if outcome.truncated {
        failures.push(Failure::new(
            "it printed more than is kept; the rest was thrown away",
        ));
    }
    failures
}

fn end_words(code: i32) -> String {
    match nix::sys::signal::Signal::try_from(code.saturating_neg()) {
        Ok(signal) if code < 0 => format!("ended by {signal} ({code})"),
        _ => format!("exit code {code}"),
    }
}

/// Compares the lines of both streams.
pub(crate) fn compare(expected: &Expectations, printed: &[&str], errors: &[&str]) -> Verdict {
    let mut accept = |bindings: &Bindings| appear(&expected.stderr, errors, bindings);
    match expected.order {
        Order::Strict => strict(&expected.stdout, printed, &mut accept),
        Order::Any => any_order(&expected.stdout, printed, &mut accept),
    }
}

/// Whether each pattern matches some line, names included.
fn appear(patterns: &[Pattern], lines: &[&str], bindings: &Bindings) -> bool {
    let Some((first, rest)) = patterns.split_first() else {
        return true;
    };
    if first.names().next().is_none() {
        return lines.iter().any(|line| first.matches(line)) && appear(rest, lines, bindings);
    }
    lines
        .iter()
        .flat_map(|line| first.solutions(line))
        .any(|solution| {
            let fits = solution
                .iter()
                .all(|(name, text)| bindings.get(name).is_none_or(|bound| bound == text));
            fits && {
                let mut bindings = bindings.clone();
                bindings.extend(solution);
                appear(rest, lines, &bindings)
            }
        })
}

fn explain(expected: &Expectations, printed: &[&str], errors: &[&str]) -> Vec<Failure> {
    let mut failures = Vec::new();
    let diff = diff(expected, printed);
    if !diff.is_empty() {
        let summary = match expected.order {
            Order::Strict => "the output differs",
            Order::Any => "the output differs, in whatever order",
        };
        failures.push(Failure {
            summary: summary.to_owned(),
            detail: diff,
        });
    }
    for pattern in &expected.stderr {
        if !errors.iter().any(|line| pattern.matches(line)) {
            failures.push(Failure::new(format!(
                "standard error lacks a line: {}",
                pattern.source()
            )));
        }
    }
    if failures.is_empty() {
        let mut summary =
            "every line fits by itself, but tags of one name stand for different texts".to_owned();
        if let Some(conflict) = first_conflict(expected, printed) {
            let _ = write!(summary, ": {conflict}");
        }
        failures.push(Failure::new(summary));
    }
    failures
}

fn first_conflict(expected: &Expectations, printed: &[&str]) -> Option<String> {
    let pairs = pair(expected, printed)?;
    let mut bound: std::collections::BTreeMap<Name, (String, usize)> =
        std::collections::BTreeMap::new();
    for (line, item) in pairs.into_iter().enumerate() {
        let pattern = &expected.stdout[item?].pattern;
        for (name, text) in pattern.solutions(printed[line]).into_iter().next()? {
            let (first, at) = bound
                .entry(name.clone())
                .or_insert_with(|| (text.clone(), line));
            if *first != text {
                return Some(format!(
                    "[{}:{}] is {first} in line {} and {text} in line {}",
                    name.0.word(),
                    name.1,
                    *at + 1,
                    line + 1
                ));
            }
        }
    }
    None
}

/// For each printed line the expectation it is shown as; none where the pairing would take too much.
fn pair(expected: &Expectations, printed: &[&str]) -> Option<Vec<Option<usize>>> {
    if expected.stdout.len().saturating_mul(printed.len()) > MAX_DIFF_PAIRS {
        return None;
    }
    let mut pairs = match expected.order {
        Order::Strict => pair_in_order(&expected.stdout, printed).item_of,
        Order::Any => pair_any_order(&expected.stdout, printed).item_of,
    };
    if expected.order == Order::Any {
        for (pair, line) in pairs.iter_mut().zip(printed) {
            let fits = |item: &Item| item.repeated && item.pattern.matches(line);
            *pair = pair.or_else(|| expected.stdout.iter().position(fits));
        }
    }
    Some(pairs)
}

/// A unified diff from the expected lines to the printed ones; empty if each line fits by itself.
fn diff(expected: &Expectations, printed: &[&str]) -> String {
    let items = &expected.stdout;
    let pairs = pair(expected, printed).unwrap_or_else(|| vec![None; printed.len()]);
    // What was expected, with the printed line in place of an expectation that fits it.
    let mut wanted: Vec<&str> = Vec::new();
    let mut next = 0;
    match expected.order {
        Order::Strict => {
            let missing = |from: usize, to: usize| {
                items[from.min(to)..to]
                    .iter()
                    .filter(|item| !item.repeated)
                    .map(|item| item.pattern.source())
            };
            for (line, item) in pairs.iter().enumerate() {
                let Some(item) = *item else { continue };
                wanted.extend(missing(next, item));
                wanted.push(printed[line]);
                next = item + 1;
            }
            wanted.extend(missing(next, items.len()));
        }
        Order::Any => {
            wanted.extend(
                pairs
                    .iter()
                    .zip(printed)
                    .filter(|(item, _)| item.is_some())
                    .map(|(_, line)| line),
            );
            let used: std::collections::HashSet<usize> = pairs.iter().flatten().copied().collect();
            let missing =
                (0..items.len()).filter(|item| !items[*item].repeated && !used.contains(item));
            wanted.extend(missing.map(|item| items[item].pattern.source()));
        }
    }
    if pairs.iter().all(Option::is_some) && wanted.len() == printed.len() {
        return String::new();
    }
    unified(&wanted, printed)
}

fn unified(wanted: &[&str], printed: &[&str]) -> String {
    let diff = TextDiff::from_slices(wanted, printed);
    let mut out = vec![
        styled(MISSING, "--- expected"),
        styled(EXTRA, "+++ printed"),
    ];
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        out.push(styled(DIM, hunk.header()));
        for change in hunk.iter_changes() {
            let text = visible(change.value());
            out.push(match change.tag() {
                ChangeTag::Delete => styled(MISSING, format_args!("-{text}")),
                ChangeTag::Insert => styled(EXTRA, format_args!("+{text}")),
                ChangeTag::Equal => format!(" {text}"),
            });
        }
    }
    let cut = out.len().saturating_sub(MAX_SHOWN);
    out.truncate(MAX_SHOWN);
    if cut > 0 {
        out.push(styled(DIM, format_args!("… and {cut} more lines")));
    }
    out.join("\n")
}

/// A line with its control characters spelled out: what a test prints must not move the cursor.
fn visible(line: &str) -> String {
    line.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

/// The end of a stream, for a failure's report.
pub(crate) fn shown(lines: &[&str]) -> String {
    let cut = lines.len().saturating_sub(MAX_SHOWN);
    let mut out = Vec::new();
    if cut > 0 {
        out.push(styled(DIM, format_args!("… {cut} lines before")));
    }
    out.extend(lines[cut..].iter().map(|line| visible(line)));
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::{expectations, source};
    use super::*;

    fn outcome(ended: Ended, stdout: &str, stderr: &str) -> Outcome {
        Outcome {
            ended,
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            dump: None,
            leftovers: Vec::new(),
            truncated: false,
            duration: std::time::Duration::from_secs(1),
            pid: 10,
            last_pid: 11,
            folder: std::path::PathBuf::new(),
        }
    }

    fn failures(script: &str, stdout: &str, stderr: &str) -> Vec<(String, String)> {
        let expected = expectations::parse(&source::scan(script)).unwrap();
        judge(&expected, &outcome(Ended::With(0), stdout, stderr))
            .into_iter()
            .map(|failure| {
                (
                    failure.summary,
                    anstream::adapter::strip_str(&failure.detail).to_string(),
                )
            })
            .collect()
    }

    #[test]
    fn a_fitting_run_has_no_failures() {
        assert_eq!(
            failures(
                "//> a [N]\n//! oops [PID:p]\n//! [PID:p] again",
                "a 1\n",
                "x\noops 3\noops 4\n4 again\n"
            ),
            []
        );
        assert_eq!(failures("//> a", "a", ""), []);
        assert_eq!(
            failures("//# order: any\n//> a\n//>* b", "b\na\nb\n", ""),
            []
        );
    }

    #[test]
    fn names_hold_across_both_streams() {
        assert_eq!(
            failures("//> [PID:p]\n//! [PID:p] died", "3\n", "4 died\n3 died\n"),
            []
        );
        let found = failures("//> [PID:p]\n//! [PID:p] died", "3\n", "4 died\n");
        assert!(found[0].0.contains("tags of one name"), "{found:?}");
        // There are two ways to choose, and only the second fits standard error.
        assert_eq!(
            failures(
                "//# order: any\n//> [PID:a]\n//> [PID:b]\n//! [PID:b] died",
                "3\n4\n",
                "3 died\n"
            ),
            []
        );
        assert_eq!(
            failures(
                "//# order: any\n//> [PID:a]\n//> [PID:b]\n//! [PID:b] died",
                "3\n4\n",
                "4 died\n"
            ),
            []
        );
    }

    #[test]
    fn no_expectations_mean_no_output() {
        let found = failures("print(1);", "1\n", "");
        assert_eq!(found[0].1, "--- expected\n+++ printed\n@@ -0,0 +1 @@\n+1");
        assert_eq!(failures("print(1);", "", "a warning\n"), []);
    }

    #[test]
    fn the_diff_shows_what_differs_alone() {
        let found = failures(
            "//> pid [PID]\n//> b\n//> c\n//>* w\n//> z [N]",
            "pid 3\nx\nc\nw\nz 1\n",
            "",
        );
        assert_eq!(found[0].0, "the output differs");
        assert_eq!(
            found[0].1,
            "--- expected\n+++ printed\n@@ -1,5 +1,5 @@\n pid 3\n-b\n+x\n c\n w\n z 1"
        );
        let found = failures(
            "//# order: any\n//> pid [PID]\n//> b\n//>* w",
            "w\nx\u{1b}[2J\npid 3\n",
            "",
        );
        assert_eq!(
            found[0].1,
            "--- expected\n+++ printed\n@@ -1,3 +1,3 @@\n w\n+x\\u{1b}[2J\n pid 3\n-b"
        );
    }

    #[test]
    fn names_that_disagree_are_shown() {
        let found = failures(
            "//> [PID:a] starts\n//> [PID:a] ends",
            "3 starts\n4 ends\n",
            "",
        );
        assert!(
            found[0]
                .0
                .ends_with("[PID:a] is 3 in line 1 and 4 in line 2"),
            "{found:?}"
        );
    }

    #[test]
    fn a_missing_line_of_standard_error_is_named() {
        let found = failures("//! Boom: [..]", "", "Bang: 1\n");
        assert_eq!(
            found,
            [(
                "standard error lacks a line: Boom: [..]".to_owned(),
                String::new()
            )]
        );
    }

    #[test]
    fn ends_are_judged() {
        let expected = Expectations {
            exit: -15,
            ..Expectations::default()
        };
        assert_eq!(judge(&expected, &outcome(Ended::With(-15), "", "")), []);
        let found = judge(&expected, &outcome(Ended::With(-9), "", ""));
        assert_eq!(found[0].summary, "ended by SIGKILL (-9), expected -15");
        let mut late = outcome(Ended::TimedOut, "", "");
        late.dump = Some("Process-1 waits for Lock\n".to_owned());
        late.leftovers.push("pid 3".to_owned());
        let found = judge(&expected, &late);
        assert_eq!(found[0].summary, "timed out after 1.0 s");
        assert!(found[0].detail.contains("Process-1 waits for Lock"));
        assert_eq!(found[1].summary, "left behind: pid 3");
    }
}
