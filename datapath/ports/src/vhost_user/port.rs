//! What does one port do when something happens at its sockets?
//!
//! States: *waiting* (no connection) and *connected* (a [`Connection`], of which there is never more than one). A
//! connection that ends, for whatever reason, takes its rings, memory and descriptors with it; the port waits again, for
//! ever.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::channel::{Channel, ChannelError};
use super::endpoint::{self, Endpoint};
use super::message::{Header, Message, Reply};
use super::queues::Queues;
use super::session::{Failure, Profile, Session};
use crate::control::Controlled;
use crate::reactor::{Interest, Reactor, Source, Timer};
use crate::{Link, Waker};

/// The first pause before the switch connects again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Messages taken from one connection before others have their turn.
const MESSAGES_PER_TURN: usize = 32;

/// One vhost-user port.
pub(super) struct Port {
    id: u64,
    endpoint: Endpoint,
    profile: Arc<Profile>,
    queues: Arc<Queues>,
    connection: Option<Connection>,
    timer: Timer,
    retry: Duration,
    /// Why the last connection ended, or why there is none.
    parting: Option<String>,
    waker: Option<Waker>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port")
            .field("endpoint", &self.endpoint)
            .field("link", &self.link())
            .finish_non_exhaustive()
    }
}

impl Port {
    /// A port whose sockets are watched by `reactor` from now on.
    pub(super) fn new(
        id: u64,
        endpoint: Endpoint,
        profile: Profile,
        queues: Arc<Queues>,
        reactor: &Reactor,
    ) -> io::Result<Self> {
        let timer = Timer::new()?;
        reactor.watch(&timer, id, Source::Timer)?;
        match &endpoint {
            Endpoint::Created(listener) => reactor.watch(listener, id, Source::Listener)?,
            Endpoint::Remote(_) => timer.arm(Duration::from_nanos(1)),
        }
        Ok(Self {
            id,
            endpoint,
            profile: Arc::new(profile),
            queues,
            connection: None,
            timer,
            retry: RETRY_MIN,
            parting: None,
            waker: None,
        })
    }

    fn accept(&mut self, reactor: &Reactor) {
        let Endpoint::Created(listener) = &self.endpoint else { return };
        match listener.accept() {
            // One frontend at a time: the second one is closed.
            Ok(stream) if self.connection.is_none() => self.attach(stream, reactor),
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {
                }
                _ => {
                    // No descriptor left, as a rule. The listener would stay readable: look away for a while.
                    reactor.forget(listener);
                    self.parting = Some(format!("a connection cannot be accepted: {error}"));
                    self.rest();
                }
            },
        }
    }

    /// What the timer was armed for: to listen again, or to connect again.
    fn retry(&mut self, reactor: &Reactor) {
        match &self.endpoint {
            Endpoint::Created(listener) => {
                if let Err(error) = reactor.watch(listener, self.id, Source::Listener)
                    && error.kind() != io::ErrorKind::AlreadyExists
                {
                    self.rest();
                }
            }
            Endpoint::Remote(path) if self.connection.is_none() => match endpoint::connect(path) {
                Ok(stream) => self.attach(stream, reactor),
                Err(errno) => {
                    self.parting = Some(format!("the last attempt: {}", io::Error::from(errno)));
                    self.rest();
                }
            },
            Endpoint::Remote(_) => {}
        }
    }

    fn rest(&mut self) {
        self.timer.arm(self.retry);
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }

    fn attach(&mut self, stream: UnixStream, reactor: &Reactor) {
        let session = Session::new(Arc::clone(&self.profile), Arc::clone(&self.queues));
        let watched = Channel::new(stream).and_then(|channel| {
            reactor.watch(&channel, self.id, Source::Messages)?;
            Ok(channel)
        });
        match watched {
            Ok(channel) => {
                self.connection = Some(Connection { channel, session, interest: Interest::Read });
            }
            Err(error) => {
                self.parting = Some(format!("a connection cannot be served: {error}"));
                self.rest();
            }
        }
    }

    fn serve(&mut self, reactor: &Reactor) {
        let Some(connection) = &mut self.connection else { return };
        match connection.serve() {
            Ok(served) => {
                if served {
                    self.retry = RETRY_MIN;
                }
                connection.follow(self.id, reactor);
            }
            Err(reason) => {
                reactor.forget(connection.channel.as_fd());
                self.parting = Some(reason);
                self.connection = None;
                if matches!(self.endpoint, Endpoint::Remote(_)) {
                    self.rest();
                }
            }
        }
        if let Some(wake) = &self.waker {
            wake();
        }
    }
}

impl Controlled for Port {
    fn set_waker(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    fn link(&self) -> Link {
        match &self.connection {
            Some(connection) => connection.session.link(),
            None => {
                let waiting = self.endpoint.waiting();
                let detail = match &self.parting {
                    Some(parting) => format!("{waiting}; {parting}"),
                    None => waiting,
                };
                Link { up: false, detail }
            }
        }
    }

    fn on_event(&mut self, source: Source, reactor: &Reactor) {
        match source {
            Source::Messages => self.serve(reactor),
            Source::Timer => {
                self.timer.clear();
                self.retry(reactor);
            }
            Source::Listener => {
                // The frontend may have gone and come back before its end was noticed.
                self.serve(reactor);
                self.accept(reactor);
            }
        }
    }

    /// A vhost-user port leaves nothing behind that a restart would need.
    fn retire(&mut self) {}
}

/// One frontend.
struct Connection {
    channel: Channel,
    session: Session,
    interest: Interest,
}

impl Connection {
    /// Takes the messages that are there; true if there was one.
    ///
    /// # Errors
    /// In words, why the connection ends.
    fn serve(&mut self) -> Result<bool, String> {
        let end = |error: ChannelError| match error {
            ChannelError::Violation(violation) => format!("the last program was cut off: {violation}"),
            other => other.to_string(),
        };
        self.channel.flush().map_err(end)?;
        let mut served = false;
        for _ in 0..MESSAGES_PER_TURN {
            if self.channel.is_clogged() {
                break;
            }
            let Some((header, message)) = self.channel.receive().map_err(end)? else { break };
            self.answer(header, message)?;
            served = true;
        }
        Ok(served)
    }

    fn answer(&mut self, header: Header, message: Message) -> Result<(), String> {
        // Before the message is handled: the request that negotiates acknowledgements is not yet acknowledged.
        let acknowledge = header.need_reply && self.session.acknowledges();
        let reply = match self.session.handle(message) {
            Ok(Some(reply)) => Some(reply),
            Ok(None) => acknowledge.then_some(Reply::U64(0)),
            Err(Failure::Refused(_)) if acknowledge => Some(Reply::U64(1)),
            Err(failure) => return Err(format!("the last program was cut off: {failure}")),
        };
        match reply {
            Some(reply) => self.channel.send(header.request, &reply).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// Waits for room instead of messages while replies are not read, and the other way round.
    fn follow(&mut self, port: u64, reactor: &Reactor) {
        let wanted = if self.channel.is_clogged() { Interest::Write } else { Interest::Read };
        if wanted != self.interest && reactor.change(&self.channel, port, Source::Messages, wanted).is_ok() {
            self.interest = wanted;
        }
    }
}
