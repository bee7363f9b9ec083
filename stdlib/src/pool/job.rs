//! Jobs: what a script has asked for with one call, made of one task or many.
//!
//! A job collects its tasks' reports, in whatever order they come, until it is complete; its callback is called then, and only after that it
//! is done, so that `get()` returns after the callback. An iterator's job ([`Stream`]) gives its results away one by one meanwhile.
//!
//! Invariant: a job never borrows itself while script code runs.

use super::items::Source;
use super::progress::Progress;
use super::task::{Function, Outcome, Report, Shape};
use crate::error::{Kind, ScriptError};
use rhai::{Array, Dynamic, FnPtr};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// What all tasks of a job have in common.
pub(super) struct Terms {
    pub(super) shape: Shape,
    pub(super) function: Rc<Function>,
    /// How long one task may run, in seconds.
    pub(super) limit: Option<f64>,
    /// How often a task whose worker was lost is run again.
    pub(super) retries: u32,
    pub(super) callback: Option<FnPtr>,
    pub(super) error_callback: Option<FnPtr>,
    pub(super) progress: Option<Progress>,
}

/// A job. See the module.
pub(super) struct Job {
    pub(super) terms: Terms,
    body: RefCell<Body>,
    done: Cell<bool>,
}

enum Body {
    One(Option<Outcome>),
    Map(Map),
    Stream(Stream),
    /// A map's values were given away.
    Taken,
}

struct Map {
    values: Array,
    chunk: usize,
    /// How many tasks haven't reported.
    left: usize,
    error: Option<Dynamic>,
}

/// What feeds an iterator's job.
pub(super) enum Feed {
    /// There is more.
    Open(Source),
    /// An item is being drawn just now.
    Busy,
    /// All items were drawn, or nobody wants more.
    Ended,
}

/// The results of an iterator, as they come.
pub(super) struct Stream {
    feed: Feed,
    chunk: usize,
    ordered: bool,
    /// How many items and tasks were drawn and submitted.
    drawn: usize,
    submitted: usize,
    /// Tasks whose report hasn't come.
    open: usize,
    /// Tasks submitted and not yet given away.
    ahead: usize,
    /// The next task to give away, and what has come from it on.
    next: usize,
    arrived: VecDeque<Option<Vec<Outcome>>>,
    /// To be given away now; the mark says that it was a task's last.
    ready: VecDeque<(Outcome, bool)>,
}

impl Job {
    fn new(terms: Terms, body: Body) -> Rc<Self> {
        Rc::new(Self {
            terms,
            body: RefCell::new(body),
            done: Cell::new(false),
        })
    }

    /// A job of one call.
    pub(super) fn one(terms: Terms) -> Rc<Self> {
        Self::new(terms, Body::One(None))
    }

    /// A job of `items` calls in chunks.
    pub(super) fn map(terms: Terms, items: usize, chunk: usize) -> Rc<Self> {
        let left = items.div_ceil(chunk.max(1));
        let map = Map {
            values: vec![Dynamic::UNIT; items],
            chunk,
            left,
            error: None,
        };
        Self::new(terms, Body::Map(map))
    }

    /// A job whose results are iterated.
    pub(super) fn stream(terms: Terms, source: Source, chunk: usize, ordered: bool) -> Rc<Self> {
        Self::new(
            terms,
            Body::Stream(Stream {
                feed: Feed::Open(source),
                chunk,
                ordered,
                drawn: 0,
                submitted: 0,
                open: 0,
                ahead: 0,
                next: 0,
                arrived: VecDeque::new(),
                ready: VecDeque::new(),
            }),
        )
    }

    /// Whether the result can be had: all reports are there and the callback has ended.
    pub(super) fn is_done(&self) -> bool {
        self.done.get()
    }

    pub(super) fn set_done(&self) {
        if let Some(progress) = &self.terms.progress {
            progress.finish();
        }
        self.done.set(true);
    }

    /// Whether one of the callbacks is to be called.
    pub(super) fn has_callback(&self) -> bool {
        self.terms.callback.is_some() || self.terms.error_callback.is_some()
    }

