//! The life of a program's main process, and the entry of processes that the host executes itself.
//!
//! An embedding program calls [`child_entry`] first thing in its `main`: where it was executed as a child of its own, that call
//! never returns. Then it makes a [`Host`] and runs its script; or it gives what scripts see to an engine of its own: [`crate::embed`].

use crate::error::Result;
use crate::modules;
use crate::process::{self, child, ending, start};
use crate::runtime::{self, Program, Runtime, Settings};
use crate::traceback::{self, Sources};
use mphost_core::process::Method;
use mphost_core::session::Session;
use mphost_core::{reap, signals};
use nix::sys::signal::Signal;
use rhai::{Dynamic, Engine, EvalAltResult, NativeCallContext, Position, Scope};

/// Does what this process was executed for, if the host executed it: then it doesn't return.
///
/// The first call of `main`, before any engine is made.
pub fn child_entry() {
    child_entry_with(|_| {});
}

/// The same for programs that have functions of their own: `extend` is called for every engine in which scripts run, in this process
/// and in those that are executed anew, so that all start methods find what it registers.
///
/// ```standalone_crate
/// use mphost_stdlib::host::{Host, child_entry_with};
/// use mphost_stdlib::runtime::{Program, Settings};
///
/// child_entry_with(|engine| {
///     engine.register_fn("price", |item: &str| if item == "apple" { 3_i64 } else { 0 });
/// });
/// let script = "let p = get_context(\"spawn\").Process(|| sys::exit(price(\"apple\"))); p.start(); p.join(); sys::exit(p.exitcode);";
/// let host = Host::new(Program::new("prices", script), Settings::default())?;
/// assert_eq!(host.run(), 3);
/// # Ok::<(), mphost_stdlib::error::Error>(())
/// ```
pub fn child_entry_with(extend: fn(&mut Engine)) {
    runtime::prepare();
    crate::embed::set_extension(extend);
    let entry = match mphost_core::process::entry() {
        Ok(None) => return,
        Ok(Some(entry)) => entry,
        Err(error) => {
            let _ = crate::output::write_stderr(&format!("mphost: {error}\n"));
            mphost_core::process::exit_now(2);
        }
    };
    let code = if entry.forkserver {
        serve(&entry.bootstrap)
    } else {
        run_child(entry)
    };
    mphost_core::process::exit_now(code)
}

fn install() -> mphost_core::error::Result<()> {
    reap::install()?;
    catch_interrupts()?;
    signals::unblock_all();
    mphost_core::process::prepare(start::program_message)
}

/// Ctrl-C becomes a KeyboardInterrupt; SIGQUIT is answered with a picture of the program.
pub(crate) fn catch_interrupts() -> mphost_core::error::Result<()> {
    signals::catch(Signal::SIGINT as i32)?;
    signals::catch(Signal::SIGQUIT as i32)
}

fn run_child(entry: mphost_core::process::Entry) -> i32 {
    if let Err(error) = install() {
        let _ = crate::output::write_stderr(&format!("mphost: {error}\n"));
        return 1;
    }
    child::run_executed(entry.bootstrap, entry.fds)
}

fn serve(program: &[u8]) -> i32 {
    let result = install().map_err(|error| error.to_string()).and_then(|()| {
        child::prepare_program(program).map_err(|_| "the program doesn't compile".to_owned())?;
        // Ctrl-C is the main process's affair. Not ignored by the kernel: a child's own handler would come too late.
        runtime::ignore_interrupts(true);
        mphost_core::process::serve(&mut |bootstrap, fds| {
            runtime::ignore_interrupts(false);
            child::run_served(bootstrap, fds)
        })
        .map_err(|error| error.to_string())
    });
    match result {
        Ok(()) => 0,
        Err(error) => {
            let _ = crate::output::write_stderr(&format!("mphost forkserver: {error}\n"));
            1
        }
    }
}

/// The main process of a program.
///
/// ```standalone_crate
/// use mphost_stdlib::host::{Host, child_entry};
/// use mphost_stdlib::runtime::{Program, Settings};
///
/// // A process that the host executed itself never gets past this line.
/// child_entry();
/// let program = Program::new("hello", "let p = spawn(|| print(6 * 7)); p.join(); sys::exit(p.exitcode);");
/// let host = Host::new(program, Settings::default())?;
/// assert_eq!(host.run(), 0);
/// # Ok::<(), mphost_stdlib::error::Error>(())
/// ```
pub struct Host {
    runtime: &'static Runtime,
}

