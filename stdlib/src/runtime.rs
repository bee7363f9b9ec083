//! The interpreter of this process: one engine, one program, and what every process of a program agrees on.
//!
//! Problem: a function is called by name in a process that may have been made in three ways. Each such process has a
//! [`Runtime`] with an engine that knows the same calls, and the same program compiled with the same names for its closures.
//! A forked child simply goes on with its parent's.
//!
//! Invariants: one runtime a process, made before any script code is compiled; closure names are hashes with one fixed seed.

use crate::api::{Catalogue, Entry, Registry, Vocabulary};
use crate::error::{Error, Kind, Result, ScriptError};
use mphost_core::error::CoreError;
use mphost_core::wait;
use rhai::{AST, Dynamic, Engine, EvalAltResult, OptimizationLevel, ParseError};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::OnceLock;

/// The seed of closure names: any value does, as long as all processes of a program have the same.
const HASHING_SEED: [u64; 4] = [0x6d70_686f_7374, 0x7268_6169, 0x7072_6f63, 0x6573_7365];

/// How deep script functions may call each other before a `RecursionError`, as in Python; the stack has room for it (see the stack room).
const MAX_CALL_LEVELS: usize = 1000;

/// A script: its text, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The path as given (`__file__`), or `<stdin>`, `<command line>`, `<repl>`.
    pub path: String,
    /// The whole text.
    pub source: String,
    /// Where it is typed piece by piece: how it is divided, see [`crate::interactive`].
    pub pieces: Option<Vec<Piece>>,
}

impl Program {
    /// A script that is there as a whole.
    #[must_use]
    pub fn new(path: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            source: source.into(),
            pieces: None,
        }
    }
}

/// A piece of a program that is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its length in bytes, with the line end behind it.
    pub bytes: usize,
    /// How many of its imports took place: the others failed.
    pub imports: usize,
}

/// What the process knows of the way in which it was started.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `__name__`: `__main__`, or `__mp_main__` in spawned and forkserver children.
    pub name: String,
    /// `sys::argv`: the script and its arguments.
    pub argv: Vec<String>,
    /// Whether documentation goes into Rhai's metadata (definition files); costs time at each start.
    pub with_docs: bool,
    /// Whether only calls that the program's text can name are registered ([`Vocabulary`]): for programs whose code is all there, and none of
    /// whose functions are the embedding program's own.
    pub lean: bool,
}

/// The interpreter of this process.
pub struct Runtime {
    engine: Engine,
    settings: Settings,
    program: RefCell<Rc<Program>>,
    ast: RefCell<Rc<AST>>,
    version: Cell<u64>,
    catalogue: Catalogue,
}

thread_local! {
    static RUNTIME: Cell<Option<&'static Runtime>> = const { Cell::new(None) };
    static RAISED: RefCell<Option<Error>> = const { RefCell::new(None) };
}

static SEEDED: OnceLock<()> = OnceLock::new();

/// Fixes the seed of closure names. Must run before anything else of Rhai does; [`Runtime::create`] calls it.
pub fn prepare() {
    SEEDED.get_or_init(|| {
        // Err means that it was set before, which only an embedding program can have done: then its seed is kept.
        let _ = rhai::config::hashing::set_hashing_seed(Some(HASHING_SEED));
    });
}

