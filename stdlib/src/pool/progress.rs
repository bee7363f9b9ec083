//! `progress: true` (or a label): a bar on standard error that shows how far a map or an iterator is.

use crate::api::type_name;
use crate::bars::Bar;
use crate::error::{Kind, Result, raise};
use rhai::{Dynamic, ImmutableString};

/// The bar of one job.
pub(super) struct Progress(Bar);

impl Progress {
    /// What the option asks for: `true`, a label, or neither. `total` is the number of calls, where it is known.
    ///
    /// # Errors
    /// `TypeError` for what is none of these.
    pub(super) fn new(option: &Dynamic, total: Option<usize>) -> Result<Option<Self>> {
        let label = match (option.as_bool(), option.read_lock::<ImmutableString>()) {
            (Ok(true), _) => ImmutableString::new(),
            (Ok(false), _) => return Ok(None),
            (_, Some(label)) => label.clone(),
            _ if option.is_unit() => return Ok(None),
            _ => {
                let message = format!(
                    "'progress' must be true, false or a label, not {}",
                    type_name(option)
                );
                return Err(raise(Kind::TypeError, message));
            }
        };
        Ok(Some(Self(Bar::new(&label, total))))
    }

    /// So many calls more have been reported.
    pub(super) fn advance(&self, calls: usize) {
        self.0.advance(calls);
    }

    /// The job is complete, or will never be.
    pub(super) fn finish(&self) {
        self.0.finish();
    }
}
