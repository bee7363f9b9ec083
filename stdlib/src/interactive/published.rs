//! Where the processes of a typed program find what was typed after they began.
//!
//! The main process publishes each version of the program in the session's memory, under a name that no script can use, and then stores
//! its number in a small block that every process finds once. So to know that nothing is new costs one load from memory.
//!
//! Invariant: a version's text is there before its number is, and stays until the next number is.

use crate::error::Result;
use crate::process::child;
use crate::runtime::Runtime;
use mphost_core::names;
use mphost_core::position::Position;
use mphost_core::shared::Block;
use std::cell::OnceCell;
use std::sync::atomic::Ordering::SeqCst;

/// Names of shared memory come from scripts as texts that begin with something that can be seen.
const HEAD: &str = "\0program";

thread_local! {
    static NUMBER: OnceCell<Block> = const { OnceCell::new() };
}

fn name_of(version: u64) -> String {
    format!("{HEAD}:{version}")
}

/// The block with the newest version's number.
fn with_number<R>(read: impl FnOnce(&Block) -> Result<R>) -> Result<Option<R>> {
    NUMBER.with(|number| {
        if number.get().is_none() {
            let Some(object) = names::find(HEAD)? else {
                return Ok(None);
            };
            let _ = number.set(Block::from_ref(object)?);
        }
        number.get().map(read).transpose()
    })
}

/// Makes this process's program the newest version. Only the main process does that.
///
/// # Errors
/// Where the session's memory is used up.
pub(super) fn publish(runtime: &Runtime) -> Result<()> {
    if with_number(|_| Ok(()))?.is_none() {
        let block = Block::create(8, Position::default())?;
        names::publish(HEAD, block.obj(), Position::default())?;
    }
    let message = child::encode_program(&runtime.program(), runtime.settings());
    let version = runtime.version() + 1;
    let block = Block::create(message.len(), Position::default())?;
    block.write(0, &message)?;
    names::publish(&name_of(version), block.obj(), Position::default())?;
    with_number(|number| {
        number.atomic(0)?.store(version, SeqCst);
        Ok(())
    })?;
    if version > 1 {
        names::remove(&name_of(version - 1))?;
    }
    runtime.set_version(version);
    Ok(())
}

/// The newest version, if it is another than `known`.
///
/// # Errors
/// Where the session's memory is damaged.
pub(crate) fn newer(known: u64) -> Result<Option<(u64, Vec<u8>)>> {
    loop {
        let version = with_number(|number| Ok(number.atomic(0)?.load(SeqCst)))?.unwrap_or(known);
        if version == known {
            return Ok(None);
        }
        // Where it has just been replaced there is a newer one.
        if let Some(object) = names::find(&name_of(version))? {
            let block = Block::from_ref(object)?;
            let mut message = vec![0; block.len()];
            block.read(0, &mut message)?;
            return Ok(Some((version, message)));
        }
        if with_number(|number| Ok(number.atomic(0)?.load(SeqCst)))? == Some(version) {
            return Ok(None);
        }
    }
}
