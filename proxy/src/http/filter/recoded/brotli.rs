//! brotli (RFC 7932).

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{
    BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct,
};
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use bytes::{Buf as _, Bytes};

use super::{Coded, Coder, Undecodable, Until};
use crate::config::compression::BrotliMode;

/// What compresses.
pub(super) struct Encoder(BrotliEncoderStateStruct<StandardAlloc>);

impl Encoder {
    /// With a window of two to the power of `window_bits`.
    pub(super) fn new(quality: u8, window_bits: u8, mode: BrotliMode) -> Self {
        use BrotliEncoderParameter::{BROTLI_PARAM_LGWIN, BROTLI_PARAM_MODE, BROTLI_PARAM_QUALITY};
        let mut state = BrotliEncoderStateStruct::new(StandardAlloc::default());
        let mode = match mode {
            BrotliMode::Generic => 0,
            BrotliMode::Text => 1,
            BrotliMode::Font => 2,
        };
        state.set_parameter(BROTLI_PARAM_QUALITY, quality.into());
        state.set_parameter(BROTLI_PARAM_LGWIN, window_bits.into());
        state.set_parameter(BROTLI_PARAM_MODE, mode);
        Self(state)
    }
}

impl Coder for Encoder {
    fn code(
        &mut self,
        input: &mut Bytes,
        until: Until,
        output: &mut [u8],
    ) -> Result<Coded, Undecodable> {
        let operation = match until {
            Until::Flushed => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
            Until::Ended => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
        };
        let (mut left, mut room) = (input.len(), output.len());
        let (mut taken, mut written) = (0, 0);
        let fine = self.0.compress_stream(
            operation,
            &mut left,
            input,
            &mut taken,
            &mut room,
            output,
            &mut written,
            &mut None,
            &mut |_, _, _, _| (),
        );
        if !fine {
            return Err(Undecodable::Malformed);
        }
        input.advance(taken);
        let done = match until {
            Until::Flushed => input.is_empty() && !self.0.has_more_output(),
            Until::Ended => self.0.is_finished(),
        };
        Ok(Coded { written, done })
    }
}

/// What decompresses. What follows the end is dropped, as Envoy drops it.
pub(super) struct Decoder {
    library: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    begun: bool,
    ended: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        let alloc = StandardAlloc::default;
        // A window may have 16 MiB, not the gigabyte of what is called large windows.
        let library = BrotliState::new_strict(alloc(), alloc(), alloc());
        Self { library, begun: false, ended: false }
    }
}

impl Coder for Decoder {
    fn code(
        &mut self,
        input: &mut Bytes,
        until: Until,
        output: &mut [u8],
    ) -> Result<Coded, Undecodable> {
        self.begun |= !input.is_empty();
        if self.ended {
            input.clear();
            return Ok(Coded { written: 0, done: true });
        }
        let (mut left, mut room) = (input.len(), output.len());
        let (mut taken, mut written) = (0, 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut taken,
            input,
            &mut room,
            &mut written,
            output,
            &mut 0,
            &mut self.library,
        );
        input.advance(taken);
        match result {
            BrotliResult::ResultSuccess => self.ended = true,
            BrotliResult::NeedsMoreInput if until == Until::Ended && self.begun => {
                return Err(Undecodable::Truncated);
            }
            BrotliResult::NeedsMoreInput => {}
            BrotliResult::NeedsMoreOutput => return Ok(Coded { written, done: false }),
            BrotliResult::ResultFailure => return Err(Undecodable::Malformed),
        }
        Ok(Coded { written, done: true })
    }
}
