//! `mphost repl`: a prompt at which everything works that works in a script.
//!
//! Two processes. The one that the terminal sees edits lines, draws, and passes Ctrl-C on; the other one is the program
//! ([`program`]), in a process group of its own, so that Ctrl-C interrupts what it evaluates and nothing else. What the program's
//! processes print comes through a terminal between them ([`pump`]), so it never destroys the line that is being typed.
//!
//! Without a terminal, lines are read and evaluated in the same way, with no prompt, no colours and nothing in between.

mod help;
mod helper;
mod lexer;
mod program;
mod protocol;
mod pump;

pub(crate) use program::{ProgramArgs, serve};

use crate::exit;
use crate::run::{Common, complain};
use crate::ui::Ui;
use helper::{Assistant, COMMANDS};
use mphost_core::process::Method;
use mphost_stdlib::api::suggest;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use protocol::{Reply, Request, receive, send};
use pump::Pump;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor};
use std::io::{BufRead, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The hidden command by which the prompt starts its program.
pub(crate) const PROGRAM_COMMAND: &str = "__repl-program";
const PROMPT: &str = ">>> ";
/// How many lines are remembered.
const HISTORY: usize = 10_000;

/// What `mphost repl` takes.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct ReplArgs {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Runs a prompt. Returns the exit code.
pub(crate) fn repl(args: &ReplArgs) -> u8 {
    let result = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        at_terminal(args)
    } else {
        without_terminal(args)
    };
    result.unwrap_or_else(|error| complain(&format!("the prompt can't go on: {error}")))
}

type LineEditor = Editor<Assistant, DefaultHistory>;

/// The program behind the prompt.
struct Program {
    child: Child,
    socket: UnixStream,
    /// Whether it is doing something that Ctrl-C should interrupt.
    busy: Arc<AtomicBool>,
}

/// How a request ended.
enum Ended {
    Done(Vec<protocol::Name>),
    /// The program ends, or is gone.
    Over,
}

impl Program {
    /// Starts it; `output` is the terminal that it prints to, if there is one.
    fn start(args: &ReplArgs, output: Option<(OwnedFd, &str)>) -> std::io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        // By what this process runs, even if that file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("mphost")
            .arg(PROGRAM_COMMAND)
            .args(args.common.arguments())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .process_group(0);
        if let Some((output, marker)) = output {
            command.args(["--marker", marker]);
            if std::io::stderr().is_terminal() {
                command.stderr(Stdio::from(output.try_clone()?));
            }
            command.stdout(Stdio::from(output));
        }
        // It is this process that passes Ctrl-C on.
        let mut interrupts = SigSet::empty();
        interrupts.add(Signal::SIGINT);
        interrupts.add(Signal::SIGQUIT);
        interrupts.thread_block()?;
        let child = command.spawn()?;
        let busy = Arc::new(AtomicBool::new(true));
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
        let forwards = busy.clone();
        let prompting = std::io::stdin().is_terminal();
        std::thread::spawn(move || {
            while let Ok(signal) = interrupts.wait() {
                if forwards.load(SeqCst) {
                    // It may have ended meanwhile: then nobody has to be interrupted.
                    let _ = kill(pid, signal);
                } else if !prompting {
                    // Nobody edits a line that could be given up: the program ends with this process.
                    std::process::exit(i32::from(exit::of_script(128 + signal as i32)));
                }
            }
        });
        Ok(Self {
            child,
            socket,
            busy,
        })
    }

    /// Sends a request and waits until it is done; `answer` says what the script's `input` is answered.
    fn request(
        &self,
        request: Option<&Request>,
        answer: &mut dyn FnMut(&str) -> Option<String>,
    ) -> std::io::Result<Ended> {
        self.busy.store(true, SeqCst);
        if let Some(request) = request
            && send(&self.socket, request).is_err()
        {
            return Ok(Ended::Over);
        }
        loop {
            match receive(&self.socket)? {
                Some(Reply::Done(names)) => {
                    self.busy.store(false, SeqCst);
                    return Ok(Ended::Done(names));
                }
                Some(Reply::Input(prompt)) => {
                    let line = answer(&prompt);
                    if send(&self.socket, &Request::Input(line)).is_err() {
                        return Ok(Ended::Over);
                    }
                }
                Some(Reply::Ending) | None => return Ok(Ended::Over),
            }
        }
    }

    /// Interrupts what is evaluated.
    fn interrupt(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }

    /// Waits for its end; its exit code.
    fn wait(&mut self) -> std::io::Result<u8> {
        self.busy.store(true, SeqCst);
        let status = self.child.wait()?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => exit::of_script(code),
            (None, Some(signal)) => {
                let name = Signal::try_from(signal).map_or_else(
                    |_| format!("signal {signal}"),
                    |signal| signal.as_str().to_owned(),
                );
                complain(&format!("the program was ended by {name}"));
                exit::of_script(128 + signal)
            }
            (None, None) => exit::USAGE,
        })
    }
}

