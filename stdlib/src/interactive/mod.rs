//! A program that is typed piece by piece: what a prompt evaluates, and how its processes come to know it.
//!
//! Problem: a function's name means the same in every process only if all of them compile the same text, and closures are named by
//! what they are and where they stand. So a program at a prompt is the list of the pieces that were typed, each compiled on its own, at
//! the line at which it stands in the whole; a process that is executed anew, or asked to call something that it doesn't know, compiles
//! the pieces that it lacks in the same way (`published`). A function that is typed again replaces the one before.
//!
//! Variables, constants and imported modules live on from piece to piece in one scope and one state of the interpreter.
//!
//! Invariants: a piece that doesn't compile leaves no trace; a piece that fails leaves what it had done until then, as a script would;
//! what a piece throws never ends the prompt, but for `sys::exit`.

mod assembly;
pub(crate) mod published;

pub(crate) use assembly::{Assembly, compile};

use crate::error::{Error, Kind, ScriptError, thrown_value};
use crate::host::Host;
use crate::picture::Picture;
use crate::process::ending;
use crate::runtime::{Piece, Program, Runtime};
use crate::traceback::{self, Sources};
use mphost_core::clock::Deadline;
use mphost_core::position::Position as Place;
use mphost_core::snapshot::Snapshot;
use mphost_core::wait::{self, PollFd, WaitInfo, WaitKind};
use rhai::{
    AST, Caches, Dynamic, Engine, EvalAltResult, GlobalRuntimeState, Module, NativeCallContext,
    Position, Scope,
};
use std::cell::RefCell;
use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd};

/// What came of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended; its value as text, if it has one.
    Done(Option<String>),
    /// It threw, or isn't a script: the report, with a line end.
    Failed(String),
    /// It was interrupted.
    Interrupted,
    /// It asked for the end of the program.
    Exit(i32),
}

/// A name that scripts can use at the prompt, for completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The name.
    pub name: String,
    /// The class of a variable's value (`Queue`, `int`), or `function`, `module`.
    pub class: String,
    /// A function's parameters.
    pub params: Vec<String>,
}

type Ask = Box<dyn FnMut(&str) -> Option<String>>;

thread_local! {
    static ASK: RefCell<Option<Ask>> = const { RefCell::new(None) };
}

/// Says who answers `input(prompt)` instead of standard input: `None` is the end of the input.
pub fn answer_input_with(ask: impl FnMut(&str) -> Option<String> + 'static) {
    ASK.set(Some(Box::new(ask)));
}

/// What the one who answers `input` says, if there is one and this is the program's main process.
pub(crate) fn ask(prompt: &str) -> Option<Option<String>> {
    let session = mphost_core::session::try_session()?;
    if session.me() != session.main_slot() {
        return None;
    }
    // It is away while it runs, so that it can't be called from within itself.
    let mut ask = ASK.take()?;
    let answer = ask(prompt);
    ASK.set(Some(ask));
    Some(answer)
}

/// A program that is being typed.
pub struct Interactive {
    host: Host,
    runtime: &'static Runtime,
    scope: Scope<'static>,
    global: GlobalRuntimeState,
    assembly: Assembly,
}

impl Interactive {
    /// Begins with nothing typed.
    #[must_use]
    pub fn new(host: Host) -> Self {
        let runtime = host.runtime();
        let path = runtime.program().path.clone();
        runtime.set_program(Program {
            path: path.clone(),
            source: String::new(),
            pieces: Some(Vec::new()),
        });
        let mut global = runtime.engine().new_global_runtime_state();
        global.source = Some(path.as_str().into());
        Self {
            host,
            runtime,
            scope: Scope::new(),
            global,
            assembly: Assembly::default(),
        }
    }

