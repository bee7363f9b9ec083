//! The command line of mphost, and what a process that the host executed itself does first.

mod exit;
mod new;
mod ps;
mod repl;
mod run;
mod shell;
mod test_runner;
mod ui;

use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
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
  mphost new squares                    a small program with a test
  mphost run scripts/ticket.rhai
  mphost run --start-method spawn scripts/ticket.rhai
  mphost -e 'print(cpu_count())'
  echo 'print(1)' | mphost run -
  mphost test                           all tests below this directory
  mphost                                a prompt";

const RUN_EXAMPLES: &str = "Examples:
  mphost run ticket.rhai
  mphost run ticket.rhai 5 verbose      sys::argv is [\"ticket.rhai\", \"5\", \"verbose\"]
  mphost run --start-method forkserver ticket.rhai
  mphost run -e 'print(cpu_count())'
  echo 'print(1)' | mphost run -

Exit codes: what the script says with sys::exit; 1 after an uncaught error, 2 where nothing was run, 130 after Ctrl-C.";

const REPL_EXAMPLES: &str = "Examples:
  mphost repl
  mphost repl --start-method spawn

At the prompt: :help, :help Queue.put, :ps, :load FILE, :time EXPR, :start-method METHOD, :quit. Functions and closures that are
typed there run in processes and pools. What was typed is remembered in $XDG_STATE_HOME/mphost/history.";

const TEST_EXAMPLES: &str = "Examples:
  mphost test                           all scripts below this directory that say what they print, all *_test.rhai
  mphost test tests --filter lock
  mphost test tests --jobs 4 --repeat 10
  mphost test ticket.rhai --update      write what it prints into its trailing comments
  mphost test tests --junit report.xml";

const CHECK_EXAMPLES: &str = "Examples:
  mphost check ticket.rhai
  git ls-files '*.rhai' | xargs -n 1 mphost check

Exit codes: 0, or 2 with the place of the mistake on standard error.";

const PS_EXAMPLES: &str = "Examples:
  mphost ps                             this user's programs
  mphost ps 4711                        its processes, what each waits for and holds, where in the script
  kill -QUIT 4711                       the same on the program's own standard error; Ctrl-\\ at its terminal";

const NEW_EXAMPLES: &str = "Examples:
  mphost new squares && mphost run squares/main.rhai && mphost test squares";

const DEFINITIONS_EXAMPLES: &str = "Examples:
  mphost definitions .rhai/definitions  where the Rhai language server looks for them";

const COMPLETIONS_EXAMPLES: &str = "Examples:
  mphost completions bash > ~/.local/share/bash-completion/completions/mphost
  mphost completions zsh > ~/.zfunc/_mphost
  mphost completions fish > ~/.config/fish/completions/mphost.fish";

const MAN_EXAMPLES: &str = "Examples:
  mphost man | man -l -
  mphost man ~/.local/share/man/man1";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a script.
    #[command(after_help = RUN_EXAMPLES)]
    Run(run::RunArgs),
    /// Type a program line by line; so does `mphost` alone, on a terminal.
    #[command(after_help = REPL_EXAMPLES)]
    Repl(repl::ReplArgs),
    #[command(name = repl::PROGRAM_COMMAND, hide = true)]
    ReplProgram(repl::ProgramArgs),
    /// Run scripted regression tests.
    #[command(after_help = TEST_EXAMPLES)]
    Test(test_runner::TestArgs),
    /// Compile a script, report what is wrong with it, run nothing.
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// The script, or `-` for standard input.
        script: String,
    },
    /// List the programs that run, or show what the processes of one of them do.
    #[command(after_help = PS_EXAMPLES)]
    Ps(ps::PsArgs),
    /// Write a small program with a test, to begin with.
    #[command(after_help = NEW_EXAMPLES)]
    New(new::NewArgs),
    /// Write Rhai definition files for editors.
    #[command(after_help = DEFINITIONS_EXAMPLES)]
    Definitions(shell::DefinitionsArgs),
    /// Print completions for a shell.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(shell::CompletionsArgs),
    /// Print the man page, or write those of all commands.
    #[command(after_help = MAN_EXAMPLES)]
    Man(shell::ManArgs),
}

/// A text that grows until there is no memory for it is a panic in the library that texts come from (an array is an abort). Nothing goes on after either,
/// and a panic's usual report needs memory: so it is said in one line, and the end is the same.
fn end_where_memory_ends() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        if text.is_some_and(|text| text.contains("allocate memory")) {
            let _ = std::io::stderr().write_all(b"mphost: memory has run out\n");
            std::process::abort();
        }
        usual(panic);
    }));
}

fn main() -> ExitCode {
    end_where_memory_ends();
    mphost_core::heap::keep_freed();
    // A process that the host executed itself never gets past this line.
    mphost_stdlib::host::child_entry();
    let cli = parsed(std::env::args_os().collect());
    let code = match (cli.command, cli.code) {
        (Some(Command::Run(args)), _) => end(run::run(args)),
        (Some(Command::Repl(args)), _) => repl::repl(&args),
        (Some(Command::ReplProgram(args)), _) => repl::serve(args),
        (Some(Command::Test(args)), _) => return test(args),
        (Some(Command::Check { script }), _) => run::check(&script),
        (Some(Command::Ps(args)), _) => ps::run(&args),
        (Some(Command::New(args)), _) => new::new(&args),
        (Some(Command::Definitions(args)), _) => shell::definitions(&args),
        (Some(Command::Completions(args)), _) => shell::completions::<Cli>(&args),
        (Some(Command::Man(args)), _) => shell::man::<Cli>(&args),
        (None, Some(code)) => end(run::run_code(code, cli.args, &cli.common)),
        (None, None) if !cli.args.is_empty() => run::complain(&no_command(&cli.args)),
        (None, None) if std::io::stdin().is_terminal() => {
            repl::repl(&repl::ReplArgs { common: cli.common })
        }
        (None, None) => end(run::run_stdin(&cli.common)),
    };
    ExitCode::from(code)
}

/// The command line. Options in front of a command are the command's: `mphost --start-method spawn run ticket.rhai`.
fn parsed(line: Vec<OsString>) -> Cli {
    let cli = Cli::parse_from(&line);
    let Some(word) = cli.args.first().filter(|_| cli.code.is_none()) else {
        return cli;
    };
    // Behind options clap takes every word for an argument, that of a command too.
    let options = 1..line.len() - cli.args.len();
    if options.is_empty() || Cli::command().find_subcommand(word).is_none() {
        return cli;
    }
    let command = options.end;
    let mut moved = vec![line[0].clone(), line[command].clone()];
    moved.extend_from_slice(&line[options]);
    moved.extend_from_slice(&line[command + 1..]);
    Cli::parse_from(moved)
}

/// Ends the process of a script: nothing that it printed is buffered, and the kernel takes its memory back faster than destructors do.
fn end(code: u8) -> ! {
    mphost_core::process::exit_now(code.into())
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
