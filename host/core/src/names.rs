//! Names: objects that the processes of a program find by a text.
//!
//! Shared memory blocks are known by name, as in Python, but nothing may be left behind in the file system. So the names
//! lie in the session itself: tables of entries, each table a block that knows the next one.
//!
//! Invariants: an entry is in use while its handle isn't 0, so that one store publishes and one removes it, and a process
//! that dies in between leaves nothing to repair. An entry owns one reference to its object. All is read and written
//! under the session's mutex; handles are claimed under it as well, so a name that was found leads to a living object.

use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::{ObjRef, ObjectKind, RawHandle, Session, session};
use crate::shared::Block;
use std::sync::atomic::Ordering::SeqCst;

/// The longest name, in bytes: as in a file system (`NAME_MAX`).
pub const LONGEST: usize = 255;
/// Names in one table.
const NAMES: usize = 60;
/// An entry: handle, length, the text.
const ENTRY: usize = 8 + 8 + 256;
/// What comes before the entries of a table: the handle of the next one.
const HEAD: usize = 16;
/// More tables than this are no chain but a damaged one.
const MOST_TABLES: usize = 1 << 16;

/// Makes `object` known as `name`: false if the name is taken. The name keeps the object alive.
///
/// # Errors
/// `Value` for an empty name or one longer than [`LONGEST`] bytes; `OutOfMemory`, `ObjectTableFull`.
pub fn publish(name: &str, object: &ObjRef, position: Position) -> Result<bool> {
    check(name)?;
    loop {
        let done = with_tables(|_, tables| {
            let mut free = None;
            for table in tables {
                for at in entries() {
                    match (handle(table, at)?, free) {
                        (Some(_), _) if text_is(table, at, name)? => return Ok(Some(false)),
                        (None, None) => free = Some((table, at)),
                        _ => {}
                    }
                }
            }
            let Some((table, at)) = free else {
                return Ok(None);
            };
            table.write(at + 16, name.as_bytes())?;
            table.set(at + 8, name.len() as u64)?;
            table.atomic(at)?.store(object.export().to_u64(), SeqCst);
            Ok(Some(true))
        })?;
        match done {
            Some(done) => return Ok(done),
            None => grow(position)?,
        }
    }
}

/// The object of that name, as this process's own.
///
/// # Errors
/// `Value` for an empty name or one longer than [`LONGEST`] bytes.
pub fn find(name: &str) -> Result<Option<ObjRef>> {
    check(name)?;
    with_tables(|session, tables| match position_of(tables, name)? {
        Some((_, _, handle)) => session.claim(handle).map(Some),
        None => Ok(None),
    })
}

/// Forgets a name: false if there was none. Whoever has the object goes on using it.
///
/// # Errors
/// `Value` for an empty name or one longer than [`LONGEST`] bytes.
pub fn remove(name: &str) -> Result<bool> {
    check(name)?;
    let removed = with_tables(|_, tables| {
        let found = position_of(tables, name)?;
        if let Some((table, at, _)) = found {
            table.atomic(at)?.store(0, SeqCst);
        }
        Ok(found.map(|(_, _, handle)| handle))
    })?;
    // Outside of the critical section, which freeing an object needs for itself.
    if let Some(handle) = removed {
        session().release(handle);
    }
    Ok(removed.is_some())
}

fn check(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > LONGEST {
        return Err(CoreError::Value(format!(
            "a name has 1 to {LONGEST} bytes, not {}",
            name.len()
        )));
    }
    Ok(())
}

fn entries() -> impl Iterator<Item = usize> {
    (0..NAMES).map(|index| HEAD + index * ENTRY)
}

fn handle(table: &Block, at: usize) -> Result<Option<RawHandle>> {
    let bits = table.atomic(at)?.load(SeqCst);
    Ok((bits != 0).then(|| RawHandle::from_u64(bits)))
}

fn text_is(table: &Block, at: usize, name: &str) -> Result<bool> {
    if table.get::<u64>(at + 8)? != name.len() as u64 {
        return Ok(false);
    }
    let mut text = [0; LONGEST];
    let text = &mut text[..name.len()];
    table.read(at + 16, text)?;
    Ok(text == name.as_bytes())
}

fn position_of<'t>(
    tables: &'t [Block],
    name: &str,
) -> Result<Option<(&'t Block, usize, RawHandle)>> {
    for table in tables {
        for at in entries() {
            if let Some(handle) = handle(table, at)?
                && text_is(table, at, name)?
            {
                return Ok(Some((table, at, handle)));
            }
        }
    }
    Ok(None)
}

/// Runs `work` on all tables, under the session's mutex. `work` drops no reference: that may need the mutex.
fn with_tables<R>(work: impl FnOnce(&Session, &[Block]) -> Result<R>) -> Result<R> {
    let session = session();
    // Declared before the guard, and so dropped after it.
    let mut tables = Vec::new();
    let _guard = session.lock()?;
    let mut next = session.header().names.load(SeqCst);
    while next != 0 {
        if tables.len() == MOST_TABLES {
            return Err(CoreError::Corrupt("the names go round in a circle".into()));
        }
        let table = Block::from_ref(session.claim(RawHandle::from_u64(next))?)?;
        next = table.atomic(0)?.load(SeqCst);
        tables.push(table);
    }
    work(session, &tables)
}

/// Adds an empty table to the chain. Two processes may do so at once; then there is more room than was needed.
fn grow(position: Position) -> Result<()> {
    let table = Block::create_as(ObjectKind::Other, HEAD + NAMES * ENTRY, position)?;
    let bits = table.obj().export().to_u64();
    with_tables(|session, tables| {
        match tables.last() {
            Some(last) => last.atomic(0)?.store(bits, SeqCst),
            None => session.header().names.store(bits, SeqCst),
        }
        Ok(())
    })
}
