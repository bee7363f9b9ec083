//! The way in: jobs become tasks and are handed over, iterators' input is drawn, jobs are taken back.

use super::dispatch::{Message, Parcel};
use super::inner::Inner;
use super::job::{Draw, Job};
use super::local::value_of;
use super::task::{self, Function, Report, Shape};
use super::tasks::Task;
use crate::convert::Encoder;
use crate::error::{Kind, Result, ScriptError, thrown_value};
use crate::message::with_encoder;
use rhai::{Dynamic, FnPtr};
use std::rc::Rc;

impl Inner {
    /// A function, written down.
    ///
    /// # Errors
    /// `PicklingError`.
    pub(super) fn function(&self, pointer: &FnPtr) -> Result<Rc<Function>> {
        let plain = pointer.curry().is_empty();
        if plain
            && let Some((name, known)) = &*self.last.borrow()
            && name == pointer.fn_name()
        {
            return Ok(known.clone());
        }
        let function = Rc::new(Function::new(pointer)?);
        if plain {
            *self.last.borrow_mut() = Some((pointer.fn_name().into(), function.clone()));
        }
        Ok(function)
    }

    /// Submits the one task of a job of one call.
    ///
    /// # Errors
    /// `PicklingError` for arguments that can't travel.
    pub(super) fn submit_call(&self, job: &Rc<Job>, args: &Dynamic, kwds: &Dynamic) -> Result<()> {
        self.admit(job)?;
        let sent = self.submit(job, 0, |encoder, id| {
            task::write_call(encoder, id, &job.terms.function, args, kwds)
        });
        self.or_drop(job, sent)
    }

    /// Submits the tasks of a map.
    ///
    /// # Errors
    /// As [`Inner::submit_call`].
    pub(super) fn submit_map(&self, job: &Rc<Job>, items: &[Dynamic], chunk: usize) -> Result<()> {
        self.admit(job)?;
        for (index, chunk_items) in items.chunks(chunk.max(1)).enumerate() {
            let sent = self.submit(job, index, |encoder, id| {
                let Terms { shape, function } = terms(job);
                task::write_chunk(encoder, id, shape, function, index * chunk, chunk_items)
            });
            self.or_drop(job, sent)?;
        }
        if job.is_complete() {
            self.complete(job);
            self.call_back(true)?;
        }
        Ok(())
    }

    /// Begins an iterator's job.
    ///
    /// # Errors
    /// What drawing an item throws that isn't the input's own error.
    pub(super) fn submit_stream(&self, job: &Rc<Job>) -> Result<()> {
        self.admit(job)?;
        self.feeding.borrow_mut().push(job.clone());
        self.feed(job, self.window())
    }

    /// How many of an iterator's tasks may be ahead of what was taken from it.
    pub(super) fn window(&self) -> usize {
        (self.workers() * 4).max(32)
    }

    fn admit(&self, job: &Rc<Job>) -> Result<()> {
        if job.has_callback() {
            if self.listeners.get() == 0 {
                self.dispatch.listen(true)?;
            }
            self.listeners.set(self.listeners.get() + 1);
        }
        Ok(())
    }

    pub(super) fn dismiss(&self, job: &Job) {
        if job.has_callback() {
            self.listeners.set(self.listeners.get().saturating_sub(1));
            if self.listeners.get() == 0 {
                // The record is this process's own: it is there.
                let _ = self.dispatch.listen(false);
            }
        }
    }

    fn submit(
        &self,
        job: &Rc<Job>,
        index: usize,
        write: impl FnOnce(&mut Encoder, u64) -> Result<()>,
    ) -> Result<()> {
        let retries = job.terms.retries;
        let task = Task {
            job: job.clone(),
            index,
            retries,
            message: None,
            overran: false,
        };
        let id = self.tasks.borrow_mut().add(task);
        if let Some(limit) = job.terms.limit {
            self.time(limit);
        }
        let sent = with_encoder(|encoder| {
            if retries > 0 {
                encoder.repeat();
            }
            write(encoder, id)?;
            let function = &job.terms.function;
            let mut parcel = Parcel {
                bytes: encoder.bytes(),
                objects: encoder.objects().iter().chain(function.objects()).collect(),
                fds: encoder.borrowed_fds()?,
            };
            parcel.fds.extend(function.fds());
            if retries > 0 {
                let message = Message {
                    bytes: parcel.bytes.to_vec(),
                    objects: parcel.objects.iter().copied().cloned().collect(),
                    fds: task::duplicates(&parcel.fds)?,
                    pinned: encoder.pinned().to_vec(),
                };
                if let Some(task) = self.tasks.borrow_mut().get(id) {
                    task.message = Some(message);
                }
            }
            self.dispatch.submit(&parcel)
        });
        if sent.is_err() {
            self.remove(id);
        }
        sent
    }