    /// How many reports it needs at least.
    pub(super) fn missing(&self) -> usize {
        match &*self.body.borrow() {
            // Each one is to be seen.
            Body::Map(map) if self.terms.progress.is_none() => map.left,
            _ => 1,
        }
    }

    /// Takes the report of task number `index`; true if the job is complete with it.
    pub(super) fn accept(&self, index: usize, report: Report) -> bool {
        if let Some(progress) = &self.terms.progress {
            progress.advance(self.calls(index, &report));
        }
        match &mut *self.body.borrow_mut() {
            Body::One(outcome) => {
                *outcome = Some(match report {
                    Report::One(outcome) => outcome,
                    _ => Err(unexpected()),
                });
                true
            }
            Body::Map(map) => map.accept(index, report),
            Body::Stream(stream) => {
                stream.accept(index, report);
                stream.is_complete()
            }
            Body::Taken => false,
        }
    }

    /// How many calls a report is of.
    fn calls(&self, index: usize, report: &Report) -> usize {
        match (&*self.body.borrow(), report) {
            (Body::Map(map), _) => map
                .chunk
                .min(map.values.len().saturating_sub(index * map.chunk)),
            (_, Report::Each(outcomes)) => outcomes.len(),
            _ => 1,
        }
    }

    /// Whether there is nothing to wait for from the beginning: a map of nothing.
    pub(super) fn is_complete(&self) -> bool {
        match &*self.body.borrow() {
            Body::One(outcome) => outcome.is_some(),
            Body::Map(map) => map.left == 0,
            Body::Stream(stream) => stream.is_complete(),
            Body::Taken => true,
        }
    }

