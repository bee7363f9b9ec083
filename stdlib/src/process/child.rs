//! What a child does with its bootstrap: becomes the process that it is told to be, gets the program's constants, calls the
//! target, and ends with an exit code.
//!
//! A forked child has the program, the constants and the imported modules already, in memory. Any other child compiles the program
//! and evaluates a prologue instead of its top level: the imports, the constants with the values that travelled, and those constants whose
//! value couldn't travel. So nothing is printed or made twice.

use super::in_memory::{self, InMemory};
use super::{Process, anew, ending};
use crate::convert::{Decoder, Encoder, References};
use crate::core_error::from_wire;
use crate::error::{Error, Kind, Result, raise};
use crate::logging;
use crate::runtime::{Piece, Program, Runtime, Settings, runtime};
use mphost_core::process::Method;
use mphost_core::wire;
use rhai::{
    AST, ASTFlags, Array, Dynamic, EvalAltResult, Expr, FnPtr, Map, NativeCallContext, Position,
    Scope, Stmt,
};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Who a child is, as its parent says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    pub(super) name: String,
    pub(super) numbers: Vec<u32>,
    pub(super) daemon: bool,
    pub(super) authkey: Vec<u8>,
    pub(super) parent_name: String,
    pub(super) parent_pid: i32,
    pub(super) parent_slot: u64,
    pub(super) method: u8,
    pub(super) default_method: u8,
    pub(super) method_set: bool,
    pub(super) cwd: Option<PathBuf>,
    /// The keys of managers that have keys of their own.
    pub(super) manager_keys: Vec<(String, u16, Vec<u8>)>,
    /// The logger's level, and whether its records are shown.
    pub(super) logging: (i64, bool),
}

/// The program, as an executed process gets it before its bootstrap.
#[derive(Debug, Serialize, Deserialize)]
struct ProgramMessage {
    path: String,
    source: String,
    pieces: Option<Vec<Piece>>,
    argv: Vec<String>,
    /// The folder in which the program was started: what it imports is looked for from there.
    start: String,
    /// Whether an embedding program runs it, perhaps one of several: see [`crate::embed`].
    guest: bool,
}

const LIMIT: usize = 1 << 30;

pub(super) fn write_head(encoder: &mut Encoder, head: &Head) -> Result<()> {
    encoder
        .writer()
        .blob(&wire::encode_control(head).map_err(|e| from_wire(&e))?);
    Ok(())
}

pub(crate) fn encode_program(program: &Program, settings: &Settings) -> Vec<u8> {
    let message = ProgramMessage {
        path: program.path.clone(),
        source: program.source.clone(),
        pieces: program.pieces.clone(),
        argv: settings.argv.clone(),
        start: crate::modules::start().to_string_lossy().into_owned(),
        guest: settings.guest,
    };
    wire::encode_control(&message).expect("a structure of texts always encodes")
}

/// The program in a message, how it was started, and the folder in which it was.
///
/// # Errors
/// Where the message is malformed.
pub(crate) fn decode_program(message: &[u8]) -> Result<(Program, Settings, PathBuf)> {
    let message: ProgramMessage =
        wire::decode_control(message, LIMIT).map_err(|e| from_wire(&e))?;
    let program = Program {
        path: message.path,
        source: message.source,
        pieces: message.pieces,
    };
    let settings = Settings {
        name: "__mp_main__".into(),
        argv: message.argv,
        with_docs: false,
        // A server of several programs doesn't know the next one yet.
        lean: !message.guest,
        guest: message.guest,
    };
    Ok((program, settings, message.start.into()))
}