    /// After a task of a job couldn't be sent, the job is no more.
    fn or_drop(&self, job: &Rc<Job>, sent: Result<()>) -> Result<()> {
        if sent.is_err() {
            self.recall(job, false)?;
            self.dismiss(job);
        }
        sent
    }

    pub(super) fn remove(&self, id: u64) -> Option<Task> {
        let task = self.tasks.borrow_mut().remove(id)?;
        if task.job.terms.limit.is_some() {
            self.timed.set(self.timed.get().saturating_sub(1));
            if self.timed.get() == 0 {
                self.shortest.set(u64::MAX);
                self.alarm.set(0);
            }
        }
        Some(task)
    }

    /// Takes a job's tasks back; ends those that run, if `abort`.
    fn recall(&self, job: &Rc<Job>, abort: bool) -> Result<()> {
        let mut ids = self.tasks.borrow().of(job);
        if ids.is_empty() {
            return Ok(());
        }
        ids.sort_unstable();
        for id in &ids {
            self.remove(*id);
        }
        self.dispatch
            .withdraw(&|id| ids.binary_search(&id).is_ok())?;
        if abort {
            for id in ids {
                self.dispatch.abort(id)?;
            }
        }
        Ok(())
    }

    /// Cancels a job: what waits is never run, what runs is ended. False if it is complete already.
    ///
    /// # Errors
    /// `AssertionError` in another process.
    pub(super) fn cancel(&self, job: &Rc<Job>) -> Result<bool> {
        self.check_own()?;
        self.look(true)?;
        if job.is_complete() {
            return Ok(false);
        }
        self.recall(job, true)?;
        job.fail(&Dynamic::from(ScriptError::new(
            Kind::CancelledError,
            "the task was cancelled",
        )));
        self.dismiss(job);
        job.set_done();
        self.epoch.set(self.epoch.get() + 1);
        Ok(true)
    }

    /// Draws an iterator's input and submits it, as long as fewer than `window` tasks are ahead.
    ///
    /// # Errors
    /// What interrupts.
    pub(super) fn feed(&self, job: &Rc<Job>, window: usize) -> Result<()> {
        while let Some(Draw {
            mut source,
            chunk,
            first,
        }) = job.with_stream(|stream| stream.draw(window)).flatten()
        {
            let mut items = Vec::with_capacity(chunk.min(1024));
            let mut failed = None;
            while items.len() < chunk {
                match source.next() {
                    Some(Ok(item)) => items.push(item),
                    Some(Err(error)) => {
                        failed = Some(error);
                        break;
                    }
                    None => break,
                }
            }
            let ended = failed.is_some() || items.len() < chunk;
            let count = items.len();
            let index = |job: &Job| job.with_stream(|stream| stream.submit()).unwrap_or(0);
            if let Some(error) = failed {
                // Python drops what it had drawn of an unfinished chunk, too.
                let error = thrown_value(&error, None);
                job.accept(index(job), Report::One(Err(error)));
            } else if count > 0 {
                let number = index(job);
                let sent = self.submit(job, number, |encoder, id| {
                    let Terms { shape, function } = terms(job);
                    task::write_chunk(encoder, id, shape, function, first, &items)
                });
                if let Err(error) = sent {
                    job.accept(number, Report::One(Err(value_of(error))));
                }
            }
            job.with_stream(|stream| stream.drawn((!ended).then_some(source), count));
        }
        if job.with_stream(|stream| stream.is_fed()).unwrap_or(true) {
            self.feeding
                .borrow_mut()
                .retain(|other| !Rc::ptr_eq(other, job));
            if job.is_complete() {
                job.set_done();
            }
        }
        Ok(())
    }
}

struct Terms<'a> {
    shape: Shape,
    function: &'a Function,
}

fn terms(job: &Job) -> Terms<'_> {
    Terms {
        shape: job.terms.shape,
        function: &job.terms.function,
    }
}