impl Runtime {
    /// Makes this process's runtime. It lives as long as the process.
    pub fn create(program: Program, settings: Settings) -> &'static Runtime {
        // What will be typed isn't known yet.
        let vocabulary = if settings.lean && program.pieces.is_none() {
            Vocabulary::of(&program.source)
        } else {
            Vocabulary::Everything
        };
        Self::build(program, settings, vocabulary, |_| {})
    }

    /// The same, for programs that have functions of their own to register; nothing is left out then.
    pub fn create_with(
        program: Program,
        settings: Settings,
        customise: impl FnOnce(&mut Engine),
    ) -> &'static Runtime {
        Self::build(program, settings, Vocabulary::Everything, customise)
    }

    fn build(
        program: Program,
        settings: Settings,
        vocabulary: Vocabulary,
        customise: impl FnOnce(&mut Engine),
    ) -> &'static Runtime {
        prepare();
        crate::stack::prepare();
        let mut engine = crate::standard::engine(&vocabulary);
        configure(&mut engine);
        let mut registry = Registry::new(settings.with_docs, vocabulary);
        crate::sys::set_argv(settings.argv.clone());
        crate::register_all(&mut registry);
        register_identity(&mut registry, &settings.name, &program.path);
        let catalogue = registry.install(&mut engine);
        crate::with::install(&mut engine);
        crate::tries::install(&mut engine);
        crate::spawn_syntax(&mut engine);
        engine.set_module_resolver(crate::modules::Resolver::default());
        customise(&mut engine);
        crate::places::set_main_script(&program.path);
        let runtime = Box::leak(Box::new(Runtime {
            engine,
            settings,
            program: RefCell::new(Rc::new(program)),
            ast: RefCell::new(Rc::new(AST::empty())),
            version: Cell::new(0),
            catalogue,
        }));
        RUNTIME.set(Some(runtime));
        crate::queue::expect_callbacks(|| {
            crate::pool::expects_callbacks() || crate::signal::has_handlers()
        });
        wait::set_interrupt_hook(interrupt_hook);
        crate::stuck::install();
        runtime
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How the process was started.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> Rc<Program> {
        self.program.borrow().clone()
    }

    /// The compiled program.
    #[must_use]
    pub fn ast(&self) -> Rc<AST> {
        self.ast.borrow().clone()
    }

    /// The reference's entries: all that scripts can call.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.catalogue.entries()
    }

    /// Compiles the program.
    ///
    /// # Errors
    /// The syntax error, with its position.
    pub fn compile(&self) -> std::result::Result<(), ParseError> {
        let program = self.program();
        let ast = match &program.pieces {
            None => crate::catches::compile(&self.engine, &program.source, &program.path)?,
            Some(pieces) => {
                let Program { path, source, .. } = &*program;
                crate::interactive::compile(&self.engine, path, source, pieces)?
            }
        };
        self.adopt(ast);
        Ok(())
    }

    /// Takes a compiled program over.
    pub fn adopt(&self, ast: AST) {
        crate::convert::script_functions(ast.shared_lib());
        self.ast.replace(Rc::new(ast));
    }

    /// Which version of a typed program this process has; 0 of any other.
    pub(crate) fn version(&self) -> u64 {
        self.version.get()
    }

    /// See [`Runtime::version`].
    pub(crate) fn set_version(&self, version: u64) {
        self.version.set(version);
    }

    /// Takes over what was typed since this process began, if the program is typed.
    ///
    /// # Errors
    /// Where the newest version can't be had.
    pub(crate) fn refresh(&self) -> Result<()> {
        if self.program.borrow().pieces.is_none() {
            return Ok(());
        }
        let Some((version, message)) = crate::interactive::published::newer(self.version())? else {
            return Ok(());
        };
        self.set_program(crate::process::child::decode_program(&message)?.0);
        self.compile()
            .map_err(|e| Error::Rhai(Box::new(EvalAltResult::ErrorParsing(*e.0, e.1))))?;
        self.set_version(version);
        Ok(())
    }

    /// Replaces the program, as a REPL does line by line.
    pub fn set_program(&self, program: Program) {
        crate::places::set_main_script(&program.path);
        self.program.replace(Rc::new(program));
    }
}

/// This process's runtime.
///
/// # Panics
/// Where there is none: calls that need one are only registered by it.
#[must_use]
pub fn runtime() -> &'static Runtime {
    RUNTIME
        .get()
        .expect("scripts run in a process that has made its runtime")
}

/// The constants that tell a process what it runs.
pub(crate) fn register_identity(registry: &mut Registry, name: &str, path: &str) {
    registry.constant(
        "",
        "__name__",
        name.to_owned(),
        "`\"__main__\"` in the main process and its forked children, `\"__mp_main__\"` in all others.",
    );
    registry.constant("", "__file__", path.to_owned(), "The script's path.");
}

/// This process's runtime, if it has made one.
pub(crate) fn try_runtime() -> Option<&'static Runtime> {
    RUNTIME.get()
}

/// [`Runtime::refresh`], where this process has a runtime.
pub(crate) fn refresh() -> Result<()> {
    try_runtime().map_or(Ok(()), Runtime::refresh)
}

