//! `mphost test`: runs scripts that say in their own comments what they do.
//!
//! An example and what it prints stay in one file, so neither can change without the other. The
//! rooms, in the order in which a test passes through them:
//!
//! - [`discovery`]: which scripts and test functions there are; [`source`] and [`expectations`] read them.
//! - [`schedule`]: several at a time; [`cancel`] ends them all.
//! - [`mod@execute`]: one run in a session of its own; [`survivors`] finds what it left behind.
//! - [`verdict`]: what fits and what doesn't; [`matching`] and [`pattern`] compare lines.
//! - [`report`]: lines, summary, JUnit.
//! - [`update`]: new expectations instead of a verdict; [`slots`] and [`generalise`] make them.
//!
//! Invariants: a test passes only if every expectation was met and no process or shared memory object of it is
//! left; nothing of a test outlives the runner's answer to it.

mod cancel;
mod discovery;
mod execute;
mod expectations;
mod generalise;
mod matching;
mod pattern;
mod report;
mod schedule;
mod slots;
mod source;
mod survivors;
#[cfg(test)]
mod tests;
mod update;
mod verdict;

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use self::cancel::Cancel;
use self::discovery::{Case, Filter, Script};
use self::execute::{Ended, Outcome, Plan, execute};
use self::expectations::{Expectations, StartMethod};
use self::report::CaseResult;
use self::schedule::Event;
use self::update::Updated;
use self::verdict::Failure;
use crate::ui::{BAD, DIM, GOOD, Ui, styled};

/// How often `--update` runs a script under each start method.
const UPDATE_RUNS: usize = 5;

/// Everything passed.
const PASSED: u8 = 0;
/// Something failed.
const FAILED: u8 = 1;
/// Nothing was run: wrong usage, or no tests.
const USAGE: u8 = 2;

/// What goes wrong before or beside the tests.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A path that was named.
    #[error("can't read {path}: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `--filter /…/`.
    #[error("--filter: {0}; without the slashes it is plain text")]
    Filter(regex::Error),
    /// Nothing to run.
    #[error(
        "no tests found in {0}; a test is a .rhai file, or a function test_… in a file named *_test.rhai"
    )]
    NoTests(String),
    /// There are tests, but not these.
    #[error(
        "none of the {0} tests found is taken by --filter and --start-method; --list shows their names"
    )]
    NoneTaken(usize),
    /// The report's file.
    #[error("can't write {path}: {source}")]
    Junit {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The runner can't be set up.
    #[error("can't prepare the run: {0}")]
    Setup(io::Error),
}

/// The arguments of `mphost test`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TestArgs {
    /// Scripts, or folders to search for .rhai files
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
    /// Take only tests whose name contains TEXT, or matches /REGEX/
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// How many tests to run at a time [default: the number of processors]
    #[arg(long, short, value_name = "N", value_parser = parse_count)]
    jobs: Option<NonZeroUsize>,
    /// Run each test N times
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_count)]
    repeat: NonZeroUsize,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Name the tests and run none
    #[arg(long)]
    list: bool,
    /// Write what the scripts do into them as their expectations
    #[arg(long, conflicts_with_all = ["list", "junit"])]
    update: bool,
    /// Of each test's start methods take only these
    #[arg(long, value_name = "METHOD", value_delimiter = ',')]
    start_method: Vec<StartMethod>,
    /// Let programs whose processes all wait for each other run into their time limits
    #[arg(long)]
    no_deadlock_detection: bool,
}

fn parse_count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "it must be a whole number, 1 or more".to_owned())
}

/// What to test, and with what.
#[derive(Debug, Clone)]
pub(crate) struct TestOptions {
    /// The arguments.
    pub(crate) args: TestArgs,
    /// The mphost program that runs the scripts.
    pub(crate) program: PathBuf,
    /// The folder of named shared memory, where no test may leave anything.
    pub(crate) shared_memory: PathBuf,
}

impl TestOptions {
    /// Tests with this very program.
    ///
    /// # Errors
    ///
    /// It can't find itself (/proc isn't mounted).
    pub(crate) fn new(args: TestArgs) -> Result<TestOptions, Error> {
        Ok(TestOptions {
            args,
            program: std::env::current_exe().map_err(Error::Setup)?,
            shared_memory: PathBuf::from("/dev/shm"),
        })
    }
}

/// Runs `mphost test`. To be called before any other thread is made, because it takes over the signals that end it.
///
/// The exit code is 0 if all passed, 1 if some failed, 2 for wrong usage or no tests, and 128 and the signal's
/// number where a signal ended the run.
pub(crate) fn run(options: &TestOptions, ui: &mut Ui) -> ExitCode {
    let cancel = Cancel::new()
        .map(Arc::new)
        .and_then(|cancel| cancel.on_signals().map(|()| cancel));
    let code = cancel
        .map_err(Error::Setup)
        .and_then(|cancel| run_with(options, ui, &cancel));
    ExitCode::from(code.unwrap_or_else(|error| {
        ui.error(error);
        USAGE
    }))
}

