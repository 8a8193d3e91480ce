//! One direction of a copy.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::{Broken, End, Meter, Side};
use crate::net::splice::Pipe;

/// Most bytes read at once. One of TLS's records has at most 16 KiB.
const CHUNK: usize = 64 * 1024;
/// A read that brings this much from a socket makes its flow a bulky one: below, copying is cheaper than splicing.
const BULKY: usize = 16 * 1024;
/// A bulky flow that has brought less than this at once is one no more.
const SMALL: usize = 4 * 1024;
/// Most bytes moved in one direction before others get their turn.
const TURN: usize = 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// One direction.
pub(super) struct Flow {
    from: Side,
    limit: usize,
    progress: Progress,
    kept: Kept,
    /// Bytes that reading is paused for.
    paused: usize,
    /// Something was written since the last flush.
    unflushed: bool,
    bulky: bool,
    /// The system cannot splice these sockets.
    unspliceable: bool,
    /// Why nothing can be written any more.
    broken: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Moving,
    /// The end has been read, and is to be passed on.
    Ending,
    Ended,
}

/// What was read and is not written yet.
enum Kept {
    Nothing,
    Bytes(Box<[u8]>, usize),
    Pipe(Pipe),
}

impl Flow {
    /// What comes from `from`, of which at most `limit` bytes are held.
    pub(super) fn new(from: Side, limit: usize) -> Self {
        Self {
            from,
            limit: limit.max(1),
            progress: Progress::Moving,
            kept: Kept::Nothing,
            paused: 0,
            unflushed: false,
            bulky: false,
            unspliceable: false,
            broken: None,
        }
    }

    fn to(&self) -> Side {
        match self.from {
            Side::Downstream => Side::Upstream,
            Side::Upstream => Side::Downstream,
        }
    }

    fn read_error(&self, error: io::Error) -> Broken {
        Broken { side: self.from, error }
    }

    fn write_error(&self, error: io::Error) -> Broken {
        Broken { side: self.to(), error }
    }

    /// Takes out why nothing could be written any more; none if nothing was in the way.
    pub(super) fn take_broken(&mut self) -> Option<Broken> {
        self.broken.take().map(|error| self.write_error(error))
    }

    /// Whether the reader's end has been seen to.
    pub(super) fn is_over(&self) -> bool {
        self.progress == Progress::Ended
    }

