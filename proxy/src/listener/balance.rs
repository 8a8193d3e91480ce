//! Which worker serves a connection: the one that took it, or the one with the fewest (Envoy `exact_balance`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// One worker's part in a listening address.
#[derive(Debug)]
pub struct Seat {
    index: usize,
    all: Arc<[Desk]>,
    inbox: UnboundedReceiver<Handed>,
}

/// How much a worker has to do at the address, and where it gets more.
#[derive(Debug)]
struct Desk {
    connections: AtomicUsize,
    inbox: UnboundedSender<Handed>,
}

/// A connection on its way to the worker that serves it.
#[derive(Debug)]
struct Handed {
    stream: std::net::TcpStream,
    remote: SocketAddr,
    place: Place,
}

/// A connection as one of those that a worker has, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    index: usize,
    all: Arc<[Desk]>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(desk) = self.all.get(self.index) {
            desk.connections.fetch_sub(1, Relaxed);
        }
    }
}

/// Seats for so many workers.
pub(super) fn seats(workers: usize) -> Vec<Seat> {
    let (desks, inboxes): (Vec<Desk>, Vec<_>) = (0..workers)
        .map(|_| {
            let (inbox, receiver) = unbounded_channel();
            (Desk { connections: AtomicUsize::new(0), inbox }, receiver)
        })
        .unzip();
    let all: Arc<[Desk]> = desks.into();
    let seat = |(index, inbox)| Seat { index, all: Arc::clone(&all), inbox };
    inboxes.into_iter().enumerate().map(seat).collect()
}

impl Seat {
    /// Counts a connection here.
    pub(super) fn here(&self) -> Place {
        if let Some(desk) = self.all.get(self.index) {
            desk.connections.fetch_add(1, Relaxed);
        }
        Place { index: self.index, all: Arc::clone(&self.all) }
    }

    /// Counts a connection where there are fewest: here, if no other worker has fewer.
    fn fewest(&self) -> Place {
        loop {
            let counts = self.all.iter().map(|desk| desk.connections.load(Relaxed)).enumerate();
            let is_other = |index| index != self.index;
            let Some((index, count)) =
                counts.min_by_key(|(index, count)| (*count, is_other(*index)))
            else {
                return self.here();
            };
            let exchange = |desk: &Desk| {
                desk.connections.compare_exchange(count, count + 1, Relaxed, Relaxed).is_ok()
            };
            if self.all.get(index).is_some_and(exchange) {
                return Place { index, all: Arc::clone(&self.all) };
            }
        }
    }

    /// Gives the connection to the worker with the fewest. Comes back what is to be served here.
    ///
    /// # Errors
    /// When the system cannot watch it anew.
    pub(super) fn assign(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> io::Result<Option<(TcpStream, Place)>> {
        let place = self.fewest();
        if place.index == self.index {
            return Ok(Some((stream, place)));
        }
        let Some(desk) = self.all.get(place.index) else { return Ok(Some((stream, self.here()))) };
        let handed = Handed { stream: stream.into_std()?, remote, place };
        match desk.inbox.send(handed) {
            Ok(()) => Ok(None),
            // That worker has just stopped.
            Err(returned) => {
                let Handed { stream, .. } = returned.0;
                Ok(Some((TcpStream::from_std(stream)?, self.here())))
            }
        }
    }

    /// The next connection that another worker hands over; none once [`Seat::leave`] was called and nothing is
    /// left.
    pub(super) async fn next(&mut self) -> Option<io::Result<(TcpStream, SocketAddr, Place)>> {
        let Handed { stream, remote, place } = self.inbox.recv().await?;
        Some(TcpStream::from_std(stream).map(|stream| (stream, remote, place)))
    }

    /// Takes no more from other workers than what is on its way.
    pub(super) fn leave(&mut self) {
        self.inbox.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_where_there_are_fewest() {
        let seats = seats(3);
        let first = seats[1].fewest();
        assert_eq!(first.index, 1, "here, where all have the same");
        let (second, third) = (seats[1].fewest(), seats[1].fewest());
        assert_eq!([second.index, third.index], [0, 2]);
        drop(second);
        assert_eq!(seats[1].fewest().index, 0);
    }

    #[tokio::test]
    async fn a_worker_that_leaves_takes_what_is_on_its_way_and_no_more() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = listener.local_addr().unwrap();
        let connect = || TcpStream::connect(remote);
        let mut seats = seats(2);
        let _busy = seats[0].here();
        assert!(seats[0].assign(connect().await.unwrap(), remote).unwrap().is_none());
        seats[1].leave();
        let (_, _, place) = seats[1].next().await.unwrap().unwrap();
        assert!(seats[1].next().await.is_none());
        drop(place);
        let (_, place) = seats[0].assign(connect().await.unwrap(), remote).unwrap().unwrap();
        assert_eq!(place.index, 0);
    }
}
