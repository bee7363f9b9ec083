//! `import "path" as name;`: modules from files.
//!
//! Rhai's own resolver looks for what a module imports where the process happens to be, compiles without
//! [`catches`], and names a module in errors by what stands in the import. This one looks beside the script that imports, from
//! the folder in which the program was started, so that a child finds what its parent found, wherever either has gone since;
//! a module's errors name its file.
//!
//! Rhai looks for what a function's value names among the script's own functions alone. So that a module's functions and closures
//! can be given to processes and pools as well, those whose names the script doesn't have itself are put beside its own.
//!
//! A name alone finds the script's function first, so a module's function is a value (`tools::square`) only where its name is its own.
//!
//! Invariant: a module is evaluated once in each process, as in Python.

use crate::catches;
use crate::convert;
use rhai::{
    AST, Dynamic, Engine, EvalAltResult, FnAccess, FnPtr, GlobalRuntimeState, Module,
    ModuleResolver, Position, Scope, Shared,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

thread_local! {
    static START: RefCell<PathBuf> = RefCell::new(PathBuf::new());
}

/// Says in which folder the program was started.
pub fn set_start(folder: PathBuf) {
    START.set(folder);
}

/// The folder in which the program was started.
#[must_use]
pub fn start() -> PathBuf {
    START.with_borrow(Clone::clone)
}

/// Finds, compiles and evaluates modules.
#[derive(Default)]
pub(crate) struct Resolver {
    known: RefCell<HashMap<PathBuf, Shared<Module>>>,
    /// The functions of all modules so far, for values that name them.
    beside: RefCell<Vec<Shared<Module>>>,
}

type Resolved = Result<Shared<Module>, Box<EvalAltResult>>;

/// The file of a module: beside the script that imports it, unless its path begins at the root.
fn file_of(path: &str, importer: Option<&str>) -> PathBuf {
    let folder = importer.and_then(|importer| Path::new(importer).parent());
    let mut file = folder.unwrap_or(Path::new("")).join(path);
    if file.extension().is_none_or(|extension| extension != "rhai") {
        file.as_mut_os_string().push(".rhai");
    }
    file
}

impl Resolver {
    fn load(
        &self,
        engine: &Engine,
        global: &mut GlobalRuntimeState,
        scope: &mut Scope<'_>,
        path: &str,
        at: Position,
    ) -> Resolved {
        let name = file_of(path, global.source());
        let file = START.with_borrow(|start| start.join(&name));
        if let Some(module) = self.known.borrow().get(&file) {
            self.put_beside(global);
            return Ok(module.clone());
        }
        let source = std::fs::read_to_string(&file).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                return Box::new(EvalAltResult::ErrorModuleNotFound(path.to_owned(), at));
            }
            let text = Dynamic::from(format!("'{}' can't be read: {error}", name.display()));
            Box::new(EvalAltResult::ErrorRuntime(text, at))
        })?;
        let name = name.to_string_lossy().into_owned();
        let within = |error| Box::new(EvalAltResult::ErrorInModule(name.clone(), error, at));
        let ast = catches::compile(engine, &source, &name)
            .map_err(|error| within(Box::new(EvalAltResult::ErrorParsing(*error.0, error.1))))?;
        let functions = functions_of(&ast);
        self.beside.borrow_mut().push(functions.clone());
        let mut module =
            Module::eval_ast_as_new_raw(engine, scope, global, &ast).map_err(within)?;
        name_values(&mut module, &functions);
        let module = Shared::new(module);
        self.known.borrow_mut().insert(file, module.clone());
        self.put_beside(global);
        Ok(module)
    }

    /// Lets the running script find the modules' functions by their names.
    fn put_beside(&self, global: &mut GlobalRuntimeState) {
        for functions in &*self.beside.borrow() {
            if !global
                .lib
                .iter()
                .any(|known| Shared::ptr_eq(known, functions))
            {
                // Behind the script's own, which are the first; what a module has of the same name was left out.
                global.lib.push(functions.clone());
            }
        }
    }
}

/// The functions and closures of a module whose names the script doesn't have; messages know them from then on.
fn functions_of(ast: &AST) -> Shared<Module> {
    let mut functions = Module::new();
    for (.., name, _, definition) in ast.shared_lib().iter_script_fn_info() {
        if convert::adopt_function(name, definition) {
            functions.set_script_fn(definition.clone());
        }
    }
    Shared::new(functions)
}

/// A module's public functions are values by their bare names: `pool.map(tools::square, items)`.
fn name_values(module: &mut Module, functions: &Module) {
    for (_, access, name, ..) in functions.iter_script_fn_info() {
        // A closure has no name that a script could write.
        if access == FnAccess::Public
            && !module.contains_var(name)
            && let Ok(pointer) = FnPtr::new(name)
        {
            module.set_var(name, pointer);
        }
    }
    module.build_index();
}

impl ModuleResolver for Resolver {
    fn resolve_raw(
        &self,
        engine: &Engine,
        global: &mut GlobalRuntimeState,
        scope: &mut Scope<'_>,
        path: &str,
        at: Position,
    ) -> Resolved {
        self.load(engine, global, scope, path, at)
    }

    fn resolve(&self, engine: &Engine, source: Option<&str>, path: &str, at: Position) -> Resolved {
        let mut global = engine.new_global_runtime_state();
        global.source = source.map(Into::into);
        self.load(engine, &mut global, &mut Scope::new(), path, at)
    }
}