/// The values of top-level constants, as far as they can travel; the names of all others. A message of its own. For a forked child only what
/// it needs beside its memory is of use: objects and descriptors.
pub(super) fn write_constants(
    encoder: &mut Encoder,
    method: Method,
    ctx: &NativeCallContext<'_>,
) -> Result<()> {
    let mut others = Vec::new();
    if let Some(shared) = &ctx.global_runtime_state().constants {
        for (name, value) in shared.borrow().iter() {
            if !in_memory::is_plain(value) {
                // While these are written, anything may happen.
                others.push((name.to_string(), value.clone()));
            } else if method != Method::Fork {
                encoder.writer().str(name);
                encoder.writer().bool(true);
                encoder.value_at(name, value)?;
            }
        }
    }
    for (name, value) in others {
        // A trial on its own: what can't travel must leave no trace in the message.
        let mut trial = Encoder::new();
        trial.repeat();
        let travels = trial.value_at(&name, &value).is_ok();
        encoder.writer().str(&name);
        encoder.writer().bool(travels);
        if travels {
            encoder.value_at(&name, &value)?;
        }
    }
    encoder.writer().unit();
    Ok(())
}

/// What stands in a bootstrap before its program, how long that is (0 where the child has it already), and before its task: how long that is and
/// how many descriptors are its own.
pub(super) fn prefix(program: &[u8], task: &Encoder) -> [u8; PROGRAM_PREFIX + TASK_PREFIX] {
    let numbers = [program.len(), task.bytes().len(), task.fds().len()];
    let mut bytes = [0; PROGRAM_PREFIX + TASK_PREFIX];
    for (room, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        room.copy_from_slice(&(number as u64).to_le_bytes());
    }
    bytes
}

/// The parts of a bootstrap, in their order: the program, the task, the constants. A message of many mebibytes isn't copied for it.
pub(super) fn parts<'a>(
    prefix: &'a [u8; PROGRAM_PREFIX + TASK_PREFIX],
    program: &'a [u8],
    task: &'a Encoder,
    constants: &'a Encoder,
) -> [&'a [u8]; 5] {
    let (first, second) = prefix.split_at(PROGRAM_PREFIX);
    [first, program, second, task.bytes(), constants.bytes()]
}

const PROGRAM_PREFIX: usize = 8;
const TASK_PREFIX: usize = 16;

/// The program's message in a bootstrap, which may be empty, and where the rest of it begins.
fn split_program(bootstrap: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bootstrap.split_first_chunk::<PROGRAM_PREFIX>()?;
    let (program, rest) =
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some((program, bootstrap.len() - rest.len()))
}

/// The two other messages of a bootstrap, and how many descriptors are the task's.
fn split_messages(bootstrap: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let (length, rest) = bootstrap.split_first_chunk::<8>()?;
    let (fds, rest) = rest.split_first_chunk::<8>()?;
    let (task, constants) =
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some((
        task,
        constants,
        usize::try_from(u64::from_le_bytes(*fds)).ok()?,
    ))
}

struct Task {
    head: Head,
    target: Option<FnPtr>,
    args: Array,
    kwargs: Dynamic,
    run: Option<FnPtr>,
    fields: Map,
}

fn read_head(decoder: &mut Decoder<'_>) -> Result<Head> {
    let head = decoder
        .value()?
        .into_blob()
        .map_err(|_| raise(Kind::RuntimeError, "a malformed bootstrap message"))?;
    Ok(wire::decode_control(&head, LIMIT).map_err(|e| from_wire(&e))?)
}

fn read_task(decoder: &mut Decoder<'_>) -> Result<Task> {
    Ok(Task {
        head: read_head(decoder)?,
        target: decoder.value()?.try_cast(),
        args: decoder.value()?.try_cast().unwrap_or_default(),
        kwargs: decoder.value()?,
        run: decoder.value()?.try_cast(),
        fields: decoder.value()?.try_cast().unwrap_or_default(),
    })
}

/// A forked child: everything is in memory, only the task is read.
pub(super) fn run_copy(
    bootstrap: &[u8],
    in_memory: &mut InMemory,
    fds: Vec<OwnedFd>,
    ctx: &NativeCallContext<'_>,
) -> i32 {
    ending::forget_parent();
    crate::embed::leave();
    let task = Decoder::new(bootstrap, fds, References::Granted)
        .and_then(|mut decoder| read_task(&mut decoder))
        .map(|mut task| {
            in_memory.put_back(&mut task.args);
            task
        });
    let process =
        |head: &Head, fields| super::become_process(super::start::identity_of(head, fields));
    run_task(task, process, ctx)
}