impl Host {
    /// Makes this process the main process of a program.
    ///
    /// # Errors
    /// Where the system gives no memory or descriptors.
    pub fn new(program: Program, settings: Settings) -> Result<Host> {
        Self::begin(|| Runtime::create(program, settings))
    }

    /// The same, with functions of the embedding program's own.
    ///
    /// Children that are executed anew don't have those: such programs stay with `fork`, or give their functions to [`child_entry_with`].
    ///
    /// # Errors
    /// As [`Host::new`].
    pub fn with_engine(
        program: Program,
        settings: Settings,
        customise: impl FnOnce(&mut Engine),
    ) -> Result<Host> {
        Self::begin(|| Runtime::create_with(program, settings, customise))
    }

    fn begin(make: impl FnOnce() -> &'static Runtime) -> Result<Host> {
        runtime::prepare();
        Session::create()?;
        reap::become_subreaper()?;
        install()?;
        signals::insist_on_interrupts(true);
        process::become_main()?;
        // It may be gone: then imports are looked for from the root.
        modules::set_start(std::env::current_dir().unwrap_or_default());
        Ok(Host { runtime: make() })
    }

    /// The interpreter.
    #[must_use]
    pub fn runtime(&self) -> &'static Runtime {
        self.runtime
    }

    /// Chooses the start method that is in force until the script chooses one.
    pub fn set_default_method(&self, method: Method) {
        process::set_default_method(method);
    }

    /// Compiles and runs the program to its end, its children's included. Returns the exit code.
    ///
    /// 0 at a normal end, 1 for an uncaught error, 2 for a syntax error (nothing is run then), 130 after Ctrl-C, else what
    /// `sys::exit` says.
    #[must_use]
    pub fn run(&self) -> i32 {
        if let Err(report) = compile(self.runtime) {
            let _ = crate::output::write_report(&report);
            return SYNTAX_ERROR;
        }
        let ast = self.runtime.ast();
        let result = self
            .runtime
            .engine()
            .run_ast_with_scope(&mut Scope::new(), &ast);
        self.finish(result)
    }

    /// Ends the program: exit handlers, children, the report of an uncaught error.
    #[must_use]
    pub fn finish(&self, result: std::result::Result<(), Box<EvalAltResult>>) -> i32 {
        let engine = self.runtime.engine();
        let mut global = engine.new_global_runtime_state();
        global.lib.push(self.runtime.ast().shared_lib().clone());
        global.source = Some(self.runtime.program().path.as_str().into());
        let ctx = NativeCallContext::new_with_all_fields(engine, "", None, &global, Position::NONE);
        ending::finish(result, &ctx)
    }

    /// Calls a script function of the compiled program after its constants and imports have been evaluated, as `mphost test` does
    /// with `test_…` functions. Returns the exit code.
    #[must_use]
    pub fn run_function(&self, name: &str) -> i32 {
        if let Err(report) = compile(self.runtime) {
            let _ = crate::output::write_report(&report);
            return SYNTAX_ERROR;
        }
        let result = child::call_function(name).map(|_: Dynamic| ());
        self.finish(result)
    }
}

/// Compiles a program with everything registered, and runs nothing.
///
/// ```standalone_crate
/// use mphost_stdlib::host::check;
/// use mphost_stdlib::runtime::Program;
///
/// assert!(check(Program::new("fine", "print(1);")).is_ok());
/// let report = check(Program::new("mistaken", "let x = ;")).expect_err("that is no script");
/// assert!(report.contains("line 1, column 9"));
/// ```
///
/// # Errors
/// The report of its syntax error, with source line and caret.
pub fn check(program: Program) -> std::result::Result<(), String> {
    let runtime = Runtime::create(
        program,
        Settings {
            name: "__main__".into(),
            ..Settings::default()
        },
    );
    compile(runtime)
}

/// Compiles the runtime's program; the error is the report of what is wrong, with source line and caret.
fn compile(runtime: &Runtime) -> std::result::Result<(), String> {
    runtime.compile().map_err(|error| {
        let program = runtime.program();
        let mut sources = Sources::with_main(&program.path, &program.source);
        traceback::format_syntax(&error, &program.path, &mut sources)
    })
}

/// The exit code after a syntax error.
pub const SYNTAX_ERROR: i32 = 2;
