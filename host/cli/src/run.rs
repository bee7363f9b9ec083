//! `mphost run`: a script from a file, from standard input or from the command line.

use crate::exit;
use clap::Args;
use mphost_core::process::Method;
use mphost_stdlib::host::Host;
use mphost_stdlib::logging;
use mphost_stdlib::runtime::{Program, Settings};
use std::io::Read;
use std::path::Path;

/// Options of every command that runs a script.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Common {
    /// How processes are started, until the script chooses: fork, spawn or forkserver.
    #[arg(long, value_name = "METHOD", value_parser = parse_method)]
    start_method: Option<Method>,
    /// Let a program whose processes all wait for each other wait for ever.
    #[arg(long)]
    no_deadlock_detection: bool,
    /// Log what processes do to standard error, from this level on: debug, info, warning, error or critical.
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    log: Option<i64>,
}

impl Common {
    /// Does what the options say.
    pub(crate) fn apply(&self, host: &Host) {
        if let Some(method) = self.start_method {
            host.set_default_method(method);
        }
        if self.no_deadlock_detection {
            mphost_core::deadlock::disable();
        }
        if let Some(level) = self.log {
            logging::log_to_stderr(level);
        }
    }

    /// The options as they would be typed.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let method = self
            .start_method
            .map(|method| format!("--start-method={}", method.name()));
        let flag = self
            .no_deadlock_detection
            .then(|| "--no-deadlock-detection".to_owned());
        let log = self.log.map(|level| format!("--log={level}"));
        method.into_iter().chain(flag).chain(log).collect()
    }
}

/// What `mphost run` takes.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    common: Common,
    /// Run this line of code instead of a script.
    #[arg(short = 'e', value_name = "CODE", allow_hyphen_values = true)]
    code: Option<String>,
    /// Call this function of the script instead of its top level.
    #[arg(long, hide = true, value_name = "NAME")]
    test_function: Option<String>,
    /// The script, or `-` for standard input; then its arguments, as they are in `sys::argv`.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "SCRIPT [ARG]"
    )]
    script: Vec<String>,
}

fn parse_method(name: &str) -> Result<Method, String> {
    Method::from_name(name).ok_or_else(|| "there are fork, spawn and forkserver".to_owned())
}

fn parse_level(name: &str) -> Result<i64, String> {
    let level = logging::level_of(name).or_else(|| name.parse().ok());
    level.ok_or_else(|| {
        let names: Vec<&str> = logging::level_names().collect();
        format!("there are {}", names.join(", ").to_lowercase())
    })
}

/// Runs a script. Returns the exit code.
pub(crate) fn run(args: RunArgs) -> u8 {
    if let Some(code) = args.code {
        return run_code(code, args.script, &args.common);
    }
    let Some((script, _)) = args.script.split_first() else {
        return complain(
            "no script is given: `mphost run SCRIPT`, `mphost run -` for standard input, or `mphost run -e CODE`",
        );
    };
    if let Some(message) = stray_option(script) {
        return complain(&message);
    }
    match read(script) {
        Ok(program) => execute(
            program,
            args.script,
            &args.common,
            args.test_function.as_deref(),
        ),
        Err(message) => complain(&message),
    }
}

/// Runs a line of code.
pub(crate) fn run_code(code: String, args: Vec<String>, common: &Common) -> u8 {
    let program = Program::new("<command line>", code);
    let mut argv = vec!["-e".to_owned()];
    argv.extend(args);
    execute(program, argv, common, None)
}

/// Runs what comes on standard input.
pub(crate) fn run_stdin(common: &Common) -> u8 {
    match read("-") {
        Ok(program) => execute(program, vec!["-".into()], common, None),
        Err(message) => complain(&message),
    }
}

/// Compiles a script and runs nothing.
pub(crate) fn check(script: &str) -> u8 {
    match read(script) {
        Ok(program) => match mphost_stdlib::host::check(program) {
            Ok(()) => exit::SUCCESS,
            Err(report) => {
                let _ = mphost_stdlib::output::write_report(&report);
                exit::USAGE
            }
        },
        Err(message) => complain(&message),
    }
}

fn execute(program: Program, argv: Vec<String>, common: &Common, function: Option<&str>) -> u8 {
    let settings = Settings {
        name: "__main__".into(),
        argv,
        with_docs: false,
        lean: true,
        guest: false,
    };
    let host = match Host::new(program, settings) {
        Ok(host) => host,
        Err(error) => {
            return complain(&format!(
                "this machine doesn't let a program begin: {error}"
            ));
        }
    };
    common.apply(&host);
    let code = match function {
        Some(name) => host.run_function(name),
        None => host.run(),
    };
    exit::of_script(code)
}

/// The script's text; the error is a whole sentence with what to do.
fn read(script: &str) -> Result<Program, String> {
    let bytes = if script == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .map_err(|e| format!("standard input can't be read: {}", reason(&e)))?;
        bytes
    } else {
        let path = Path::new(script);
        if path.is_dir() {
            return Err(format!(
                "'{script}' is a directory: name a script in it, such as '{}'",
                path.join("main.rhai").display()
            ));
        }
        std::fs::read(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => format!("there is no script '{script}'{}", near(path)),
            _ => format!("'{script}' can't be read: {}", reason(&e)),
        })?
    };
    let path = if script == "-" {
        "<stdin>".to_owned()
    } else {
        script.to_owned()
    };
    let source = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        format!("'{path}' isn't UTF-8 text (line {line}, byte {at}): save it in that encoding")
    })?;
    // A byte order mark is no part of the text, nor is a first line for the shell.
    let source = source
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(source);
    let source = if source.starts_with("#!") {
        format!("//{source}")
    } else {
        source
    };
    Ok(Program::new(path, source))
}

/// Why an operation on a file failed, for the end of a sentence.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}

/// `; did you mean 'x'?`, from the names in the same folder.
fn near(path: &Path) -> String {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else {
        return String::new();
    };
    let names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let wanted = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    mphost_stdlib::api::suggest(wanted, names.iter().map(String::as_str))
}

/// What to say of `word` in the place of a script or a command, if it looks like an option.
///
/// What follows a script is the script's own, so clap lets every option through there; one in front
/// of it that nobody knows is a mistake.
pub(crate) fn stray_option(word: &str) -> Option<String> {
    if word == "-" || !word.starts_with('-') {
        return None;
    }
    let option = word.split_once('=').map_or(word, |(name, _)| name);
    let known = [
        "--start-method",
        "--no-deadlock-detection",
        "--log",
        "--help",
        "--version",
    ];
    let near = match option {
        // Python's.
        "-c" => "; a line of code is given by -e".to_owned(),
        _ => mphost_stdlib::api::suggest(option, known.into_iter()),
    };
    Some(format!(
        "there is no option '{option}'{near} (a script's own options come after its name; `mphost --help` lists the others)"
    ))
}

pub(crate) fn complain(message: &str) -> u8 {
    let _ = mphost_stdlib::output::write_stderr(&format!("mphost: {message}\n"));
    exit::USAGE
}