fn run_task(
    task: Result<Task>,
    process: impl FnOnce(&Head, Map) -> Process,
    ctx: &NativeCallContext<'_>,
) -> i32 {
    let result = match task {
        Ok(mut task) => {
            let process = process(&task.head, std::mem::take(&mut task.fields));
            call(process, task, ctx)
        }
        Err(error) => Err(error.into_rhai(ctx.call_source(), Position::NONE)),
    };
    ending::finish(result.map(|_| ()), ctx)
}

fn call(
    process: Process,
    task: Task,
    ctx: &NativeCallContext<'_>,
) -> std::result::Result<Dynamic, Box<EvalAltResult>> {
    let Task {
        head,
        target,
        mut args,
        kwargs,
        run,
        fields: _,
    } = task;
    adopt_method(&head);
    crate::managers::learn_keys(&head.manager_keys);
    logging::adopt(head.logging);
    logging::host(logging::INFO, || "child process calling self.run()".into());
    if let Some(run) = run {
        let mut this = process.into_dynamic();
        // A closure that is to see `this` has no parameters; a function may take the process as its one argument.
        return run.call_raw(ctx, Some(&mut this), Vec::new());
    }
    let Some(target) = target else {
        return Ok(Dynamic::UNIT);
    };
    if !kwargs.is_unit() {
        args.push(kwargs);
    }
    target.call_raw(ctx, None, args)
}

fn adopt_method(head: &Head) {
    if let Some(default) = Method::from_number(head.default_method) {
        super::set_default_method(default);
        super::METHOD.set(head.method_set.then_some(default));
    }
}

/// A task that is to be read as soon as everything that it may name is there.
struct Pending {
    bootstrap: Vec<u8>,
    /// Where in it the task stands.
    task: Range<usize>,
    fds: Vec<OwnedFd>,
}

thread_local! {
    static PENDING: RefCell<Option<Pending>> = const { RefCell::new(None) };
    static EXIT: Cell<i32> = const { Cell::new(1) };
    /// Whether the host calls one of the script's functions instead of running the script.
    static CALLING: Cell<bool> = const { Cell::new(false) };
}

impl Pending {
    fn read(self) -> Result<Task> {
        let task = &self.bootstrap[self.task];
        let mut decoder = Decoder::new(task, self.fds, References::Granted)?;
        read_task(&mut decoder)
    }
}

/// Whether the outermost call of this process is the host's own, which stands nowhere in the script.
pub(super) fn is_called() -> bool {
    CALLING.get()
}

/// The life of an executed child: the program is compiled, the prologue evaluated, the task run. Returns the exit code.
pub fn run_executed(bootstrap: Vec<u8>, fds: Vec<OwnedFd>) -> i32 {
    let Some((program, from)) = split_program(&bootstrap) else {
        return malformed();
    };
    match prepare_program(program) {
        Ok(()) => run_prepared(bootstrap, from, fds),
        Err(code) => code,
    }
}

/// The life of a server's child: it has a program already, unless its bootstrap brings another one. Returns the exit code.
pub fn run_served(bootstrap: Vec<u8>, fds: Vec<OwnedFd>) -> i32 {
    let Some((program, from)) = split_program(&bootstrap) else {
        return malformed();
    };
    if program.is_empty() {
        return run_prepared(bootstrap, from, fds);
    }
    let Ok((program, _, start)) = decode_program(program) else {
        return malformed();
    };
    crate::modules::set_start(start);
    let runtime = runtime();
    if *runtime.program() != program {
        crate::convert::forget_script_functions();
        runtime.set_program(program);
        if let Err(code) = compile_program(runtime) {
            return code;
        }
    }
    run_prepared(bootstrap, from, fds)
}

