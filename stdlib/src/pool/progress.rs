//! `progress: true` (or a label): a bar on standard error that shows how far a map or an iterator is.
//!
//! Where standard error is no terminal nothing is shown. The bar is drawn by whoever settles results, in the process of the script: there
//! is no thread behind it.

use crate::api::type_name;
use crate::error::{Kind, Result, raise};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rhai::{Dynamic, ImmutableString};

/// The bar of one job.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// What the option asks for: `true`, a label, or neither. `total` is the number of calls, where it is known.
    ///
    /// # Errors
    /// `TypeError` for what is none of these.
    pub(super) fn new(option: &Dynamic, total: Option<usize>) -> Result<Option<Self>> {
        let label = match (option.as_bool(), option.read_lock::<ImmutableString>()) {
            (Ok(true), _) => String::new(),
            (Ok(false), _) => return Ok(None),
            (_, Some(label)) => format!("{} ", label.as_str()),
            _ if option.is_unit() => return Ok(None),
            _ => {
                let message = format!(
                    "'progress' must be true, false or a label, not {}",
                    type_name(option)
                );
                return Err(raise(Kind::TypeError, message));
            }
        };
        let template = match total {
            Some(_) => "{prefix}{wide_bar} {pos}/{len} [{elapsed} < {eta}]",
            None => "{prefix}{spinner} {pos} [{elapsed}]",
        };
        let total = total.map(|total| total as u64);
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(label);
        bar.tick();
        Ok(Some(Self(bar)))
    }

    /// So many calls more have been reported.
    pub(super) fn advance(&self, calls: usize) {
        self.0.inc(calls as u64);
    }

    /// The job is complete, or will never be.
    pub(super) fn finish(&self) {
        if !self.0.is_finished() {
            self.0.abandon();
        }
    }
}
