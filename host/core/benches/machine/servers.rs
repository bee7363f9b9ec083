//! What it costs to have a server do something: to start it, to ask it over a unix socket, to reach it by TCP on this host.
//!
//! Invariant: the server does nothing but answer, in the order in which it is asked. So the figures are what a manager's calls can't go
//! below as long as they are messages to another process.

use super::children::{Child, together};
use super::handoffs::{receive, round_trip, send};
use super::{Figure, failed, mean, mean_of};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::time::Instant;

/// The bytes of a request, and of the answer to it.
const SIZE: usize = 32;

/// From the fork to the first byte over a connection. The address is abstract: no file is left behind.
pub(super) fn start() -> Figure {
    let name = format!("mphost-bench-machine-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(name).map_err(failed("address"))?;
    mean_of(|| {
        let begin = Instant::now();
        let (mut ready, mut listening) = std::io::pipe().map_err(failed("pipe"))?;
        let server = Child::start(|| {
            let listener = UnixListener::bind_addr(&address).map_err(failed("bind"))?;
            send(&mut listening, &[1])?;
            let (mut connection, _) = listener.accept().map_err(failed("accept"))?;
            send(&mut connection, &[1])
        })?;
        drop(listening);
        receive(&mut ready, &mut [0])?;
        let mut connection = UnixStream::connect_addr(&address).map_err(failed("connect"))?;
        receive(&mut connection, &mut [0])?;
        let elapsed = begin.elapsed();
        // Until it has ended, the address is taken.
        server.wait()?;
        Ok(elapsed)
    })
}

pub(super) fn request() -> Figure {
    let (mine, theirs) = UnixStream::pair().map_err(failed("socketpair"))?;
    round_trip::<SIZE>(mine, theirs)
}

pub(super) fn request_by_four() -> Figure {
    let mut pairs = Vec::new();
    for _ in 0..4 {
        pairs.push(UnixStream::pair().map_err(failed("socketpair"))?);
    }
    let (mine, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let _server = Child::start(|| serve(&theirs))?;
    drop(theirs);
    together(4, 50, |party| {
        let mut connection = &mine[party];
        move || {
            send(&mut connection, &[7; SIZE])?;
            receive(&mut connection, &mut [0; SIZE])
        }
    })
}

/// Answers whoever asks, for ever.
fn serve(connections: &[UnixStream]) -> Result<(), String> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("epoll_create"))?;
    for (place, connection) in (0..).zip(connections) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, place);
        epoll.add(connection, event).map_err(failed("epoll_ctl"))?;
    }
    let mut events = [EpollEvent::empty(); 8];
    loop {
        let ready = epoll
            .wait(&mut events, EpollTimeout::NONE)
            .map_err(failed("epoll_wait"))?;
        for event in &events[..ready] {
            let mut connection = &connections[event.data() as usize];
            receive(&mut connection, &mut [0; SIZE])?;
            send(&mut connection, &[7; SIZE])?;
        }
    }
}

/// From connect to the first byte of a server that accepts, sends it and closes.
pub(super) fn tcp_connect() -> Figure {
    let (listener, address) = listen()?;
    let _server = Child::start(|| {
        loop {
            let (mut connection, _) = listener.accept().map_err(failed("accept"))?;
            send(&mut connection, &[1])?;
        }
    })?;
    drop(listener);
    mean(10, || {
        let mut connection = TcpStream::connect(address).map_err(failed("connect"))?;
        receive(&mut connection, &mut [0])
    })
}

pub(super) fn tcp_round_trip() -> Figure {
    let (listener, address) = listen()?;
    let mine = TcpStream::connect(address).map_err(failed("connect"))?;
    let (theirs, _) = listener.accept().map_err(failed("accept"))?;
    for end in [&mine, &theirs] {
        // Small messages at once, as who waits for an answer wants them.
        end.set_nodelay(true).map_err(failed("TCP_NODELAY"))?;
    }
    round_trip::<SIZE>(mine, theirs)
}

fn listen() -> Result<(TcpListener, SocketAddr), String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("bind"))?;
    let address = listener.local_addr().map_err(failed("address"))?;
    Ok((listener, address))
}