fn configure(engine: &mut Engine) {
    engine.set_optimization_level(OptimizationLevel::Simple);
    engine.set_max_call_levels(MAX_CALL_LEVELS);
    engine.set_max_expr_depths(128, 128);
    engine.on_print(|text| {
        let mut line = String::with_capacity(text.len() + 1);
        line.push_str(text);
        line.push('\n');
        // An unwritable standard output is noticed at the next interrupt check: print itself can't throw in Rhai.
        if let Err(error) = crate::output::write_stdout(&line) {
            raise_soon(error);
        }
    });
    engine.on_debug(|text, source, position| {
        if text == crate::logging::RECORDED {
            return;
        }
        let line = format!("{}: {text}\n", crate::error::place(source, position));
        let _ = crate::output::write_stderr(&line);
    });
    // A closure is called at every operation: it must cost next to nothing.
    engine.on_progress(|count| {
        if count & 0xff == 0
            && let Err(error) = wait::poll_interrupts()
        {
            return Some(interrupted(error));
        }
        if crate::stack::is_exhausted() {
            let message = "the stack is used up: functions call each other too deep";
            return Some(Dynamic::from(ScriptError::new(
                Kind::RecursionError,
                message,
            )));
        }
        None
    });
}

/// Makes `error` surface at the next check for interrupts, where the place at hand can't raise it.
pub fn raise_soon(error: Error) {
    RAISED.with_borrow_mut(|raised| {
        raised.get_or_insert(error);
    });
    mphost_core::signals::request_attention();
}

/// The error behind [`CoreError::Interrupted`]: what a signal or a handler raised.
pub fn take_raised() -> Error {
    RAISED
        .with_borrow_mut(Option::take)
        .unwrap_or_else(|| crate::error::raise(Kind::KeyboardInterrupt, ""))
}

/// What [`raise_soon`] was given and no check for interrupts has come across: the last chance is the end of the process.
pub fn take_unseen() -> Option<Error> {
    RAISED.with_borrow_mut(Option::take)
}

fn interrupted(error: CoreError) -> Dynamic {
    let error = match error {
        CoreError::Interrupted(_) => take_raised(),
        other => Error::Core(other),
    };
    let error = error.into_rhai(None, rhai::Position::NONE);
    match error.unwrap_inner() {
        // No error, so nothing that a script could catch: `sys::exit` in a signal's handler.
        EvalAltResult::Exit(..) => Dynamic::UNIT,
        _ => crate::error::thrown_value(&error, None),
    }
}

/// Runs between two sleeps of any wait, and between steps of a script that computes: signals, callbacks, lost workers.
fn interrupt_hook() -> mphost_core::error::Result<()> {
    let result = serve();
    match result {
        Ok(()) if RAISED.with_borrow(Option::is_none) => Ok(()),
        Ok(()) => Err(CoreError::Interrupted(0)),
        Err(error) => {
            RAISED.with_borrow_mut(|raised| *raised = Some(error));
            Err(CoreError::Interrupted(0))
        }
    }
}

thread_local! {
    static IGNORE_INTERRUPTS: Cell<bool> = const { Cell::new(false) };
}

/// Whether Ctrl-C means nothing to this process: so it is in servers, which the main process ends.
pub fn ignore_interrupts(ignore: bool) {
    IGNORE_INTERRUPTS.set(ignore);
}

/// See [`ignore_interrupts`].
#[must_use]
pub fn ignores_interrupts() -> bool {
    IGNORE_INTERRUPTS.get()
}

type Service = fn() -> Result<()>;

thread_local! {
    static SERVICES: RefCell<Vec<Service>> = const { RefCell::new(Vec::new()) };
}

/// Adds what shall be looked after whenever this process has attention to spare (a pool's results, signals).
pub fn add_service(service: Service) {
    SERVICES.with_borrow_mut(|all| {
        if !all
            .iter()
            .any(|known| std::ptr::fn_addr_eq(*known, service))
        {
            all.push(service);
        }
    });
}

fn serve() -> Result<()> {
    while let Some(signal) = mphost_core::signals::take_pending() {
        crate::handle_signal(signal)?;
    }
    mphost_core::process::tidy()?;
    let services = SERVICES.with_borrow(Vec::clone);
    for service in services {
        service()?;
    }
    Ok(())
}
