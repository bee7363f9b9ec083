//! The pieces of a program that is typed, put together.

use crate::catches;
use crate::runtime::Piece;
use rhai::{AST, ASTFlags, Engine, ParseError, Stmt};

/// What the pieces compiled so far come to.
#[derive(Default)]
pub(crate) struct Assembly {
    functions: AST,
    /// The imports and the declarations of constants at top level: what a process that is executed anew evaluates.
    statements: Vec<Stmt>,
    /// Those of the last piece.
    last: Vec<Stmt>,
    lines: usize,
}

impl Assembly {
    /// Compiles a piece at its place behind the others. One that doesn't compile changes nothing.
    ///
    /// # Errors
    /// The syntax error, with its position in the whole program.
    pub(crate) fn add(
        &mut self,
        engine: &Engine,
        path: &str,
        text: &str,
    ) -> Result<AST, ParseError> {
        let padded = format!("{}{text}", "\n".repeat(self.lines));
        let piece = catches::compile_piece(engine, &padded, path)?;
        self.functions = self.functions.merge(&piece.clone_functions_only());
        self.statements.append(&mut self.last);
        self.last = piece
            .statements()
            .iter()
            .filter(|statement| is_import(statement) || is_constant(statement))
            .cloned()
            .collect();
        self.lines += text.split('\n').count();
        Ok(piece)
    }

    /// How many lines the pieces have.
    pub(crate) fn lines(&self) -> usize {
        self.lines
    }

    /// Says how many of the last piece's imports took place; whether that is fewer than there are.
    pub(crate) fn settle(&mut self, imports: usize) -> bool {
        let before = self.last.len();
        let mut seen = 0;
        self.last.retain(|statement| {
            seen += usize::from(is_import(statement));
            !is_import(statement) || seen <= imports
        });
        self.last.len() < before
    }

    /// The whole program, without what only its main process evaluates.
    pub(crate) fn ast(&self, path: &str) -> AST {
        let statements = self.statements.iter().chain(&self.last).cloned();
        let mut ast = AST::new(
            statements.collect::<Vec<_>>(),
            self.functions.shared_lib().clone(),
        );
        ast.set_source(path);
        ast
    }
}

fn is_import(statement: &Stmt) -> bool {
    matches!(statement, Stmt::Import(..))
}

fn is_constant(statement: &Stmt) -> bool {
    matches!(statement, Stmt::Var(_, flags, _) if flags.intersects(ASTFlags::CONSTANT))
}

/// Compiles a program from its pieces.
///
/// # Errors
/// A syntax error: then the pieces aren't those that were compiled before.
pub(crate) fn compile(
    engine: &Engine,
    path: &str,
    source: &str,
    pieces: &[Piece],
) -> Result<AST, ParseError> {
    let mut assembly = Assembly::default();
    let mut rest = source;
    for piece in pieces {
        let Some((text, behind)) = rest.split_at_checked(piece.bytes) else {
            break;
        };
        rest = behind;
        // Each piece ends with the line end that was put behind it.
        assembly.add(engine, path, text.strip_suffix('\n').unwrap_or(text))?;
        assembly.settle(piece.imports);
    }
    Ok(assembly.ast(path))
}
