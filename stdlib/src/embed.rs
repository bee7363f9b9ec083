//! All that scripts see, for an engine that a Rust program has made itself: [`register`].
//!
//! Problem: [`crate::host::Host`] owns its engine and runs one script, to the end of the process. A program that has an engine already,
//! with functions, limits and scopes of its own, and perhaps many scripts to run in turn, wants the same calls in it.
//!
//! ```standalone_crate
//! use mphost_stdlib::embed::{compile, finish, register};
//! use mphost_stdlib::host::child_entry;
//! use mphost_stdlib::runtime::Program;
//! use rhai::{Engine, Scope};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! child_entry();
//! let mut engine = Engine::new();
//! register(&mut engine)?;
//! let script = "fn square(n) { n * n } fn sum(n) { let p = Pool(2); let all = p.map(square, 0..n); p.terminate(); all.reduce(|a, b| a + b, 0) }";
//! let ast = compile(&engine, Program::new("squares", script))?;
//! let sum: i64 = engine.call_fn(&mut Scope::new(), &ast, "sum", (5_i64,))?;
//! assert_eq!(sum, 30);
//! finish(&engine)?;
//! # Ok(())
//! # }
//! ```
//!
//! What children go on with: a forked one with the very engine in which the script runs, and all that is in memory. One that is executed
//! anew (`spawn`, `forkserver`) has an engine that [`child_entry_with`](crate::host::child_entry_with) has made, and compiles the script's
//! text, which is known if [`compile`] compiled it. Where either is missing, starting such a process is a `RuntimeError` that says so.
//!
//! Invariants: one thread of a process runs scripts; one script at a time is the one that children go on with, the one that last started
//! a process. Ctrl-C stays the embedding program's affair: it isn't caught here, but for children.

use crate::error::{Error, Kind, Result, ScriptError, raise, thrown_value};
use crate::process::{self, ending, start};
use crate::runtime::{self, Program, Runtime, UNNAMED, runtime};
use crate::traceback::Sources;
use crate::{catches, host, modules};
use mphost_core::process::Method;
use mphost_core::reap;
use mphost_core::session::{Session, try_session};
use rhai::{
    AST, Dynamic, Engine, EvalAltResult, FuncInfo, Module, NativeCallContext, ParseError, Position,
    Shared,
};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::OnceLock;

/// What the embedding program registers in every engine; set by the call that has to be the first one of `main`.
static EXTENSION: OnceLock<fn(&mut Engine)> = OnceLock::new();

/// The programs that [`compile`] has compiled, by their functions, as long as there are those.
type Programs = Vec<(Weak<Module>, Rc<Program>)>;

thread_local! {
    static EMBEDDED: Cell<bool> = const { Cell::new(false) };
    static PROGRAMS: RefCell<Programs> = const { RefCell::new(Vec::new()) };
}

/// Gives an engine all that scripts see, and makes this process the main process of a program.
///
/// It sets what the engine does with `print` and `debug`, its check between two steps (`on_progress`), its limits of call levels and
/// depth, and its module resolver; what is set afterwards takes their place. Without a check between steps a script that only computes
/// runs no callbacks.
///
/// From then on the kernel's word that a child has ended (SIGCHLD) is answered by this crate: what `std::process::Command` starts later
/// is reaped by it, so that its `wait()` finds nothing any more. Scripts have `subprocess`.
///
/// # Errors
/// `RuntimeError` in another thread than the one that called it first, or for an engine that is older than the call of
/// [`child_entry`](host::child_entry); `OSError` where the system gives no memory or descriptors.
pub fn register(engine: &mut Engine) -> Result<()> {
    runtime::keep_seed();
    if !finds_its_functions(engine) {
        return Err(raise(
            Kind::RuntimeError,
            "this engine was made before child_entry() was called, which changes how functions are found: call it first thing in main()",
        ));
    }
    let levels = engine.max_call_levels();
    match runtime::try_runtime() {
        Some(runtime) => runtime.equip_another(engine),
        None if try_session().is_some() => {
            return Err(raise(
                Kind::RuntimeError,
                "one thread of a process runs mphost's scripts, and another one than this has called register() before: \
                 give that one the scripts, or use a process for each",
            ));
        }
        None => {
            begin()?;
            Runtime::create_guest(engine);
            EMBEDDED.set(true);
            if is_main_thread() {
                crate::stack::prepare();
            }
        }
    }
    if !is_main_thread() {
        // The stacks of other threads are small, and nothing tells where they end.
        engine.set_max_call_levels(levels);
    }
    Ok(())
}

fn begin() -> Result<()> {
    Session::create()?;
    reap::become_subreaper()?;
    reap::install()?;
    mphost_core::process::prepare(start::program_message)?;
    process::become_main()?;
    // It may be gone: then imports are looked for from the root.
    modules::set_start(std::env::current_dir().unwrap_or_default());
    Ok(())
}

fn is_main_thread() -> bool {
    nix::unistd::gettid() == nix::unistd::getpid()
}

/// Whether the seed by which functions are hashed is still the one with which the engine was made.
fn finds_its_functions(engine: &Engine) -> bool {
    let native = |info: FuncInfo<'_>| (info.metadata.name == "to_string").then_some(());
    // An engine that was made raw may have none.
    engine.collect_fn_metadata(None, native, true).is_empty()
        || ["to_string(())", "to_string(true)"].iter().any(|call| {
            let missing = |error: Box<EvalAltResult>| {
                matches!(*error, EvalAltResult::ErrorFunctionNotFound(..))
            };
            !engine.eval::<Dynamic>(call).is_err_and(missing)
        })
}