fn run_with(options: &TestOptions, ui: &mut Ui, cancel: &Cancel) -> Result<u8, Error> {
    // Processes whose parents are gone become children of the runner, not of init: so they are found and reaped.
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| Error::Setup(error.into()))?;
    let args = &options.args;
    let filter = args.filter.as_deref().map(Filter::parse).transpose()?;
    let scripts = discovery::scripts(&args.paths)?;
    let cases = discovery::cases(
        &scripts,
        &args.start_method,
        filter.as_ref(),
        args.repeat.get(),
    );
    if cases.is_empty() {
        let all = discovery::cases(&scripts, &[], None, 1).len();
        let paths = args
            .paths
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(", ");
        return Err(if all == 0 {
            Error::NoTests(paths)
        } else {
            Error::NoneTaken(all)
        });
    }
    if args.list {
        cases.iter().for_each(|case| ui.print(&case.to_string()));
        return Ok(PASSED);
    }
    let code = if args.update {
        update_all(options, &cases, ui, cancel)
    } else {
        test_all(options, cases, ui, cancel)?
    };
    Ok(cancel.signal().map_or(code, |signal| 128 + signal as u8))
}

fn jobs(args: &TestArgs) -> usize {
    args.jobs
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get)
}

/// Does `work` for all the cases, with a line of progress, and gives what came of those that were begun.
fn for_all<R: Send>(
    cases: &[Case],
    args: &TestArgs,
    ui: &mut Ui,
    cancel: &Cancel,
    work: impl Fn(&Case) -> R + Sync,
    mut ended: impl FnMut(&Ui, usize, R),
) {
    ui.begin_progress(cases.len());
    let mut running = BTreeSet::new();
    let mut done = 0;
    let ui: &Ui = ui;
    schedule::run(
        cases.len(),
        jobs(args),
        cancel,
        |index| work(&cases[index]),
        |event| {
            match event {
                Event::Began(index) => {
                    running.insert(index);
                }
                Event::Ended(index, result) => {
                    running.remove(&index);
                    done += 1;
                    ended(ui, index, result);
                }
            }
            let names: Vec<String> = running
                .iter()
                .map(|&index| cases[index].to_string())
                .collect();
            ui.progress(done, names.join(", "));
        },
    );
    ui.end_progress();
}

fn test_all(
    options: &TestOptions,
    cases: Vec<Case>,
    ui: &mut Ui,
    cancel: &Cancel,
) -> Result<u8, Error> {
    let mut results: Vec<Option<CaseResult>> = cases.iter().map(|_| None).collect();
    for_all(
        &cases,
        &options.args,
        ui,
        cancel,
        |case| test(options, case, cancel),
        |ui, index, result| {
            ui.print(&report::case_lines(&cases[index], &result));
            results[index] = Some(result);
        },
    );
    let all = cases.len();
    let results: Vec<(Case, CaseResult)> = cases
        .into_iter()
        .zip(results)
        .filter_map(|(case, result)| Some((case, result?)))
        .collect();
    if let Some(file) = &options.args.junit {
        report::junit(file, &results)?;
    }
    report::summary(ui, &results, all - results.len());
    Ok(if results.iter().all(|(_, result)| result.passed()) {
        PASSED
    } else {
        FAILED
    })
}

/// How the program is to run a case.
fn plan<'a>(
    options: &'a TestOptions,
    case: &Case,
    expected: &'a Expectations,
    method: StartMethod,
) -> Plan<'a> {
    let mut arguments = vec![
        "run".to_owned(),
        "--start-method".to_owned(),
        method.to_string(),
    ];
    if options.args.no_deadlock_detection {
        arguments.push("--no-deadlock-detection".to_owned());
    }
    if let Some(function) = &case.function {
        arguments.extend(["--test-function".to_owned(), function.clone()]);
    }
    arguments.push(case.script.path.to_string_lossy().into_owned());
    arguments.extend(expected.args.iter().cloned());
    Plan {
        program: &options.program,
        arguments,
        stdin: expected.stdin.as_deref(),
        timeout: expected.timeout,
        shared_memory: &options.shared_memory,
    }
}

/// Runs one case.
///
/// # Errors
///
/// The script isn't understood, or the program can't be started.
fn run_case(options: &TestOptions, case: &Case, cancel: &Cancel) -> Result<Outcome, Failure> {
    let expected = case
        .script
        .expected
        .as_ref()
        .map_err(|mistakes| mistake(mistakes))?;
    let method = case.start_method.unwrap_or(StartMethod::Fork);
    execute(&plan(options, case, expected, method), cancel)
        .map_err(|error| Failure::new(format!("can't run {}: {error}", options.program.display())))
}