fn malformed() -> i32 {
    let _ = crate::output::write_stderr("mphost: a malformed program message\n");
    1
}

/// Compiles the program in a process that was executed anew.
///
/// # Errors
/// The exit code, after the reason has been printed.
pub fn prepare_program(program: &[u8]) -> std::result::Result<(), i32> {
    let Ok((program, settings, start)) = decode_program(program) else {
        return Err(malformed());
    };
    crate::modules::set_start(start);
    compile_program(Runtime::create(program, settings))
}

fn compile_program(runtime: &Runtime) -> std::result::Result<(), i32> {
    runtime.compile().map_err(|error| {
        // The parent compiled the same text: this can only be a different build of the host.
        let _ = crate::output::write_stderr(&format!(
            "mphost: the program doesn't compile in this process: {error}\n"
        ));
        1
    })
}

/// Runs the task that stands in a bootstrap at `from`, in a process that has its program compiled but none of it evaluated.
fn run_prepared(bootstrap: Vec<u8>, from: usize, fds: Vec<OwnedFd>) -> i32 {
    ending::forget_parent();
    // A server has the program as it was when the server was started; a prompt may have gone on since.
    match runtime()
        .refresh()
        .and_then(|()| prologue(bootstrap, from, fds))
    {
        Ok((ast, mut scope)) => {
            let result = runtime()
                .engine()
                .eval_ast_with_scope::<Dynamic>(&mut scope, &ast);
            match result {
                Ok(_) => EXIT.get(),
                Err(error) => ending::report_uncaught(&error),
            }
        }
        Err(error) => ending::report_uncaught(&error.into_rhai(None, Position::NONE)),
    }
}

/// Calls a function of the compiled program with its imports and constants evaluated, and nothing else of its top level.
///
/// # Errors
/// What the function throws, or what evaluating a constant does.
pub fn call_function(name: &str) -> std::result::Result<Dynamic, Box<EvalAltResult>> {
    CALLING.set(true);
    let runtime = runtime();
    let ast = runtime.ast();
    let mut statements: Vec<Stmt> = ast
        .statements()
        .iter()
        .filter(|statement| match statement {
            Stmt::Import(..) => true,
            Stmt::Var(_, flags, _) => flags.intersects(ASTFlags::CONSTANT),
            _ => false,
        })
        .cloned()
        .collect();
    statements.extend(
        compile(&format!("{name}();"))
            .map_err(|e| e.into_rhai(None, Position::NONE))?
            .statements()
            .iter()
            .cloned(),
    );
    let mut call = AST::new(statements, ast.shared_lib().clone());
    call.set_source(runtime.program().path.as_str());
    runtime
        .engine()
        .eval_ast_with_scope(&mut Scope::new(), &call)
}

pub(super) fn compile(text: &str) -> Result<AST> {
    runtime()
        .engine()
        .compile(text)
        .map_err(|e| Error::Rhai(Box::new(EvalAltResult::ErrorParsing(*e.0, e.1))))
}

/// The name of the call that the prologue ends with: it runs the task, in reach of all functions, imports and constants.
pub const ENTER: &str = "__enter_task";

/// Registered in every engine: reads the task that is pending and runs it.
pub(super) fn enter(ctx: &NativeCallContext<'_>) -> Result {
    let Some(pending) = PENDING.take() else {
        return Err(raise(
            Kind::RuntimeError,
            "this call is made by the host itself when a process begins",
        ));
    };
    let task = pending.read();
    if let Ok(Task {
        head: Head { cwd: Some(cwd), .. },
        ..
    }) = &task
    {
        // The directory may be gone: then the child stays where it is, as any program would.
        let _ = std::env::set_current_dir(cwd);
    }
    anew::finish();
    EXIT.set(run_task(task, |_, fields| super::begin_task(fields), ctx));
    Ok(Dynamic::UNIT)
}