    /// Whether nothing can be written any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Moves what can be moved; ready once the end of `reader` has been passed on to `writer`. If `writer` breaks,
    /// `reader` may still have to be written to: it is heard out.
    ///
    /// # Errors
    /// `reader` broke.
    pub(super) fn poll<R: End, W: End>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        meter: &impl Meter,
    ) -> Poll<Result<(), Broken>> {
        if !self.is_broken() {
            match self.poll_forward(cx, reader, writer, meter) {
                Poll::Ready(Err(Broken { side, error })) if side == self.to() => {
                    self.broken = Some(error);
                    self.kept = Kept::Nothing;
                    if self.paused > 0 {
                        meter.resumed(self.from, std::mem::take(&mut self.paused));
                    }
                }
                polled => return polled,
            }
        }
        self.poll_discard(cx, reader, meter).map(Ok)
    }

    /// Takes what `reader` still sends for nobody, so that it does not wait to get rid of it; ready at its end.
    pub(super) fn poll_discard<R: End>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        meter: &impl Meter,
    ) -> Poll<()> {
        let mut taken = 0;
        while self.progress != Progress::Ended {
            if taken >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                let read = ready!(Pin::new(&mut *reader).poll_read(cx, &mut buffer));
                Poll::Ready(read.map_or(0, |()| buffer.filled().len()))
            });
            match ready!(read) {
                0 => self.progress = Progress::Ended,
                count => {
                    meter.read(self.from, count);
                    taken += count;
                }
            }
        }
        Poll::Ready(())
    }

    fn poll_forward<R: End, W: End>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        meter: &impl Meter,
    ) -> Poll<Result<(), Broken>> {
        let mut moved = 0;
        loop {
            match self.progress {
                Progress::Ended => return Poll::Ready(Ok(())),
                Progress::Ending => {
                    ready!(self.poll_drain(cx, writer, meter))?;
                    let closed = ready!(Pin::new(&mut *writer).poll_shutdown(cx));
                    closed.map_err(|error| self.write_error(error))?;
                    self.progress = Progress::Ended;
                }
                Progress::Moving if moved >= TURN => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Progress::Moving => {
                    ready!(self.poll_drain(cx, writer, meter))?;
                    let Poll::Ready(read) = self.poll_move(cx, reader, writer, meter)? else {
                        return self.poll_flush(cx, writer);
                    };
                    moved += read;
                }
            }
        }
    }

    /// Moves one chunk as far as it goes; 0 is the end, unless something was found out instead.
    fn poll_move<R: End, W: End>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        meter: &impl Meter,
    ) -> Poll<Result<usize, Broken>> {
        let sockets = match (reader.plain_socket(), writer.plain_socket()) {
            (Some(from), Some(to)) if !self.unspliceable => Some((from, to)),
            _ => None,
        };
        if let Some((from, to)) = sockets.filter(|_| self.bulky)
            && let Ok(pipe) = Pipe::take()
        {
            return self.poll_splice(cx, from, to, pipe, meter);
        }
        let spliceable = sockets.is_some();
        let room = if spliceable { BULKY } else { CHUNK };
        let read = ready!(self.poll_copy(cx, reader, writer, room.min(self.limit), meter))?;
        self.bulky = spliceable && read == BULKY;
        Poll::Ready(Ok(read))
    }

    /// Reads into the shared memory and writes from there.
    fn poll_copy<R: End, W: End>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        room: usize,
        meter: &impl Meter,
    ) -> Poll<Result<usize, Broken>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
            let read = ready!(Pin::new(reader).poll_read(cx, &mut buffer));
            match read {
                // TLS without a word of goodbye.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                read => read.map_err(|error| self.read_error(error))?,
            }
            let mut bytes = buffer.filled();
            let count = bytes.len();
            if count == 0 {
                self.progress = Progress::Ending;
                return Poll::Ready(Ok(0));
            }
            meter.read(self.from, count);
            while !bytes.is_empty() {
                let Poll::Ready(written) = Pin::new(&mut *writer).poll_write(cx, bytes) else {
                    self.kept = Kept::Bytes(bytes.into(), 0);
                    self.pause(bytes.len(), meter);
                    break;
                };
                let written = written.and_then(some).map_err(|error| self.write_error(error))?;
                self.wrote(written, meter);
                bytes = bytes.get(written..).unwrap_or_default();
            }
            Poll::Ready(Ok(count))
        })
    }

    /// Reads into a pipe and writes from there.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        mut pipe: Pipe,
        meter: &impl Meter,
    ) -> Poll<Result<usize, Broken>> {
        let count = match pipe.poll_fill(cx, from, self.limit) {
            Poll::Pending => {
                pipe.give_back();
                return Poll::Pending;
            }
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                (self.bulky, self.unspliceable) = (false, true);
                return Poll::Ready(Ok(0));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.read_error(error))),
        };
        if count == 0 {
            pipe.give_back();
            self.progress = Progress::Ending;
            return Poll::Ready(Ok(0));
        }
        self.bulky = count >= SMALL;
        meter.read(self.from, count);
        while pipe.held() > 0 {
            let Poll::Ready(written) = pipe.poll_drain(cx, to) else {
                self.pause(pipe.held(), meter);
                self.kept = Kept::Pipe(pipe);
                return Poll::Ready(Ok(count));
            };
            let written = written.and_then(some).map_err(|error| self.write_error(error))?;
            self.wrote(written, meter);
        }
        pipe.give_back();
        Poll::Ready(Ok(count))
    }

    /// Writes what was kept; ready when nothing is left.
    fn poll_drain<W: End>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
        meter: &impl Meter,
    ) -> Poll<Result<(), Broken>> {
        loop {
            let written = match &mut self.kept {
                Kept::Nothing => return Poll::Ready(Ok(())),
                Kept::Bytes(bytes, done) => {
                    let rest = bytes.get(*done..).unwrap_or_default();
                    let written = ready!(Pin::new(&mut *writer).poll_write(cx, rest));
                    *done += written.as_ref().unwrap_or(&0);
                    written
                }
                Kept::Pipe(pipe) => match writer.plain_socket() {
                    Some(socket) => ready!(pipe.poll_drain(cx, socket)),
                    None => Err(io::ErrorKind::InvalidInput.into()),
                },
            };
            let written = written.and_then(some).map_err(|error| self.write_error(error))?;
            self.wrote(written, meter);
            let left = match &self.kept {
                Kept::Nothing => 0,
                Kept::Bytes(bytes, done) => bytes.len() - done,
                Kept::Pipe(pipe) => pipe.held(),
            };
            if left == 0 {
                if let Kept::Pipe(pipe) = std::mem::replace(&mut self.kept, Kept::Nothing) {
                    pipe.give_back();
                }
                meter.resumed(self.from, std::mem::take(&mut self.paused));
            }
        }
    }

    /// While there is nothing to read: what was written is on its way, not in a buffer of the writer.
    fn poll_flush<W: End>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<Result<(), Broken>> {
        if self.unflushed {
            let flushed = ready!(Pin::new(writer).poll_flush(cx));
            flushed.map_err(|error| self.write_error(error))?;
            self.unflushed = false;
        }
        Poll::Pending
    }

    fn wrote(&mut self, bytes: usize, meter: &impl Meter) {
        self.unflushed = true;
        meter.wrote(self.to(), bytes);
    }

    fn pause(&mut self, bytes: usize, meter: &impl Meter) {
        self.paused = bytes;
        meter.paused(self.from, bytes);
    }
}

/// A writer that takes nothing will never take anything.
fn some(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}