    fn engine(&self) -> &'static Engine {
        self.runtime.engine()
    }

    /// How many lines the pieces so far have.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.assembly.lines()
    }

    /// Compiles and evaluates one piece.
    pub fn evaluate(&mut self, text: &str) -> Outcome {
        let program = self.runtime.program();
        let piece = match self.assembly.add(self.engine(), &program.path, text) {
            Ok(piece) => piece,
            Err(error) => {
                let whole = format!("{}{text}", program.source);
                let mut sources = Sources::with_main(&program.path, &whole);
                return Outcome::Failed(traceback::format_syntax(
                    &error,
                    &program.path,
                    &mut sources,
                ));
            }
        };
        self.record(&program, text);
        let imports = self.global.num_imports();
        let result = self.run(&piece);
        // An import that failed must not be tried again in every child.
        let done = self.global.num_imports().saturating_sub(imports);
        if self.assembly.settle(done) {
            let mut program = Program::clone(&self.runtime.program());
            if let Some(last) = program.pieces.as_mut().and_then(|pieces| pieces.last_mut()) {
                last.imports = done;
            }
            self.publish(program);
        }
        self.forget_hidden();
        self.outcome(result)
    }

    /// Makes the piece part of the program, for this process and all others.
    fn record(&mut self, program: &Program, text: &str) {
        let mut program = program.clone();
        program.source.push_str(text);
        program.source.push('\n');
        program.pieces.get_or_insert_default().push(Piece {
            bytes: text.len() + 1,
            imports: usize::MAX,
        });
        self.publish(program);
    }

    fn publish(&self, program: Program) {
        self.runtime.adopt(self.assembly.ast(&program.path));
        self.runtime.set_program(program);
        if let Err(error) = published::publish(self.runtime) {
            let _ = crate::output::write_stderr(&format!(
                "mphost: the other processes can't be told of this: {error}\n"
            ));
        }
    }

    fn run(&mut self, piece: &AST) -> Result<Dynamic, Box<EvalAltResult>> {
        self.global.lib.clear();
        self.global.lib.push(never_empty().into());
        self.global
            .lib
            .push(self.runtime.ast().shared_lib().clone());
        let result = evaluate(
            self.runtime.engine(),
            &mut self.global,
            &mut self.scope,
            piece.statements(),
        );
        // What an error left half-way.
        self.global.level = 0;
        self.global.scope_level = 0;
        self.global.always_search_scope = false;
        result
    }

    /// Removes variables that another one of the same name hides: a queue that can't be reached any more is to go.
    fn forget_hidden(&mut self) {
        let mut names = HashSet::new();
        // The newest come first.
        let kept: Vec<(String, bool, Dynamic)> = self
            .scope
            .iter_raw()
            .filter(|(name, ..)| names.insert((*name).to_owned()))
            .map(|(name, constant, value)| (name.to_owned(), constant, value.clone()))
            .collect();
        if kept.len() == self.scope.len() {
            return;
        }
        let mut scope = Scope::new();
        for (name, constant, value) in kept.into_iter().rev() {
            if constant {
                scope.push_constant_dynamic(name, value);
            } else {
                scope.push_dynamic(name, value);
            }
        }
        self.scope = scope;
    }

    fn outcome(&mut self, result: Result<Dynamic, Box<EvalAltResult>>) -> Outcome {
        if let Some(value) = crate::sys::take_exit() {
            return Outcome::Exit(ending::exit_code(&value));
        }
        let result = result.and_then(|value| match crate::runtime::take_unseen() {
            Some(error) => Err(error.into_rhai(None, Position::NONE)),
            None => Ok(value),
        });
        ending::reap();
        match result {
            Ok(value) if value.is_unit() => Outcome::Done(None),
            Ok(value) => Outcome::Done(Some(self.shown(value))),
            Err(error) => match error.unwrap_inner() {
                EvalAltResult::Exit(value, _) => Outcome::Exit(ending::exit_code(value)),
                EvalAltResult::Return(value, _) => Outcome::Done(Some(self.shown(value.clone()))),
                _ => self.failed(&error),
            },
        }
    }

    fn failed(&self, error: &EvalAltResult) -> Outcome {
        let interrupted = thrown_value(error, None)
            .read_lock::<ScriptError>()
            .is_some_and(|error| error.kind() == Kind::KeyboardInterrupt);
        if interrupted {
            return Outcome::Interrupted;
        }
        let program = self.runtime.program();
        let mut sources = Sources::with_main(&program.path, &program.source);
        Outcome::Failed(traceback::format(error, &program.path, false, &mut sources))
    }

    /// A value as it would be written in a script.
    fn shown(&self, value: Dynamic) -> String {
        let mut value = value.flatten();
        let ctx = NativeCallContext::new_with_all_fields(
            self.engine(),
            "to_debug",
            None,
            &self.global,
            Position::NONE,
        );
        match ctx.call_native_fn_raw("to_debug", true, &mut [&mut value]) {
            Ok(text) => text.to_string(),
            Err(_) => format!("<{}>", crate::api::type_name(&value)),
        }
    }

    /// The program's processes, and what each of them waits for.
    #[must_use]
    pub fn processes(&self) -> String {
        let program = self.runtime.program();
        let sources = Sources::with_main(&program.path, &program.source);
        let mut text = Picture::new(&Snapshot::take(), sources).program();
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    /// Starts processes by another method from now on, whatever was chosen before.
    pub fn set_start_method(&mut self, method: &str) -> Outcome {
        let chosen = mphost_core::process::Method::from_name(method)
            .ok_or_else(|| {
                crate::error::raise(Kind::ValueError, "there are fork, spawn and forkserver")
            })
            .and_then(|method| crate::process::set_method(method, true));
        match chosen {
            Ok(()) => Outcome::Done(None),
            Err(error) => self.failed(&error.into_rhai(None, Position::NONE)),
        }
    }

    /// The names that the program has at this point.
    #[must_use]
    pub fn names(&self) -> Vec<Known> {
        let mut names: Vec<Known> = self
            .scope
            .iter_raw()
            .map(|(name, _, value)| Known {
                name: name.to_owned(),
                class: self.class_of(value),
                params: Vec::new(),
            })
            .collect();
        names.extend(self.global.iter_imports().map(|(name, _)| Known {
            name: name.to_owned(),
            class: "module".into(),
            params: Vec::new(),
        }));
        let ast = self.runtime.ast();
        names.extend(
            ast.iter_functions()
                .filter(|function| !function.name.starts_with("anon$"))
                .map(|function| Known {
                    name: function.name.to_owned(),
                    class: "function".into(),
                    params: function.params.iter().map(|p| (*p).to_owned()).collect(),
                }),
        );
        names
    }

    fn class_of(&self, value: &Dynamic) -> String {
        let value = value.flatten_clone();
        match self.engine().map_type_name(value.type_name()) {
            // Rhai's own types have names of their own here, and some of the host's are only known by their Rust names.
            name if name == value.type_name() || value.is_fnptr() => crate::api::type_name(&value),
            name => name.to_owned(),
        }
    }

    /// Waits until there is something to read, and meanwhile does what the program's host has to do: callbacks, signals, workers that
    /// were lost. What a callback throws is returned as a failure.
    pub fn wait_readable(&self, fd: impl AsFd) -> Option<Outcome> {
        let mut fds = [PollFd {
            fd: fd.as_fd().as_raw_fd(),
            events: nix::libc::POLLIN,
            revents: 0,
        }];
        let info = WaitInfo::new(WaitKind::Descriptors, 0, Place::default());
        match wait::wait_fds(&mut fds, info, Deadline::NEVER) {
            Ok(_) => None,
            Err(error) => {
                let error = Error::Core(error).into_rhai(None, Position::NONE);
                if let Some(value) = crate::sys::take_exit() {
                    return Some(Outcome::Exit(ending::exit_code(&value)));
                }
                Some(self.failed(&error))
            }
        }
    }

    /// Ends the program as a script's end does: exit handlers, then the children. Returns the exit code.
    #[must_use]
    pub fn finish(self, code: i32) -> i32 {
        drop(self.scope);
        match self.host.finish(Ok(())) {
            0 => code,
            other => other,
        }
    }
}