/// The statements that an executed child evaluates instead of the program's top level.
fn prologue(
    bootstrap: Vec<u8>,
    from: usize,
    mut fds: Vec<OwnedFd>,
) -> Result<(AST, Scope<'static>)> {
    let runtime = runtime();
    let ast = runtime.ast();
    let (task, constants, own_fds) = split_messages(&bootstrap[from..])
        .ok_or_else(|| raise(Kind::RuntimeError, "a malformed bootstrap message"))?;
    // Who it is comes first in the task; the rest is read where all functions, imports and constants are in reach.
    let head = read_head(&mut Decoder::new(task, Vec::new(), References::Granted)?)?;
    super::become_process(super::start::identity_of(&head, Map::new()));
    let constant_fds = fds.split_off(own_fds.min(fds.len()));
    let constants = read_constants(constants, constant_fds)?;
    let task = from + TASK_PREFIX..from + TASK_PREFIX + task.len();
    PENDING.set(Some(Pending {
        bootstrap,
        task,
        fds,
    }));
    let mut statements = Vec::new();
    let mut evaluated = false;
    for statement in ast.statements() {
        match statement {
            Stmt::Import(..) => statements.push(statement.clone()),
            Stmt::Var(declaration, flags, position) if flags.intersects(ASTFlags::CONSTANT) => {
                let (name, _, index) = &**declaration;
                match constants.iter().find(|(known, _)| known == name.as_str()) {
                    Some((_, Some(value))) => {
                        let value = Expr::DynamicConstant(Box::new(value.clone()), *position);
                        let declaration = (name.clone(), value, *index);
                        statements.push(Stmt::Var(Box::new(declaration), *flags, *position));
                    }
                    // It couldn't travel: evaluated anew, in reach of nothing but the constants before it.
                    Some((_, None)) => {
                        let (name, expression, index) = (**declaration).clone();
                        let expression = anew::wrap(expression, *position)?;
                        let declaration = Box::new((name, expression, index));
                        statements.push(Stmt::Var(declaration, *flags, *position));
                        evaluated = true;
                    }
                    // The program hadn't come to it yet.
                    None => {}
                }
            }
            _ => {}
        }
    }
    if evaluated {
        anew::begin();
        // The declarations that were left out would shift the positions by which variables are found: look them up by name.
        let by_name = compile("eval(\"let __by_name = ();\");")?;
        statements.splice(0..0, by_name.statements().iter().cloned());
    }
    statements.extend(
        compile(&format!("{ENTER}();"))?
            .statements()
            .iter()
            .cloned(),
    );
    let mut ast_of_child = AST::new(statements, ast.shared_lib().clone());
    ast_of_child.set_source(runtime.program().path.as_str());
    Ok((ast_of_child, Scope::new()))
}

type Constants = Vec<(String, Option<Dynamic>)>;

fn read_constants(message: &[u8], fds: Vec<OwnedFd>) -> Result<Constants> {
    let mut decoder = Decoder::new(message, fds, References::Granted)?;
    let mut constants = Vec::new();
    loop {
        let name = decoder.value()?;
        let Ok(name) = name.into_string() else {
            return Ok(constants);
        };
        let value = decoder
            .value()?
            .as_bool()
            .unwrap_or(false)
            .then(|| decoder.value())
            .transpose()?;
        constants.push((name, value));
    }
}

/// A Process object for the script's `run()` in its own process: calls what the child would call.
pub(super) fn run_here(process: &Process, ctx: &NativeCallContext<'_>) -> Result {
    let (target, mut args, kwargs, run) = {
        let state = process.0.borrow();
        (
            state.target.clone(),
            state.args.clone(),
            state.kwargs.clone(),
            state.run.clone(),
        )
    };
    if let Some(run) = run {
        let mut this = process.clone().into_dynamic();
        return Ok(run.call_raw(ctx, Some(&mut this), Vec::new())?);
    }
    let Some(target) = target else {
        return Ok(Dynamic::UNIT);
    };
    if let Some(kwargs) = kwargs {
        args.push(Dynamic::from_map(kwargs));
    }
    Ok(target.call_raw(ctx, None, args)?)
}
