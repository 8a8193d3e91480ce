//! Zero-copy transfer between sockets: bytes pass through a pipe inside the kernel (`splice(2)`).

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::{Resource, getrlimit};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe should hold, in bytes. Its slots hold pages that came from the network, which are rarely full.
const CAPACITY: usize = 256 * 1024;

/// Empty pipes that a thread keeps for the next transfer.
const SPARE: usize = 8;

/// The part of the process's file descriptors that pipes may take: one in so many. Flows that stand still keep
/// theirs, and connections need the others.
pub const SHARE: u64 = 8;

/// The pipes that may be open; read when the first is wanted, after the limit has been raised as far as it goes.
static MOST: LazyLock<u64> = LazyLock::new(|| {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    descriptors / SHARE / 2
});

/// The pipes that are open.
static OPEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, with the bytes that are in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    _counted: Counted,
}

/// One of the pipes that are open.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn within(most: u64) -> Option<Self> {
        let counted = (OPEN.fetch_add(1, Relaxed), Self);
        (counted.0 < most).then_some(counted.1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Relaxed);
    }
}

impl Pipe {
    /// An empty pipe, one of this thread's if it has any.
    ///
    /// # Errors
    /// When there are as many as there may be, or the system has no more file descriptors.
    pub fn take() -> io::Result<Self> {
        if let Some(pipe) = PIPES.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let counted = Counted::within(*MOST).ok_or(io::ErrorKind::QuotaExceeded)?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Where the system allows no larger pipes, more and smaller steps do the same.
        let _ = fcntl_setpipe_size(&write, CAPACITY);
        Ok(Self { read, write, held: 0, _counted: counted })
    }

    /// Keeps the pipe for the thread's next transfer; one that is not empty is closed.
    pub fn give_back(self) {
        PIPES.with_borrow_mut(|pipes| {
            if self.held == 0 && pipes.len() < SPARE {
                pipes.push(self);
            }
        });
    }

    /// Bytes in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves what has arrived at `socket` into the empty pipe, at most `limit` bytes; 0 is the stream's end.
    ///
    /// # Errors
    /// The socket's own; `InvalidInput` if it cannot be spliced.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(socket.poll_read_ready(cx))?;
            let moved = socket.try_io(Interest::READABLE, || {
                Ok(splice(socket, None, &self.write, None, limit, SpliceFlags::NONBLOCK)?)
            });
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => {
                    self.held += moved.as_ref().unwrap_or(&0);
                    return Poll::Ready(moved);
                }
            }
        }
    }

    /// Moves bytes from the pipe to `socket`, and tells how many.
    ///
    /// # Errors
    /// The socket's own.
    pub fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(socket.poll_write_ready(cx))?;
            let moved = socket.try_io(Interest::WRITABLE, || {
                Ok(splice(&self.read, None, socket, None, self.held, SpliceFlags::NONBLOCK)?)
            });
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => {
                    self.held -= moved.as_ref().unwrap_or(&0);
                    return Poll::Ready(moved);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(connecting, listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    #[test]
    fn what_cannot_be_counted_leaves_no_trace() {
        assert!(Counted::within(0).is_none());
        let open = OPEN.load(Relaxed);
        let one = Counted::within(u64::MAX).unwrap();
        drop(one);
        assert!(Counted::within(open + 64).is_some(), "other tests have a few, but none is lost");
    }

    #[tokio::test]
    async fn bytes_go_in_and_come_out_and_the_pipe_is_kept() {
        let ((mut source, near), (far, mut sink)) = (pair().await, pair().await);
        source.write_all(b"some bytes").await.unwrap();
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(cx, &near, 4)).await.unwrap(), 4);
        assert_eq!(poll_fn(|cx| pipe.poll_drain(cx, &far)).await.unwrap(), 4);
        assert_eq!((pipe.held(), sink.read(&mut [0; 9]).await.unwrap()), (0, 4));
        pipe.give_back();
        assert_eq!(PIPES.with_borrow(Vec::len), 1);

        let mut pipe = Pipe::take().unwrap();
        assert_eq!(PIPES.with_borrow(Vec::len), 0);
        assert_eq!(poll_fn(|cx| pipe.poll_fill(cx, &near, 100)).await.unwrap(), 6);
        pipe.give_back();
        assert_eq!(PIPES.with_borrow(Vec::len), 0, "what holds bytes is nobody else's pipe");

        drop(source);
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(cx, &near, 100)).await.unwrap(), 0);
    }
}