/// What is in reach of a call in the program as it is now: its functions and modules, with the constants of `known`.
///
/// # Errors
/// Where a module can't be imported.
pub(crate) fn reach(
    runtime: &Runtime,
    known: &GlobalRuntimeState,
) -> crate::error::Result<GlobalRuntimeState> {
    let ast = runtime.ast();
    let mut global = known.clone();
    global.lib.clear();
    global.lib.push(ast.shared_lib().clone());
    global.truncate_imports(0);
    let imports: Vec<rhai::Stmt> = ast
        .statements()
        .iter()
        .filter(|statement| matches!(statement, rhai::Stmt::Import(..)))
        .cloned()
        .collect();
    let _: Dynamic = evaluate(runtime.engine(), &mut global, &mut Scope::new(), &imports)?;
    Ok(global)
}

fn evaluate(
    engine: &Engine,
    global: &mut GlobalRuntimeState,
    scope: &mut Scope<'static>,
    statements: &[rhai::Stmt],
) -> Result<Dynamic, Box<EvalAltResult>> {
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile calls so; the version is pinned"
    )]
    engine.eval_statements_raw(global, &mut Caches::new(), scope, statements)
}

/// Top-level constants are known to functions only where there are functions at all, says Rhai; at a prompt they may come later.
fn never_empty() -> Module {
    let mut module = Module::new();
    module.set_var("<prompt>", Dynamic::UNIT);
    module
}