fn mistake(mistakes: &str) -> Failure {
    Failure {
        summary: "its expectations aren't understood".to_owned(),
        detail: mistakes.to_owned(),
    }
}

fn test(options: &TestOptions, case: &Case, cancel: &Cancel) -> CaseResult {
    let outcome = match run_case(options, case, cancel) {
        Ok(outcome) => outcome,
        Err(failure) => return CaseResult::not_run(failure),
    };
    let failures = match (&case.script.expected, &case.function) {
        // What a test function prints is its own affair: it says itself what is right.
        (_, Some(_)) => verdict::judge_end(0, &outcome),
        (Ok(expected), None) => verdict::judge(expected, &outcome),
        (Err(mistakes), None) => vec![mistake(mistakes)],
    };
    CaseResult {
        failures,
        duration: outcome.duration,
        exit: match outcome.ended {
            Ended::With(code) => Some(code),
            Ended::TimedOut | Ended::Cancelled => None,
        },
        stdout: outcome.stdout,
        stderr: outcome.stderr,
    }
}

/// A script, how many of its runs are still to come, and what came of the others.
type Pending = (Arc<Script>, usize, Vec<Result<Outcome, Failure>>);

fn update_all(options: &TestOptions, cases: &[Case], ui: &mut Ui, cancel: &Cancel) -> u8 {
    let runs = UPDATE_RUNS.max(options.args.repeat.get());
    // Test functions have no expectations to update.
    let once: Vec<&Case> = cases
        .iter()
        .filter(|case| case.function.is_none() && case.repetition <= 1)
        .collect();
    let cases: Vec<Case> = once
        .iter()
        .flat_map(|case| {
            let times = if case.start_method.is_some() { runs } else { 1 };
            (0..times).map(|_| Case {
                repetition: 0,
                ..(*case).clone()
            })
        })
        .collect();
    let mut scripts: Vec<Pending> = Vec::new();
    for case in &cases {
        match scripts
            .iter_mut()
            .find(|(script, ..)| Arc::ptr_eq(script, &case.script))
        {
            Some((_, left, _)) => *left += 1,
            None => scripts.push((Arc::clone(&case.script), 1, Vec::new())),
        }
    }
    let (mut updated, mut unchanged, mut failed) = (0, 0, 0);
    for_all(
        &cases,
        &options.args,
        ui,
        cancel,
        |case| run_case(options, case, cancel),
        |ui, index, result| {
            let Some((script, left, results)) = scripts
                .iter_mut()
                .find(|(script, ..)| Arc::ptr_eq(script, &cases[index].script))
            else {
                return;
            };
            results.push(result);
            *left -= 1;
            if *left > 0 {
                return;
            }
            match update_script(script, std::mem::take(results)) {
                Ok(None) => {
                    unchanged += 1;
                    ui.print(&format!(
                        "{}   {} {}",
                        styled(GOOD, "ok"),
                        script.shown,
                        styled(DIM, "unchanged")
                    ));
                }
                Ok(Some(notes)) => {
                    updated += 1;
                    ui.print(&format!(
                        "{}   {} {}",
                        styled(GOOD, "ok"),
                        script.shown,
                        styled(DIM, format_args!("updated from {runs} runs of each"))
                    ));
                    notes.iter().for_each(|note| ui.print(&format!("  {note}")));
                }
                Err(failures) => {
                    failed += 1;
                    let case = Case {
                        script: Arc::clone(script),
                        function: None,
                        start_method: None,
                        repetition: 0,
                    };
                    let result = CaseResult {
                        failures,
                        ..CaseResult::not_run(Failure::new(""))
                    };
                    ui.print(&report::case_lines(&case, &result));
                }
            }
        },
    );
    let style = if failed == 0 { GOOD } else { BAD };
    ui.print(&styled(
        style,
        format_args!("{updated} updated, {unchanged} unchanged, {failed} failed"),
    ));
    if failed == 0 { PASSED } else { FAILED }
}

/// Updates one script from all its runs; gives what was generalised, or nothing if nothing had to change.
fn update_script(
    script: &Script,
    results: Vec<Result<Outcome, Failure>>,
) -> Result<Option<Vec<String>>, Vec<Failure>> {
    let expected = script
        .expected
        .as_ref()
        .map_err(|mistakes| vec![mistake(mistakes)])?;
    let outcomes = results
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(|failure| vec![failure])?;
    let context = slots::Context {
        runner: rustix::process::getpid().as_raw_nonzero().get(),
        now: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64()),
    };
    match update::update(script, expected, &outcomes, context)? {
        Updated::Unchanged => Ok(None),
        Updated::Rewritten { text, notes } => {
            update::replace(&script.path, &text).map_err(|error| {
                vec![Failure::new(format!(
                    "can't write {}: {error}",
                    script.path.display()
                ))]
            })?;
            Ok(Some(notes))
        }
    }
}
