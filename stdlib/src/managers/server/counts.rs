//! Who holds an object, and when it goes.
//!
//! An object is counted once for each client that holds proxies of it, once for each proxy in this process itself (in another object, for
//! the most part), and once for each message that is under way to somebody else. At 0 it goes.
//!
//! Invariant: counting may lag behind, never run ahead: an object that is held is never dropped, and none while an object is at work.

use super::{ClientId, Server};

impl Server {
    pub(super) fn hold(&self, client: ClientId, object: u64) {
        if !self.objects.borrow().contains_key(&object) {
            return;
        }
        let mut clients = self.clients.borrow_mut();
        if clients
            .get_mut(&client)
            .is_some_and(|client| client.held.insert(object))
        {
            self.deltas.borrow_mut().push((object, 1));
        }
    }

    pub(super) fn let_go(&self, client: ClientId, object: u64) {
        let mut clients = self.clients.borrow_mut();
        if clients
            .get_mut(&client)
            .is_some_and(|client| client.held.remove(&object))
        {
            self.deltas.borrow_mut().push((object, -1));
        }
    }

    /// A proxy in this process holds the object.
    pub(in crate::managers) fn hold_here(&self, object: u64) {
        self.deltas.borrow_mut().push((object, 1));
    }

    /// The last proxy of an object here is gone: counted when no object is at work.
    pub(in crate::managers) fn drop_soon(&self, object: u64) {
        self.deltas.borrow_mut().push((object, -1));
    }

    /// A message from this process to somebody else holds the object.
    pub(in crate::managers) fn lend_here(&self, object: u64) {
        self.deltas.borrow_mut().push((object, 1));
    }

    /// Such a message has come back.
    pub(in crate::managers) fn return_here(&self, object: u64) {
        self.deltas.borrow_mut().push((object, -1));
    }

    /// Whether an answer to a client is being written.
    pub(in crate::managers) fn is_answering(&self) -> bool {
        self.answering.get()
    }

    /// Runs what writes an answer: proxies in it are the client's from then on.
    pub(in crate::managers) fn answering<R>(&self, write: impl FnOnce() -> R) -> R {
        let outer = self.answering.replace(true);
        let result = write();
        self.answering.set(outer);
        result
    }

    /// The answer that is being written names the object.
    pub(in crate::managers) fn grant(&self, object: u64) {
        self.grants.borrow_mut().push(object);
    }

    /// Applies the changes of counts, and drops what nobody holds any more.
    pub(super) fn settle(&self) {
        loop {
            let deltas = self.deltas.take();
            if deltas.is_empty() {
                return;
            }
            let mut dead = Vec::new();
            let mut objects = self.objects.borrow_mut();
            for (id, delta) in &deltas {
                if let Some(entry) = objects.get_mut(id) {
                    entry.count += delta;
                }
            }
            for (id, _) in &deltas {
                if objects.get(id).is_some_and(|entry| entry.count <= 0) {
                    dead.extend(objects.remove(id));
                }
            }
            drop(objects);
            // Dropping may drop proxies inside, which changes counts again.
            drop(dead);
        }
    }

    /// The object stays as long as the server.
    pub(in crate::managers) fn keep(&self, id: u64) {
        self.deltas.borrow_mut().push((id, 1));
    }
}
