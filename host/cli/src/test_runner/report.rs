//! Showing results: a line for each test as it ends, the failures' evidence, a summary, and a JUnit file.
//!
//! Invariants: the last line on standard output is `N passed, N failed`; a test's lines are written in one
//! piece; nothing is printed from two threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::Error;
use super::discovery::Case;
use super::verdict::{Failure, lines, shown};
use crate::ui::{BAD, BOLD, DIM, GOOD, Ui, styled};

/// How one test went.
#[derive(Debug)]
pub(crate) struct CaseResult {
    /// What was wrong; empty if it passed.
    pub(crate) failures: Vec<Failure>,
    /// How long it took.
    pub(crate) duration: Duration,
    /// What it printed, for the report.
    pub(crate) stdout: String,
    /// What it wrote on standard error.
    pub(crate) stderr: String,
    /// Its exit code, if it came to one.
    pub(crate) exit: Option<i32>,
}

impl CaseResult {
    /// A test that couldn't be run.
    pub(crate) fn not_run(failure: Failure) -> CaseResult {
        CaseResult {
            failures: vec![failure],
            duration: Duration::ZERO,
            stdout: String::new(),
            stderr: String::new(),
            exit: None,
        }
    }

    /// Nothing was wrong.
    pub(crate) fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// The lines for one test.
pub(crate) fn case_lines(case: &Case, result: &CaseResult) -> String {
    let time = styled(DIM, format_args!("{:.2}s", result.duration.as_secs_f64()));
    if result.passed() {
        return format!("{}   {case} {time}", styled(GOOD, "ok"));
    }
    let mut out = format!("{} {case} {time}", styled(BAD, "FAIL"));
    let mut add = |indent: &str, text: &str| {
        for line in text.lines() {
            out.push('\n');
            out.push_str(indent);
            out.push_str(line);
        }
    };
    for failure in &result.failures {
        add("  ", &styled(BOLD, &failure.summary).to_string());
        add("    ", &failure.detail);
    }
    if let Some(exit) = result.exit {
        add("  ", &format!("exit code: {exit}"));
    }
    if !result.stderr.trim().is_empty() {
        add("  ", &styled(BOLD, "standard error:"));
        add("    ", &shown(&lines(&result.stderr)));
    }
    out
}

/// Prints the end of a run. `skipped` tests weren't begun, because the run was cancelled.
pub(crate) fn summary(ui: &Ui, results: &[(Case, CaseResult)], skipped: usize) {
    let failed: Vec<&Case> = results
        .iter()
        .filter(|(_, result)| !result.passed())
        .map(|(case, _)| case)
        .collect();
    let passed = results.len() - failed.len();
    if !failed.is_empty() && results.len() > 1 {
        let names: Vec<String> = failed.iter().map(|case| format!("  {case}")).collect();
        ui.print(&format!(
            "\n{}\n{}\n",
            styled(BOLD, "failed:"),
            names.join("\n")
        ));
    }
    if skipped > 0 {
        ui.eprint(&format!("cancelled; not begun: {skipped}"));
    }
    let style = if failed.is_empty() { GOOD } else { BAD };
    ui.print(&styled(
        style,
        format_args!("{passed} passed, {} failed", failed.len()),
    ));
}

/// Writes the results in JUnit's XML: a test suite for each script.
///
/// # Errors
///
/// The file can't be written.
pub(crate) fn junit(file: &Path, results: &[(Case, CaseResult)]) -> Result<(), Error> {
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for (case, result) in results {
        let shown = case.script.shown.as_str();
        let suite = suites.entry(shown).or_insert_with(|| TestSuite::new(shown));
        let status = match result.failures.split_first() {
            None => TestCaseStatus::success(),
            Some((first, _)) => {
                let kind = if case.start_method.is_some() {
                    NonSuccessKind::Failure
                } else {
                    NonSuccessKind::Error
                };
                let mut status = TestCaseStatus::non_success(kind);
                let all: Vec<String> = result
                    .failures
                    .iter()
                    .map(|f| format!("{}\n{}", f.summary, f.detail).trim_end().to_owned())
                    .collect();
                status.set_message(first.summary.as_str());
                status.set_description(anstream::adapter::strip_str(&all.join("\n")).to_string());
                status
            }
        };
        let mut test = TestCase::new(case.short_name(), status);
        test.set_classname(shown).set_time(result.duration);
        if !result.passed() {
            test.set_system_out(result.stdout.as_str())
                .set_system_err(result.stderr.as_str());
        }
        suite.add_test_case(test);
    }
    let mut report = Report::new("mphost test");
    report.set_time(results.iter().map(|(_, result)| result.duration).sum());
    report.add_test_suites(suites.into_values());
    let text = report.to_string().map_err(|error| Error::Junit {
        path: file.to_owned(),
        source: std::io::Error::other(error),
    })?;
    std::fs::write(file, text).map_err(|source| Error::Junit {
        path: file.to_owned(),
        source,
    })
}
