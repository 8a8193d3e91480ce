//! gzip (RFC 1952).

use bytes::{Buf as _, Bytes};
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Coded, Coder, Undecodable, Until};

/// What compresses.
pub(super) struct Deflate(Compress);

impl Deflate {
    /// At this level, if not at the library's own, with a window of two to the power of `window_bits`.
    pub(super) fn new(level: Option<u8>, window_bits: u8) -> Self {
        let level = level.map_or_else(flate2::Compression::default, |level| {
            flate2::Compression::new(level.into())
        });
        Self(Compress::new_gzip(level, window_bits.clamp(9, 15)))
    }
}

impl Coder for Deflate {
    fn code(
        &mut self,
        input: &mut Bytes,
        until: Until,
        output: &mut [u8],
    ) -> Result<Coded, Undecodable> {
        let flush = match until {
            Until::Flushed => FlushCompress::Sync,
            Until::Ended => FlushCompress::Finish,
        };
        let before = (self.0.total_in(), self.0.total_out());
        let status = self.0.compress(input, output, flush).map_err(|_| Undecodable::Malformed)?;
        input.advance((self.0.total_in() - before.0) as usize);
        let written = (self.0.total_out() - before.1) as usize;
        let done = match until {
            Until::Flushed => written < output.len(),
            Until::Ended => status == Status::StreamEnd,
        };
        Ok(Coded { written, done })
    }
}

/// What decompresses. What follows the end is dropped, as Envoy drops it.
pub(super) struct Inflate {
    library: Decompress,
    ended: bool,
}

impl Inflate {
    /// With a window of two to the power of `window_bits`.
    pub(super) fn new(window_bits: u8) -> Self {
        Self { library: Decompress::new_gzip(window_bits.clamp(9, 15)), ended: false }
    }
}

impl Coder for Inflate {
    fn code(
        &mut self,
        input: &mut Bytes,
        until: Until,
        output: &mut [u8],
    ) -> Result<Coded, Undecodable> {
        if self.ended {
            input.clear();
            return Ok(Coded { written: 0, done: true });
        }
        let before = (self.library.total_in(), self.library.total_out());
        let status = self.library.decompress(input, output, FlushDecompress::None);
        self.ended = status.map_err(|_| Undecodable::Malformed)? == Status::StreamEnd;
        input.advance((self.library.total_in() - before.0) as usize);
        let written = (self.library.total_out() - before.1) as usize;
        let done = self.ended || written < output.len();
        if done && !self.ended && until == Until::Ended && self.library.total_in() > 0 {
            return Err(Undecodable::Truncated);
        }
        Ok(Coded { written, done })
    }
}