/// Compiles a script so that children that are executed anew can compile it as well.
///
/// It also gives `catch (e)` an error value for errors of the interpreter, as in every script that the command line runs.
///
/// - `program`: the text and its path, which is what errors and imports go by.
///
/// # Errors
/// The syntax error, with its position.
pub fn compile(engine: &Engine, program: Program) -> std::result::Result<AST, ParseError> {
    let ast = catches::compile(engine, &program.source, &program.path)?;
    let library = ast.shared_lib();
    let program = Rc::new(program);
    PROGRAMS.with_borrow_mut(|all| {
        all.retain(|(library, _)| library.strong_count() > 0);
        all.push((Rc::downgrade(library), program.clone()));
    });
    if let Some(runtime) = runtime::try_runtime() {
        runtime.switch(program, library.clone());
    }
    Ok(ast)
}

/// Starts processes by this method from now on, until a script chooses another.
pub fn set_start_method(method: Method) {
    process::set_default_method(method);
}

/// Ends what a script has left behind: runs what it gave `atexit::register`, ends its pools, terminates daemonic children, joins all
/// others, shuts managers down. The next script may begin then.
///
/// A program that ends without this call takes its children along all the same, by SIGKILL.
///
/// # Errors
/// What an exit handler throws; a `DeadlockError` where the children wait for each other. They are killed then.
pub fn finish(engine: &Engine) -> std::result::Result<(), Box<EvalAltResult>> {
    let Some(runtime) = runtime::try_runtime() else {
        return Ok(());
    };
    let mut global = engine.new_global_runtime_state();
    global.lib.push(runtime.ast().shared_lib().clone());
    let ctx = NativeCallContext::new_with_all_fields(engine, "", None, &global, Position::NONE);
    ending::wind_up(&ctx).map_err(|error| error.into_rhai(None, Position::NONE))
}

/// What an error says, in one line: `TypeError: …`. Rhai itself can't show the values that are thrown here.
#[must_use]
pub fn message(error: &EvalAltResult) -> String {
    let value = thrown_value(error, None);
    match value.read_lock::<ScriptError>() {
        Some(error) => error.to_string(),
        None => value.to_string(),
    }
}

/// What the command line would print of an error that nobody caught: the chain of calls, each with its source line, and the message.
#[must_use]
pub fn traceback(error: &EvalAltResult) -> String {
    let program = runtime::try_runtime().map(Runtime::program);
    let program = program.unwrap_or_else(|| Rc::new(Program::new(UNNAMED, "")));
    let mut sources = Sources::with_main(&program.path, &program.source);
    crate::traceback::format(error, &program.path, false, &mut sources)
}

/// The first call of `main` was made: this process can be executed anew.
pub(crate) fn set_extension(extend: fn(&mut Engine)) {
    let _ = EXTENSION.set(extend);
}

/// Registers what the embedding program has of its own.
pub(crate) fn extend(engine: &mut Engine) {
    if let Some(extend) = EXTENSION.get() {
        extend(engine);
    }
}

/// The script of `ctx` is about to start a process by `method`: it becomes the one that children go on with.
///
/// # Errors
/// `RuntimeError` where a process that is executed anew wouldn't have what it needs.
pub(crate) fn enter(ctx: &NativeCallContext<'_>, method: Method) -> Result<()> {
    let known = !EMBEDDED.get() || switch_to(ctx);
    if method == Method::Fork {
        return Ok(());
    }
    let name = method.name();
    if EXTENSION.get().is_none() {
        return Err(impossible(format!(
            "'{name}' executes this program anew, and its main() doesn't begin with mphost_stdlib::host::child_entry(): call that first, \
             or stay with 'fork'"
        )));
    }
    if !runtime::names_agree() {
        return Err(impossible(format!(
            "'{name}' needs closures to have the same names in every process, and an engine was given to register() before child_entry() \
             was called: call that first thing in main(), or stay with 'fork'"
        )));
    }
    if !known {
        return Err(impossible(format!(
            "a process started by '{name}' compiles this script anew, and only its own engine knows the text: compile it with \
             mphost_stdlib::embed::compile(&engine, Program::new(path, text)), or stay with 'fork'"
        )));
    }
    Ok(())
}

fn impossible(message: String) -> Error {
    raise(Kind::RuntimeError, message)
}

/// Makes the script of `ctx` the current one; false where its text isn't known.
fn switch_to(ctx: &NativeCallContext<'_>) -> bool {
    let runtime = runtime();
    let libraries = &ctx.global_runtime_state().lib;
    let found = PROGRAMS.with_borrow(|all| {
        libraries.iter().find_map(|library| {
            let of_it =
                |(known, _): &&(Weak<Module>, _)| Weak::as_ptr(known) == Shared::as_ptr(library);
            let (_, program) = all.iter().find(of_it)?;
            Some((program.clone(), library.clone()))
        })
    });
    let known = found.is_some();
    let (program, library) = match found {
        Some((_, library)) if Shared::ptr_eq(runtime.ast().shared_lib(), &library) => return true,
        Some(found) => found,
        None => {
            let path = ctx.call_source().unwrap_or(UNNAMED);
            let library = libraries.first().cloned().unwrap_or_default();
            (Rc::new(Program::new(path, "")), library)
        }
    };
    runtime.switch(program, library.clone());
    // What it has imported.
    for other in libraries
        .iter()
        .filter(|other| !Shared::ptr_eq(other, &library))
    {
        for (.., name, _, definition) in other.iter_script_fn_info() {
            crate::convert::adopt_function(name, definition);
        }
    }
    known
}

/// In a forked child: it runs nothing but the script, so Ctrl-C and SIGQUIT are the script's.
pub(crate) fn leave() {
    if EMBEDDED.get() {
        // It can't fail: both can be caught.
        let _ = host::catch_interrupts();
    }
}