    /// A copy of the result of a job that is complete; `None` before.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match &*self.body.borrow() {
            Body::One(outcome) => outcome.clone(),
            Body::Map(map) if map.left == 0 => Some(match &map.error {
                Some(error) => Err(error.clone()),
                None => Ok(Dynamic::from_array(map.values.clone())),
            }),
            _ => None,
        }
    }

    /// The result itself, where nobody can ask again.
    pub(super) fn take_outcome(&self) -> Option<Outcome> {
        let mut body = self.body.borrow_mut();
        match &mut *body {
            Body::One(outcome) => outcome.take(),
            Body::Map(map) if map.left == 0 && map.error.is_none() => {
                let values = std::mem::take(&mut map.values);
                *body = Body::Taken;
                Some(Ok(Dynamic::from_array(values)))
            }
            Body::Map(Map {
                left: 0,
                error: Some(error),
                ..
            }) => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// Whether a complete job has ended without an error.
    pub(super) fn is_success(&self) -> bool {
        match &*self.body.borrow() {
            Body::One(outcome) => matches!(outcome, Some(Ok(_))),
            Body::Map(map) => map.error.is_none(),
            _ => true,
        }
    }

    /// Ends the job with an error in place of everything that is still missing.
    pub(super) fn fail(&self, error: &Dynamic) {
        match &mut *self.body.borrow_mut() {
            Body::One(outcome) => {
                outcome.get_or_insert_with(|| Err(error.clone()));
            }
            Body::Map(map) if map.left > 0 => {
                map.left = 0;
                map.error = Some(error.clone());
            }
            Body::Stream(stream) => stream.fail(error),
            _ => {}
        }
    }

    /// Works on an iterator's results. `None` for other jobs.
    pub(super) fn with_stream<R>(&self, work: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        match &mut *self.body.borrow_mut() {
            Body::Stream(stream) => Some(work(stream)),
            _ => None,
        }
    }
}

impl Map {
    fn accept(&mut self, index: usize, report: Report) -> bool {
        if self.left == 0 {
            return false;
        }
        let first = index * self.chunk;
        match report {
            Report::Values(values) => {
                let places = self.values.iter_mut().skip(first).take(self.chunk);
                for (place, value) in places.zip(values) {
                    *place = value;
                }
            }
            Report::One(Err(error)) => {
                self.error.get_or_insert(error);
            }
            _ => {
                self.error.get_or_insert_with(unexpected);
            }
        }
        self.left -= 1;
        self.left == 0
    }
}

/// What to draw next for an iterator.
pub(super) struct Draw {
    pub(super) source: Source,
    pub(super) chunk: usize,
    /// The number of its first item.
    pub(super) first: usize,
}

impl Stream {
    /// The source, where more is to be drawn: it must be given back by [`Stream::drawn`]. `window` is how many tasks may be ahead of
    /// what was given away.
    pub(super) fn draw(&mut self, window: usize) -> Option<Draw> {
        if self.ahead >= window {
            return None;
        }
        match std::mem::replace(&mut self.feed, Feed::Busy) {
            Feed::Open(source) => Some(Draw {
                source,
                chunk: self.chunk,
                first: self.drawn,
            }),
            other => {
                self.feed = other;
                None
            }
        }
    }

    /// Gives the source back, with how many items it gave; `None` if it has ended.
    pub(super) fn drawn(&mut self, source: Option<Source>, items: usize) {
        self.drawn += items;
        if matches!(self.feed, Feed::Busy) {
            self.feed = source.map_or(Feed::Ended, Feed::Open);
        }
    }

    /// The number of the task that is about to be submitted.
    pub(super) fn submit(&mut self) -> usize {
        self.submitted += 1;
        self.open += 1;
        self.ahead += 1;
        self.submitted - 1
    }

    /// Whether all items were drawn.
    pub(super) fn is_fed(&self) -> bool {
        matches!(self.feed, Feed::Ended)
    }

    fn is_complete(&self) -> bool {
        self.is_fed() && self.open == 0
    }

    fn accept(&mut self, index: usize, report: Report) {
        self.open = self.open.saturating_sub(1);
        let outcomes = match report {
            Report::Each(outcomes) if !outcomes.is_empty() => outcomes,
            Report::One(Err(error)) => vec![Err(error)],
            _ => vec![Err(unexpected())],
        };
        if !self.ordered {
            self.give(outcomes);
            return;
        }
        let Some(place) = index.checked_sub(self.next) else {
            return;
        };
        if self.arrived.len() <= place {
            self.arrived.resize_with(place + 1, || None);
        }
        self.arrived[place] = Some(outcomes);
    }

    fn give(&mut self, outcomes: Vec<Outcome>) {
        let last = outcomes.len() - 1;
        let marked = outcomes.into_iter().enumerate();
        self.ready
            .extend(marked.map(|(i, outcome)| (outcome, i == last)));
    }

    /// The next result, if it is there.
    pub(super) fn pop(&mut self) -> Option<Outcome> {
        if self.ready.is_empty()
            && let Some(Some(_)) = self.arrived.front()
            && let Some(Some(outcomes)) = self.arrived.pop_front()
        {
            self.next += 1;
            self.give(outcomes);
        }
        let (outcome, last) = self.ready.pop_front()?;
        if last {
            self.ahead = self.ahead.saturating_sub(1);
        }
        Some(outcome)
    }

    /// Whether [`Stream::pop`] would give something.
    pub(super) fn has_next(&self) -> bool {
        !self.ready.is_empty() || matches!(self.arrived.front(), Some(Some(_)))
    }

    /// Whether there will be nothing more.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_complete() && !self.has_next()
    }

    fn fail(&mut self, error: &Dynamic) {
        if self.is_complete() {
            return;
        }
        self.feed = Feed::Ended;
        self.open = 0;
        // What came in time is given away; in order, as far as nothing is missing.
        while let Some(Some(_)) = self.arrived.front() {
            if let Some(Some(outcomes)) = self.arrived.pop_front() {
                self.give(outcomes);
            }
        }
        self.arrived.clear();
        self.give(vec![Err(error.clone())]);
    }
}

fn unexpected() -> Dynamic {
    Dynamic::from(ScriptError::new(
        Kind::RuntimeError,
        "a pool's worker sent an unexpected report",
    ))
}
