//! The open tasks of a pool, by their ids.
//!
//! Invariant: an id is never given twice within two thousand million tasks, so a late report of a task that is no more is told from those
//! of others.

use super::dispatch::Message;
use super::job::Job;
use mphost_core::pool::LARGEST_TASK;
use std::rc::Rc;

/// One open task.
pub(super) struct Task {
    pub(super) job: Rc<Job>,
    /// Which one of its job it is.
    pub(super) index: usize,
    /// How often it may be run again.
    pub(super) retries: u32,
    /// Kept while it may be run again.
    pub(super) message: Option<Message>,
    /// It ran too long, and its worker is being ended.
    pub(super) overran: bool,
}

/// The open tasks.
#[derive(Default)]
pub(super) struct Tasks {
    places: Vec<(u64, Option<Task>)>,
    free: Vec<u32>,
    serial: u64,
}

const SERIALS: u64 = LARGEST_TASK >> 32;

impl Tasks {
    /// Adds a task; gives its id.
    pub(super) fn add(&mut self, task: Task) -> u64 {
        self.serial = self.serial % SERIALS + 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push((0, None));
                u32::try_from(self.places.len() - 1).expect("memory ends before 2^32 open tasks")
            }
        };
        // Ids begin at 1 << 32: 0 is none.
        let id = self.serial << 32 | u64::from(index);
        self.places[index as usize] = (id, Some(task));
        id
    }

    fn place(&mut self, id: u64) -> Option<&mut (u64, Option<Task>)> {
        let index = usize::try_from(id & u64::from(u32::MAX)).ok()?;
        self.places.get_mut(index).filter(|place| place.0 == id)
    }

    /// The task of that id.
    pub(super) fn get(&mut self, id: u64) -> Option<&mut Task> {
        self.place(id)?.1.as_mut()
    }

    /// Takes the task of that id out.
    pub(super) fn remove(&mut self, id: u64) -> Option<Task> {
        let task = self.place(id)?.1.take()?;
        self.free.push((id & u64::from(u32::MAX)) as u32);
        Some(task)
    }

    /// How many tasks are open.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The ids of a job's tasks.
    pub(super) fn of(&self, job: &Rc<Job>) -> Vec<u64> {
        self.iter()
            .filter(|(_, task)| Rc::ptr_eq(&task.job, job))
            .map(|(id, _)| id)
            .collect()
    }

    /// All tasks.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Task)> {
        self.places
            .iter()
            .filter_map(|(id, task)| task.as_ref().map(|task| (*id, task)))
    }

    /// Takes all tasks out.
    pub(super) fn clear(&mut self) -> Vec<Task> {
        self.free.clear();
        std::mem::take(&mut self.places)
            .into_iter()
            .filter_map(|(_, task)| task)
            .collect()
    }
}
