//! The server's one loop: descriptors that are ready, deadlines that have passed.
//!
//! Invariants:
//! - A connection's error ends that connection alone.
//! - Nothing is read from a peer that doesn't take its answers; nothing waits for it.
//! - Each round serves what every peer had sent when its turn came, so none starves.
//! - A round costs what the peers that are ready cost, however many aren't.

use super::super::client::session_identity;
use super::super::objects::{Ticket, Verdict, Why};
use super::super::protocol::Op;
use super::crowd::Crowd;
use super::holder::Holder;
use super::peer::{Parked, Peer, Stage};
use super::{Request, Served, Server};
use crate::convert::Encoder;
use crate::error::Result;
use mphost_core::clock::Deadline;
use mphost_core::error::CoreError;
use mphost_core::position::Position;
use mphost_core::table::SlotId;
use mphost_core::transport::{Fill, Listener};
use mphost_core::wait::{PollFd, WaitInfo, WaitKind, wait_fds};
use nix::libc;
use nix::sys::epoll::EpollFlags;
use rhai::{Array, Dynamic, NativeCallContext};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// So many connections are accepted before those that are there have their turn.
const BURST: usize = 16;
/// So often those who ask again at once are served before everything else has its turn.
const TURNS: usize = 8;
/// Which of the polled descriptors is which.
const LISTENER: usize = 0;
const WAKER: usize = 1;
const CROWD: usize = 2;
/// From here on stand those who have departed.
const DEPARTED: usize = 3;
/// The other side has closed: nothing can be sent to it any more.
const HANG_UP: EpollFlags = EpollFlags::EPOLLHUP.union(EpollFlags::EPOLLERR);
/// How long no connections are accepted after the system has refused one (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// So many peers may be about to show that they have the key; one more, and the one that has taken longest is dropped. So strangers
/// leave descriptors for clients, however many they are.
const STRANGERS: usize = 256;
/// How long a server that was told to end tries to get rid of its last answers.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The server at work.
pub(in super::super) struct Loop<'s> {
    server: Rc<Server>,
    listener: Listener,
    key: Vec<u8>,
    peers: Vec<Option<Peer>>,
    /// Says which peers are ready.
    crowd: Crowd,
    polled: Vec<PollFd>,
    /// Clients whose connections have ended while they held locks, with what says that their processes have: polled behind the crowd.
    departed: Vec<(OwnedFd, Rc<Holder>)>,
    out: Encoder,
    script: &'s NativeCallContext<'s>,
    accept_again: Deadline,
    /// No peer's deadline is before this one. It may be a deadline that isn't any more: then a look at all of them says so.
    soonest: Deadline,
    /// How many peers haven't shown yet that they have the key.
    strangers: usize,
    stopping: bool,
}