fn at_terminal(args: &ReplArgs) -> std::io::Result<u8> {
    let colour = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .auto_add_history(false)
        .max_history_size(HISTORY)
        .and_then(|config| config.history_ignore_dups(true))
        .map_err(std::io::Error::other)?
        .build();
    let mut editor = LineEditor::with_config(config).map_err(std::io::Error::other)?;
    editor.set_helper(Some(Assistant::new(colour)));
    let (master, slave) = pump::terminal()?;
    // Nothing that a script prints is this by chance.
    let marker = format!("\x1b]mphost;{:x}\x07", std::process::id());
    let program = Program::start(args, Some((slave, &marker)))?;
    let pump = match editor.create_external_printer() {
        Ok(printer) => Pump::start(master, marker, printer)?,
        // A terminal that can't move its cursor: lines come as they come.
        Err(_) => Pump::start(master, marker, Plain)?,
    };
    pump.resize();
    let mut prompt = Prompt {
        editor,
        program,
        pump,
        history: history_file(),
        ui: Ui::standard(),
    };
    prompt.run()
}

/// Prints above a line that nobody redraws.
struct Plain;

impl rustyline::ExternalPrinter for Plain {
    fn print(&mut self, text: String) -> rustyline::Result<()> {
        use std::io::Write;
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(())
    }
}

/// Where lines are remembered: the state directory of the XDG Base Directory Specification.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/state")))?;
    let directory = state.join("mphost");
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory.join("history"))
}

struct Prompt {
    editor: LineEditor,
    program: Program,
    pump: Pump,
    history: Option<PathBuf>,
    ui: Ui,
}

impl Prompt {
    fn run(&mut self) -> std::io::Result<u8> {
        if let Some(file) = &self.history {
            // There may be none yet.
            let _ = self.editor.load_history(file);
        }
        self.ui.print(&format!(
            "mphost {}: :help for help, Ctrl-D to leave",
            env!("CARGO_PKG_VERSION")
        ));
        let mut ended = self.request(None)?;
        while !ended {
            self.pump.set_editing(true);
            let line = self.editor.readline(PROMPT);
            self.pump.set_editing(false);
            self.pump.resize();
            ended = match line {
                Ok(line) if line.trim().is_empty() => false,
                Ok(line) => {
                    self.remember(&line);
                    self.obey(&line)?
                }
                Err(ReadlineError::Interrupted) => false,
                Err(ReadlineError::Eof) => self.request(Some(&Request::Quit))?,
                Err(ReadlineError::Io(error)) => return Err(error),
                Err(error) => return Err(std::io::Error::other(error)),
            };
        }
        let code = self.program.wait()?;
        self.pump.wait_for_end();
        Ok(code)
    }

    fn remember(&mut self, line: &str) {
        // Each line is written at once: a prompt that is killed loses nothing, and two at a time mix no lines.
        let new = self.editor.add_history_entry(line).unwrap_or(false);
        if let Some(file) = self.history.as_ref().filter(|_| new) {
            let _ = self.editor.append_history(file);
        }
    }

    /// Does what a line says; whether that was the end.
    fn obey(&mut self, line: &str) -> std::io::Result<bool> {
        let Some(command) = line.trim().strip_prefix(':') else {
            return self.evaluate(line.to_owned(), false, None);
        };
        let (name, argument) = command.split_once(' ').unwrap_or((command, ""));
        let argument = argument.trim();
        match name {
            "help" | "h" | "?" => {
                if let Some(assistant) = self.editor.helper() {
                    self.ui.print(&help::help(assistant.entries(), argument));
                }
                Ok(false)
            }
            "quit" | "q" | "exit" => self.request(Some(&Request::Quit)),
            "ps" => self.request(Some(&Request::Processes)),
            "time" if !argument.is_empty() => self.evaluate(argument.to_owned(), true, None),
            "load" if !argument.is_empty() => match std::fs::read_to_string(argument) {
                Ok(text) => self.evaluate(text, false, Some(argument.to_owned())),
                Err(error) => self.refuse(&format!(
                    "'{argument}' can't be read: {}",
                    crate::run::reason(&error)
                )),
            },
            "start-method" if Method::from_name(argument).is_some() => {
                self.request(Some(&Request::StartMethod(argument.to_owned())))
            }
            "start-method" => self.refuse("there are fork, spawn and forkserver"),
            "time" | "load" => {
                let (name, takes, _) = COMMANDS
                    .iter()
                    .find(|(known, ..)| known.strip_prefix(':') == Some(name))
                    .copied()
                    .unwrap_or_default();
                self.refuse(&format!("it is used as `{name} {takes}`"))
            }
            _ => {
                let known = COMMANDS.iter().map(|(name, ..)| *name);
                let near = suggest(&format!(":{name}"), known);
                self.refuse(&format!(
                    "there is no command ':{name}'{near} (:help lists them)"
                ))
            }
        }
    }

