//! The command line of mphost: `run`, `test`, `check`, and what a process that the host executed itself does first.

mod exit;
mod run;
mod test_runner;
mod ui;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Runs Rhai scripts whose tasks run in processes of their own: Python's multiprocessing, its names and its meaning.
#[derive(Debug, Parser)]
#[command(name = "mphost", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Run this line of code instead of a script.
    #[arg(short = 'e', value_name = "CODE", allow_hyphen_values = true)]
    code: Option<String>,
    #[command(flatten)]
    common: run::Common,
    /// Arguments of the line of code: `sys::argv`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    args: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "Examples:
  mphost run scripts/ticket.rhai
  mphost run --start-method spawn scripts/ticket.rhai
  mphost -e 'print(cpu_count())'
  echo 'print(1)' | mphost run -";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a script.
    Run(run::RunArgs),
    /// Run scripted regression tests.
    Test(test_runner::TestArgs),
    /// Compile a script, report what is wrong with it, run nothing.
    Check {
        /// The script, or `-` for standard input.
        script: String,
    },
}

fn main() -> ExitCode {
    // A process that the host executed itself never gets past this line.
    mphost_stdlib::host::child_entry();
    let cli = Cli::parse();
    let code = match (cli.command, cli.code) {
        (Some(Command::Run(args)), _) => run::run(args),
        (Some(Command::Test(args)), _) => return test(args),
        (Some(Command::Check { script }), _) => run::check(&script),
        (None, Some(code)) => run::run_code(code, cli.args, &cli.common),
        (None, None) if !cli.args.is_empty() => run::complain(&no_command(&cli.args)),
        (None, None) => run::run_stdin(&cli.common),
    };
    ExitCode::from(code)
}

/// What to say of a first word that is no command.
fn no_command(args: &[String]) -> String {
    let word = args[0].as_str();
    if let Some(message) = run::stray_option(word) {
        return message;
    }
    if word == "-" || word.ends_with(".rhai") || std::path::Path::new(word).is_file() {
        return format!("'{word}' is no command: to run a script say `mphost run {word}`");
    }
    let command = Cli::command();
    let names = command.get_subcommands().map(clap::Command::get_name);
    let near = mphost_stdlib::api::suggest(word, names);
    format!("there is no command '{word}'{near} (`mphost --help` lists them)")
}

fn test(args: test_runner::TestArgs) -> ExitCode {
    let mut ui = ui::Ui::standard();
    match test_runner::TestOptions::new(args) {
        Ok(options) => test_runner::run(&options, &mut ui),
        Err(error) => {
            ui.error(error);
            ExitCode::from(exit::USAGE)
        }
    }
}