impl<'s> Loop<'s> {
    /// A loop that hasn't begun.
    ///
    /// # Errors
    /// `OSError` where there are no descriptors left.
    pub(in super::super) fn new(
        server: Rc<Server>,
        listener: Listener,
        key: Vec<u8>,
        script: &'s NativeCallContext<'s>,
    ) -> Result<Loop<'s>> {
        mphost_core::transport::raise_descriptor_limit();
        Ok(Loop {
            server,
            listener,
            key,
            peers: Vec::new(),
            crowd: Crowd::new()?,
            polled: Vec::new(),
            departed: Vec::new(),
            out: Encoder::new(),
            script,
            accept_again: Deadline::NOW,
            soonest: Deadline::NEVER,
            strangers: 0,
            stopping: false,
        })
    }

    /// Serves until a client says that it is enough.
    ///
    /// # Errors
    /// Where the system refuses to wait; what an interrupt raises, unless `ignore` says to go on.
    pub(in super::super) fn run(&mut self, ignore: impl Fn(&CoreError) -> bool) -> Result<()> {
        let info = WaitInfo::new(WaitKind::Descriptors, 0, Position::NONE);
        while !self.stopping {
            let deadline = self.prepare();
            match wait_fds(&mut self.polled, info, deadline) {
                Ok(_) => {}
                Err(error) if ignore(&error) => continue,
                Err(error) => return Err(error.into()),
            }
            if self.polled[LISTENER].revents != 0 {
                self.accept();
            }
            if self.polled[WAKER].revents != 0 {
                self.server.poke(self.script);
                self.send_answers();
            }
            if self.polled[CROWD].revents != 0 {
                self.attend_crowd();
                // Who asks again at once needn't be looked for together with everything else each time.
                let mut turns = TURNS;
                while turns > 0 && !self.stopping && self.attend_crowd() {
                    turns -= 1;
                }
            }
            self.bury_departed();
            self.expire();
        }
        self.say_last_words(info);
        Ok(())
    }

    /// What to wait for, and how long.
    fn prepare(&mut self) -> Deadline {
        let mut deadline = self.soonest;
        let accepting = self.accept_again.has_passed();
        if !accepting {
            deadline = deadline.min(self.accept_again);
        }
        let events = if accepting { libc::POLLIN } else { 0 };
        self.polled.clear();
        // As LISTENER, WAKER and CROWD say.
        self.polled.extend(
            [
                (self.listener.as_raw_fd(), events),
                (self.server.waker.as_fd().as_raw_fd(), libc::POLLIN),
                (self.crowd.as_raw_fd(), libc::POLLIN),
            ]
            .map(|(fd, events)| PollFd {
                fd,
                events,
                revents: 0,
            }),
        );
        self.polled
            .extend(self.departed.iter().map(|(ended, _)| PollFd {
                fd: ended.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            }));
        deadline
    }

    /// Serves those peers that are ready; whether there were any.
    fn attend_crowd(&mut self) -> bool {
        let ready = self.crowd.ready(self.peers.len());
        // Who has hung up comes first: what it waited for shall go to somebody who is there.
        for hung_up in [true, false] {
            for &(place, events) in &ready {
                if events.intersects(HANG_UP) == hung_up {
                    self.attend(place, events);
                }
            }
        }
        !ready.is_empty()
    }

    /// After something was sent to a peer, or couldn't be: what it is watched for from now on.
    fn watch(&mut self, place: usize) {
        let Some(Some(peer)) = self.peers.get_mut(place) else {
            return;
        };
        if self.crowd.watch(peer, place).is_err() {
            // It would never have its turn again.
            self.close(place);
        }
    }

    fn accept(&mut self) {
        for _ in 0..BURST {
            match self.listener.accept() {
                Ok(Some(socket)) => {
                    let Ok(peer) = Peer::new(socket) else {
                        continue;
                    };
                    self.soonest = self.soonest.min(peer.deadline());
                    if peer.is_stranger() {
                        self.strangers += 1;
                        if self.strangers > STRANGERS {
                            self.drop_oldest_stranger();
                        }
                    }
                    let place = match self.peers.iter().position(Option::is_none) {
                        Some(place) => place,
                        None => {
                            self.peers.push(None);
                            self.peers.len() - 1
                        }
                    };
                    self.peers[place] = Some(peer);
                    self.watch(place);
                }
                Ok(None) => return,
                Err(_) => {
                    self.accept_again = Deadline::after(ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Makes room for a new stranger: whoever has had the most time to show that it has the key goes.
    fn drop_oldest_stranger(&mut self) {
        let strangers = self.peers.iter().enumerate().filter_map(|(place, peer)| {
            let peer = peer.as_ref().filter(|peer| peer.is_stranger())?;
            Some((peer.deadline(), place))
        });
        if let Some((_, place)) = strangers.min() {
            self.close(place);
        }
    }

    /// Reads from a peer, serves it and writes to it; an error ends it.
    fn attend(&mut self, place: usize, events: EpollFlags) {
        let Some(peer) = &mut self.peers[place] else {
            return;
        };
        let mut alive = true;
        if events.contains(EpollFlags::EPOLLOUT) {
            alive = peer.link.flush().is_ok();
        }
        if alive && events.intersects(!EpollFlags::EPOLLOUT) {
            let mut fill = self.read(place).unwrap_or(Fill::End);
            // Up to its end: what it has said before it left counts.
            while fill == Fill::Some && events.intersects(HANG_UP) {
                fill = self.read(place).unwrap_or(Fill::End);
            }
            alive = fill != Fill::End;
        }
        if alive {
            self.watch(place);
        } else {
            self.close(place);
        }
        self.send_answers();
    }

    /// Takes in what a peer has sent, once, and does what it asks for.
    fn read(&mut self, place: usize) -> Result<Fill> {
        let Some(peer) = &mut self.peers[place] else {
            return Ok(Fill::End);
        };
        let fill = peer.link.fill()?;
        loop {
            let Some(peer) = &mut self.peers[place] else {
                return Ok(Fill::End);
            };
            let Some(frame) = peer.link.frame()? else {
                break;
            };
            if matches!(peer.stage, Stage::Welcome | Stage::Ready(_)) {
                let request = peer.read(frame)?;
                self.request(place, request)?;
            } else {
                let was_stranger = peer.is_stranger();
                peer.authenticate(&self.key, &frame)?;
                if was_stranger && !peer.is_stranger() {
                    self.strangers -= 1;
                }
            }
        }
        Ok(fill)
    }

    fn request(&mut self, place: usize, request: Result<Request>) -> Result<()> {
        let Some(peer) = &mut self.peers[place] else {
            return Ok(());
        };
        let Some(client) = peer.client() else {
            return self.greet(place, request?);
        };
        if let Ok(Request { op, object, .. }) = &request
            && op.is_one_way()
        {
            match op {
                Op::Cancel => self.cancel(place),
                Op::Hold => {
                    self.server.return_here(*object);
                    self.server.hold(client, *object);
                }
                Op::Drop => self.server.let_go(client, *object),
                Op::Lend => self.server.lend_here(*object),
                Op::Leave => self.server.holder(client).takes_leave(),
                _ => {}
            }
            self.server.settle();
            return Ok(());
        }
        peer.request += 1;
        let ticket = peer.ticket(place);
        if peer.parked.is_some() {
            return Err(super::super::objects::malformed());
        }
        self.out.set_foreign(!peer.same_session);
        let object = request.as_ref().map_or(0, |request| request.object);
        let served = match request {
            Ok(Request {
                op: Op::Shutdown, ..
            }) => {
                self.stopping = true;
                super::super::objects::write_done(self.out_cleared(), &Dynamic::UNIT)?;
                Served::Answered
            }
            Ok(request) => {
                let mut out = std::mem::take(&mut self.out);
                let served = self
                    .server
                    .serve(request, ticket, client, &mut out, self.script);
                self.out = out;
                served
            }
            Err(error) => {
                super::super::objects::write_thrown(&mut self.out, error, self.script);
                Served::Answered
            }
        };
        match served {
            Served::Answered => self.send_out(place),
            Served::Waits(deadline) => {
                self.soonest = self.soonest.min(deadline);
                let object = self.server.object(object)?;
                if let Some(peer) = &mut self.peers[place] {
                    peer.parked = Some(Parked { object, deadline });
                }
                Ok(())
            }
        }
    }

    fn out_cleared(&mut self) -> &mut Encoder {
        self.out.clear();
        &mut self.out
    }

    /// A client says who it is.
    fn greet(&mut self, place: usize, request: Request) -> Result<()> {
        let malformed = super::super::objects::malformed;
        let mut args = request.args.into_iter();
        let mut number = || {
            args.next()
                .and_then(|arg| arg.as_int().ok())
                .ok_or_else(malformed)
        };
        let identity = (number()?, number()?);
        let session = (number()?, number()?);
        let (slot, pid) = (number()?.cast_unsigned(), number()?);
        let held = args
            .next()
            .and_then(|held| held.try_cast::<Array>())
            .ok_or_else(malformed)?;
        let held = held
            .iter()
            .filter_map(|id| id.as_int().ok())
            .map(i64::cast_unsigned);
        let Some(peer) = &mut self.peers[place] else {
            return Ok(());
        };
        peer.same_session = session == session_identity();
        let slot = peer.same_session.then(|| SlotId::from_u64(slot));
        let pid = i32::try_from(pid).map_err(|_| malformed())?;
        let client = self.server.client_came(identity, held, pid, slot);
        self.server.settle();
        peer.stage = Stage::Ready(client);
        let same: Dynamic = peer.same_session.into();
        self.out_cleared().value(&same)?;
        self.send_out(place)
    }

    /// Sends what is in `out` to a peer.
    fn send_out(&mut self, place: usize) -> Result<()> {
        let Some(peer) = &mut self.peers[place] else {
            return Ok(());
        };
        let refused = if !peer.same_session && !self.out.handles().is_empty() {
            Some(
                "queues, locks and shared values belong to their program: they can't travel to another one, which can use what a manager itself \
                 makes, and a queue::Queue()",
            )
        } else if !peer.local && !self.out.fds().is_empty() {
            Some("connections and sockets can't travel over a network")
        } else {
            None
        };
        let allowed = match refused {
            Some(text) => Err(crate::error::raise(crate::error::Kind::PicklingError, text)),
            None => self.out.depart(),
        };
        if let Err(error) = allowed {
            super::super::objects::write_thrown(&mut self.out, error, self.script);
        }
        let handles = self.out.seal();
        let sent = crate::message::send(&mut peer.link, &mut self.out);
        if sent.is_err() {
            handles
                .into_iter()
                .for_each(|handle| mphost_core::session::session().release(handle));
        }
        // What was only kept for the message goes now: others may wait for the end of a connection.
        self.out.clear();
        sent
    }

    /// Sends the answers to operations that don't wait any more.
    fn send_answers(&mut self) {
        loop {
            let answers = self.server.answers.take();
            if answers.is_empty() {
                return;
            }
            for (ticket, verdict) in answers {
                self.answer(ticket, verdict);
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, verdict: Verdict) {
        let Some(Some(peer)) = self.peers.get_mut(ticket.peer) else {
            return;
        };
        let Some(client) = peer
            .client()
            .filter(|_| peer.request == ticket.request && peer.parked.is_some())
        else {
            return;
        };
        peer.parked = None;
        self.out.set_foreign(!peer.same_session);
        let mut out = std::mem::take(&mut self.out);
        self.server.answer(client, verdict, &mut out, self.script);
        self.out = out;
        if self.send_out(ticket.peer).is_err() {
            self.close(ticket.peer);
        } else {
            self.watch(ticket.peer);
        }
    }

    /// A client doesn't want to wait any longer. If nothing of it waits, the answer is on its way already.
    fn cancel(&mut self, place: usize) {
        self.end_wait(place, Why::Cancelled);
    }

    fn end_wait(&mut self, place: usize, why: Why) {
        let Some(peer) = &mut self.peers[place] else {
            return;
        };
        let (Some(client), ticket) = (peer.client(), peer.ticket(place)) else {
            return;
        };
        let Some(parked) = &mut peer.parked else {
            return;
        };
        // If the object goes on with it (a condition takes its lock again), then without a limit.
        parked.deadline = Deadline::NEVER;
        let object = parked.object.clone();
        self.server
            .expire(&object, ticket, client, why, self.script);
    }

    /// Ends what has waited long enough. All peers are looked at only when one of them may have.
    fn expire(&mut self) {
        if !self.soonest.has_passed() {
            return;
        }
        self.soonest = Deadline::NEVER;
        for place in 0..self.peers.len() {
            let Some(peer) = &self.peers[place] else {
                continue;
            };
            if !peer.deadline().has_passed() {
                self.soonest = self.soonest.min(peer.deadline());
                continue;
            }
            if peer.parked.is_some() {
                self.end_wait(place, Why::Timeout);
            } else {
                self.close(place);
            }
        }
        self.send_answers();
    }

    fn close(&mut self, place: usize) {
        self.end_wait(place, Why::Gone);
        let Some(mut peer) = self.peers[place].take() else {
            return;
        };
        self.crowd.forget(&peer);
        if peer.is_stranger() {
            self.strangers -= 1;
        }
        // A peer that was refused shall learn why.
        let _ = peer.link.flush();
        if let Some(client) = peer.client()
            && let Some(holder) = self.server.client_left(client)
        {
            self.see_off(holder);
        }
    }

    /// A client has gone with locks in its hand.
    fn see_off(&mut self, holder: Rc<Holder>) {
        match holder.watch() {
            Some(ended) => self.departed.push((ended, holder)),
            None => self.bury(&holder),
        }
    }

    /// Looks which of the departed have ended.
    fn bury_departed(&mut self) {
        // Who has departed since wasn't polled.
        for index in (0..self.polled.len() - DEPARTED).rev() {
            if self.polled[DEPARTED + index].revents != 0 {
                let (_, holder) = self.departed.swap_remove(index);
                self.bury(&holder);
            }
        }
        self.send_answers();
    }

    /// A holder of locks has ended: whoever waits looks again whether it is for one of those.
    fn bury(&mut self, holder: &Holder) {
        self.server.client_ended(holder);
        for parked in self
            .peers
            .iter()
            .flatten()
            .filter_map(|p| p.parked.as_ref())
        {
            self.server.poke_one(&parked.object, self.script);
        }
    }

    /// Answers that are still on their way get a moment.
    fn say_last_words(&mut self, info: WaitInfo) {
        let deadline = Deadline::after(LAST_WORDS);
        loop {
            self.polled.clear();
            for peer in self.peers.iter_mut().flatten() {
                if peer.link.flush().is_ok_and(|done| !done) {
                    self.polled.push(PollFd {
                        fd: peer.link.as_raw_fd(),
                        events: libc::POLLOUT,
                        revents: 0,
                    });
                }
            }
            if self.polled.is_empty()
                || deadline.has_passed()
                || wait_fds(&mut self.polled, info, deadline).is_err()
            {
                return;
            }
        }
    }
}
