//! The program behind the prompt: the main process of a session, which evaluates what it is sent.
//!
//! Its standard input is the prompt's socket at first; then it has none, and `input` asks the prompt. While nothing is evaluated it
//! waits as every process of a session does, so callbacks run and lost workers are replaced between two lines.

use super::protocol::{Name, Reply, Request, receive, send};
use crate::exit;
use crate::run::{Common, complain};
use mphost_stdlib::host::Host;
use mphost_stdlib::interactive::{self, Interactive, Outcome};
use mphost_stdlib::output;
use mphost_stdlib::runtime::{Program, Settings};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;

/// What the prompt starts its program with.
#[derive(clap::Args, Debug)]
pub(crate) struct ProgramArgs {
    #[command(flatten)]
    common: Common,
    /// What to print when all that belongs to a request has been printed.
    #[arg(long, hide = true)]
    marker: Option<String>,
}

/// Serves one prompt. Returns the exit code.
pub(crate) fn serve(args: ProgramArgs) -> u8 {
    let socket = match begin() {
        Ok(socket) => Rc::new(socket),
        Err(error) => return complain(&format!("the prompt's program can't begin: {error}")),
    };
    let settings = Settings {
        name: "__main__".into(),
        argv: vec![String::new()],
        with_docs: false,
        // What will be typed isn't known yet.
        lean: false,
        guest: false,
    };
    let host = match Host::new(Program::new("<repl>", ""), settings) {
        Ok(host) => host,
        Err(error) => {
            return complain(&format!(
                "this machine doesn't let a program begin: {error}"
            ));
        }
    };
    args.common.apply(&host);
    let asking = socket.clone();
    interactive::answer_input_with(move |prompt| {
        send(&asking, &Reply::Input(prompt.to_owned())).ok()?;
        match receive(&asking) {
            Ok(Some(Request::Input(line))) => line,
            _ => None,
        }
    });
    let mut server = Server {
        socket,
        marker: args.marker,
        program: Interactive::new(host),
        loaded: Vec::new(),
    };
    let code = server.serve();
    let Server {
        program, socket, ..
    } = server;
    let _ = send(&socket, &Reply::Ending);
    exit::of_script(program.finish(code))
}

/// Takes the socket over from standard input, and makes sure that the program doesn't outlive its prompt.
fn begin() -> std::io::Result<UnixStream> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let nothing = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // It may have died before: then its end of the socket is closed, and the first look at it says so.
    Ok(socket)
}

struct Server {
    socket: Rc<UnixStream>,
    marker: Option<String>,
    program: Interactive,
    loaded: Vec<Loaded>,
}

/// A file that was loaded: where it stands in what was typed.
struct Loaded {
    path: String,
    /// So many lines come before it.
    before: usize,
    lines: usize,
}

impl Server {
    /// Answers requests until the end is asked for; returns the exit code.
    fn serve(&mut self) -> i32 {
        if self.done().is_err() {
            return 0;
        }
        loop {
            if let Some(outcome) = self.program.wait_readable(&*self.socket) {
                match self.show(outcome) {
                    Some(code) => return code,
                    None => continue,
                }
            }
            let Ok(Some(request)) = receive(&self.socket) else {
                return 0;
            };
            let ended = match request {
                Request::Evaluate { text, timed, file } => {
                    if let Some(path) = file {
                        self.loaded.push(Loaded {
                            path,
                            before: self.program.lines(),
                            lines: text.lines().count(),
                        });
                    }
                    let start = Instant::now();
                    let outcome = self.program.evaluate(&text);
                    let took = start.elapsed();
                    let code = self.show(outcome);
                    if timed {
                        print(&format!("{:.6} s\n", took.as_secs_f64()));
                    }
                    code
                }
                Request::StartMethod(method) => {
                    let outcome = self.program.set_start_method(&method);
                    self.show(outcome)
                }
                Request::Processes => {
                    print(&self.program.processes());
                    None
                }
                Request::Input(_) => None,
                Request::Quit => Some(0),
            };
            if let Some(code) = ended {
                return code;
            }
            if self.done().is_err() {
                return 0;
            }
        }
    }

    fn done(&self) -> std::io::Result<()> {
        let names = self
            .program
            .names()
            .into_iter()
            .map(|known| Name {
                name: known.name,
                class: known.class,
                params: known.params,
            })
            .collect();
        if let Some(marker) = &self.marker {
            print(marker);
        }
        send(&self.socket, &Reply::Done(names))
    }

    /// Prints what came of a piece; the exit code if it was the end.
    fn show(&self, outcome: Outcome) -> Option<i32> {
        match outcome {
            Outcome::Done(None) => {}
            Outcome::Done(Some(value)) => print(&format!("{value}\n")),
            Outcome::Failed(report) => {
                let _ = output::write_report(&self.in_files(&report));
            }
            Outcome::Interrupted => {
                // The terminal has shown `^C`, in the line where it was typed.
                let text = match self.marker {
                    Some(_) => "\nKeyboardInterrupt\n",
                    None => "KeyboardInterrupt\n",
                };
                let _ = output::write_stderr(text);
            }
            Outcome::Exit(code) => return Some(code),
        }
        None
    }
}

impl Server {
    /// A report with the places of loaded files as they are in the files.
    fn in_files(&self, report: &str) -> String {
        const HERE: &str = "File \"<repl>\", line ";
        let mut text = String::with_capacity(report.len());
        for line in report.split_inclusive('\n') {
            let place = line.split_once(HERE).and_then(|(indent, rest)| {
                let digits = rest.find(|c: char| !c.is_ascii_digit())?;
                let number: usize = rest[..digits].parse().ok()?;
                // The latest comes first: a file that didn't compile takes no place.
                let file = self.loaded.iter().rev().find(|file| {
                    (file.before + 1..=file.before + file.lines.max(1)).contains(&number)
                })?;
                let number = number - file.before;
                Some(format!(
                    "{indent}File \"{}\", line {number}{}",
                    file.path,
                    &rest[digits..]
                ))
            });
            text.push_str(place.as_deref().unwrap_or(line));
        }
        text
    }
}

fn print(text: &str) {
    // A terminal that is gone ends the program by itself.
    let _ = output::write_stdout(text);
}
