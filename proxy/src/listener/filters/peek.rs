//! The first bytes of a connection, looked at without taking them, so that whoever serves it reads them again.

use std::io;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Enough for nearly every beginning, so that one look suffices.
const FIRST_LOOK: usize = 4 * 1024;

/// What has been seen of a connection's beginning. Filters share it: what one waited for, the next one has.
#[derive(Debug, Default)]
pub(super) struct Peek {
    buffer: Vec<u8>,
    seen: usize,
}

impl Peek {
    /// Waits until `parse` can tell what the connection begins with. None if it still cannot after `limit`
    /// bytes. The caller sets the time limit.
    ///
    /// # Errors
    /// `UnexpectedEof` if the client closes before that, and whatever the socket reports.
    pub(super) async fn until<T>(
        &mut self,
        stream: &TcpStream,
        limit: usize,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        loop {
            let seen = self.buffer.get(..self.seen).unwrap_or_default();
            if !seen.is_empty()
                && let Some(answer) = parse(seen)
            {
                return Ok(Some(answer));
            }
            if self.seen >= limit {
                return Ok(None);
            }
            self.more(stream).await?;
        }
    }

    /// How many bytes have been seen.
    pub(super) fn seen(&self) -> usize {
        self.seen
    }

    /// Takes the first `count` of the bytes seen from the connection: they are another layer's.
    ///
    /// # Errors
    /// What the socket reports.
    pub(super) fn take(&mut self, stream: &TcpStream, count: usize) -> io::Result<()> {
        let count = count.min(self.seen);
        let mut left = count;
        while let Some(target) = self.buffer.get_mut(..left).filter(|target| !target.is_empty()) {
            match recv(stream, target, RecvFlags::DONTWAIT)? {
                (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (taken, _) => left -= taken,
            }
        }
        self.buffer.drain(..count);
        self.seen -= count;
        Ok(())
    }

    /// Waits until more has arrived than was seen.
    ///
    /// The socket stays readable as long as nothing is taken. Reporting `WouldBlock` when nothing new is
    /// there makes the runtime wait for the next arrival instead of asking again at once.
    async fn more(&mut self, stream: &TcpStream) -> io::Result<()> {
        if self.seen == self.buffer.len() {
            self.buffer.resize((2 * self.seen).max(FIRST_LOOK), 0);
        }
        loop {
            let ready = stream.ready(Interest::READABLE).await?;
            let attempt = stream.try_io(Interest::READABLE, || {
                let (count, _) = recv(stream, &mut *self.buffer, RecvFlags::PEEK)?;
                if count > self.seen { Ok(count) } else { Err(io::ErrorKind::WouldBlock.into()) }
            });
            match attempt {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready.is_read_closed() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                outcome => {
                    self.seen = outcome?;
                    return Ok(());
                }
            }
        }
    }
}

/// The same connection, whose readiness is asked for anew: waiting for more than there was has made the
/// runtime forget what is there.
pub(super) fn wake(stream: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(stream.into_std()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// Enough once there are `count` bytes.
    fn at_least(count: usize) -> impl Fn(&[u8]) -> Option<Vec<u8>> {
        move |bytes| (bytes.len() >= count).then(|| bytes.to_vec())
    }

    #[tokio::test]
    async fn bytes_that_come_one_by_one_are_waited_for_and_left_in_place() {
        let (mut client, mut server) = pair().await;
        let bytes: Vec<u8> = (0..=255).collect();
        let sent = bytes.clone();
        let sender = tokio::spawn(async move {
            client.set_nodelay(true).unwrap();
            for chunk in sent.chunks(64) {
                client.write_all(chunk).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            client
        });
        let seen = Peek::default().until(&server, 300, at_least(256)).await.unwrap();
        assert_eq!(seen.as_ref(), Some(&bytes));
        let _client = sender.await.unwrap();
        let mut again = vec![0; bytes.len()];
        server.read_exact(&mut again).await.unwrap();
        assert_eq!(again, bytes);
    }

    #[tokio::test]
    async fn a_long_beginning_is_read_past_the_first_look_but_not_the_limit() {
        let (mut client, server) = pair().await;
        let bytes = vec![7; 3 * FIRST_LOOK];
        client.write_all(&bytes).await.unwrap();
        let mut peek = Peek::default();
        let seen = peek.until(&server, bytes.len(), at_least(bytes.len())).await.unwrap();
        assert_eq!(seen, Some(bytes.clone()));
        let never = peek.until(&server, bytes.len(), at_least(usize::MAX)).await.unwrap();
        assert_eq!(never, None);
    }

    #[tokio::test]
    async fn what_is_taken_is_gone_and_the_rest_stays() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"headbody").await.unwrap();
        let mut peek = Peek::default();
        peek.until(&server, 8, at_least(8)).await.unwrap();
        peek.take(&server, 4).unwrap();
        let rest = peek.until(&server, 8, at_least(1)).await.unwrap();
        assert_eq!(rest.as_deref(), Some(&b"body"[..]));
        let mut body = [0; 4];
        server.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"body");
    }

    #[tokio::test]
    async fn a_client_that_leaves_early_is_an_error() {
        for beginning in [&b""[..], b"\x16\x03"] {
            let (mut client, server) = pair().await;
            client.write_all(beginning).await.unwrap();
            drop(client);
            let error = Peek::default().until(&server, 9, at_least(3)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn waiting_for_more_does_not_keep_the_thread_busy_and_loses_nothing() {
        let (mut client, server) = pair().await;
        client.write_all(b"abc").await.unwrap();
        let polls = std::cell::Cell::new(0);
        let waiting = async {
            let mut peek = Peek::default();
            let mut inspection = std::pin::pin!(peek.until(&server, 9, at_least(4)));
            std::future::poll_fn(|context| {
                polls.set(polls.get() + 1);
                inspection.as_mut().poll(context)
            })
            .await
        };
        let timeout = tokio::time::timeout(Duration::from_millis(50), waiting).await;
        assert!(timeout.is_err());
        assert!(polls.get() < 10, "{} polls", polls.get());
        let mut there = [0; 3];
        wake(server).unwrap().read_exact(&mut there).await.unwrap();
        assert_eq!(&there, b"abc");
    }
}