    fn refuse(&self, message: &str) -> std::io::Result<bool> {
        self.ui.error(message);
        Ok(false)
    }

    fn evaluate(
        &mut self,
        text: String,
        timed: bool,
        file: Option<String>,
    ) -> std::io::Result<bool> {
        self.request(Some(&Request::Evaluate { text, timed, file }))
    }

    /// Has a request done, with all that it prints; whether the program ends with it.
    fn request(&mut self, request: Option<&Request>) -> std::io::Result<bool> {
        let (editor, program) = (&mut self.editor, &self.program);
        let mut answer = |prompt: &str| answer(editor, program, prompt);
        match self.program.request(request, &mut answer)? {
            Ended::Done(names) => {
                self.pump.wait_for_marker();
                if let Some(assistant) = self.editor.helper_mut() {
                    assistant.learn(names);
                }
                Ok(false)
            }
            Ended::Over => Ok(true),
        }
    }
}

/// Asks the user for a line that the script wants.
fn answer(editor: &mut LineEditor, program: &Program, prompt: &str) -> Option<String> {
    if let Some(assistant) = editor.helper_mut() {
        assistant.set_answering(true);
    }
    let line = editor.readline(prompt);
    if let Some(assistant) = editor.helper_mut() {
        assistant.set_answering(false);
    }
    match line {
        Ok(line) => Some(line),
        Err(ReadlineError::Interrupted) => {
            program.interrupt();
            None
        }
        Err(_) => None,
    }
}

fn without_terminal(args: &ReplArgs) -> std::io::Result<u8> {
    let mut program = Program::start(args, None)?;
    let mut lines = std::io::stdin().lock().lines();
    let mut nobody = |_: &str| None;
    let mut ended = matches!(program.request(None, &mut nobody)?, Ended::Over);
    let mut text = String::new();
    while !ended {
        let line = lines.next().transpose()?;
        let last = line.is_none();
        text.push_str(line.as_deref().unwrap_or_default());
        if !last && !helper::is_complete(&text) {
            text.push('\n');
            continue;
        }
        let input = std::mem::take(&mut text);
        let request = match command_of(&input) {
            _ if input.trim().is_empty() => None,
            Some(Ok(request)) => Some(request),
            Some(Err(message)) => {
                complain(&message);
                None
            }
            None => Some(Request::Evaluate {
                text: input,
                timed: false,
                file: None,
            }),
        };
        let mut answer = |prompt: &str| {
            // As `input` does without a terminal.
            let _ = mphost_stdlib::output::write_stdout(prompt);
            lines.next().and_then(Result::ok)
        };
        if let Some(request) = request {
            ended = matches!(program.request(Some(&request), &mut answer)?, Ended::Over);
        }
        if last && !ended {
            ended = matches!(
                program.request(Some(&Request::Quit), &mut nobody)?,
                Ended::Over
            );
        }
    }
    program.wait()
}

/// The request that a line without a terminal behind it asks for, if it is a command of the prompt.
fn command_of(line: &str) -> Option<Result<Request, String>> {
    let command = line.trim().strip_prefix(':')?;
    let (name, argument) = command.split_once(' ').unwrap_or((command, ""));
    let argument = argument.trim().to_owned();
    Some(match name {
        "quit" | "q" | "exit" => Ok(Request::Quit),
        "ps" => Ok(Request::Processes),
        "time" => Ok(Request::Evaluate {
            text: argument,
            timed: true,
            file: None,
        }),
        "start-method" if Method::from_name(&argument).is_some() => {
            Ok(Request::StartMethod(argument))
        }
        "load" => std::fs::read_to_string(&argument)
            .map_err(|error| format!("'{argument}' can't be read: {}", crate::run::reason(&error)))
            .map(|text| Request::Evaluate {
                text,
                timed: false,
                file: Some(argument),
            }),
        _ => Err(format!("':{name}' needs a terminal, or isn't there at all")),
    })
}
