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
use rhai::{AST, Dynamic, Engine, EvalAltResult, Module, OptimizationLevel, ParseError, Shared};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, OnceCell, RefCell};
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
    /// Whether an embedding program runs the scripts, in an engine of its own and perhaps several of them: see [`crate::embed`].
    pub guest: bool,
}

/// The interpreter of this process.
pub struct Runtime {
    /// The host's own engine. In an embedding program it is made when it is first needed: callbacks and signal handlers run in it.
    engine: OnceCell<Engine>,
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

/// Whether the seed of closure names is one that all processes of this program have.
static SEEDED: OnceLock<bool> = OnceLock::new();

/// Fixes the seed of closure names. Must run before anything else of Rhai does; [`Runtime::create`] calls it.
pub fn prepare() {
    SEEDED.get_or_init(|| {
        // Err means that it was set before, which only an embedding program can have done: then its seed is kept.
        rhai::config::hashing::set_hashing_seed(Some(HASHING_SEED)).is_ok() || has_fixed_seed()
    });
}

/// Leaves the seed as it is, because there is an engine already: with another one it wouldn't find its own functions.
pub(crate) fn keep_seed() {
    SEEDED.get_or_init(has_fixed_seed);
}

/// Whether closures have the same names in a process that is executed anew.
pub(crate) fn names_agree() -> bool {
    SEEDED.get().copied().unwrap_or(false)
}

fn has_fixed_seed() -> bool {
    rhai::config::hashing::get_hashing_seed().is_some_and(|seed| seed.iter().any(|part| *part != 0))
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
        let catalogue = equip(&mut engine, &program, &settings, vocabulary);
        customise(&mut engine);
        Self::install(OnceCell::from(engine), catalogue, program, settings)
    }

    /// The runtime of a process whose scripts run in an embedding program's engines, the first of which is given.
    pub(crate) fn create_guest(engine: &mut Engine) -> &'static Runtime {
        let program = Program::new(UNNAMED, "");
        let settings = Settings {
            name: "__main__".into(),
            guest: true,
            ..Settings::default()
        };
        let catalogue = equip(engine, &program, &settings, Vocabulary::Everything);
        Self::install(OnceCell::new(), catalogue, program, settings)
    }

    /// Gives another engine of an embedding program what the first one has.
    pub(crate) fn equip_another(&self, engine: &mut Engine) {
        equip(
            engine,
            &self.program(),
            &self.settings,
            Vocabulary::Everything,
        );
    }

    fn install(
        engine: OnceCell<Engine>,
        catalogue: Catalogue,
        program: Program,
        settings: Settings,
    ) -> &'static Runtime {
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
        self.engine.get_or_init(|| {
            let mut engine = Engine::new();
            equip(
                &mut engine,
                &self.program(),
                &self.settings,
                Vocabulary::Everything,
            );
            engine
        })
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
            None => crate::catches::compile(self.engine(), &program.source, &program.path)?,
            Some(pieces) => {
                let Program { path, source, .. } = &*program;
                crate::interactive::compile(self.engine(), path, source, pieces)?
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

    /// Goes on with another program, of which `library` has the functions: one of those that an embedding program runs in turn.
    pub(crate) fn switch(&self, program: Rc<Program>, library: Shared<Module>) {
        crate::convert::forget_script_functions();
        self.program.replace(program);
        self.adopt(AST::new(Vec::new(), library));
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

/// How a program is called that has no name: one that an embedding program compiles by itself.
pub(crate) const UNNAMED: &str = "<script>";

/// Gives an engine all that scripts see, as far as `vocabulary` can name it.
fn equip(
    engine: &mut Engine,
    program: &Program,
    settings: &Settings,
    vocabulary: Vocabulary,
) -> Catalogue {
    configure(engine);
    let mut registry = Registry::new(settings.with_docs, vocabulary);
    crate::sys::set_argv(settings.argv.clone());
    crate::register_all(&mut registry);
    // One engine may run many of an embedding program's scripts.
    let path = if settings.guest {
        UNNAMED
    } else {
        &program.path
    };
    register_identity(&mut registry, &settings.name, path);
    let catalogue = registry.install(engine);
    crate::with::install(engine);
    crate::tries::install(engine);
    crate::process::anew::install(engine);
    crate::spawn_syntax(engine);
    engine.set_module_resolver(crate::modules::Resolver::default());
    crate::embed::extend(engine);
    catalogue
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
        if count & 0xff != 0 && !crate::stack::is_exhausted() {
            return None;
        }
        pause()
    });
}

/// What happens between two steps of a script now and then: what came up meanwhile, or the end of the stack.
#[cold]
fn pause() -> Option<Dynamic> {
    if let Err(error) = wait::poll_interrupts() {
        return Some(interrupted(error));
    }
    crate::stack::is_exhausted().then(|| {
        let message = "the stack is used up: functions call each other too deep";
        Dynamic::from(ScriptError::new(Kind::RecursionError, message))
    })
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
