//! Bodies are what they were once they are compressed and decompressed again, however they are cut.

use futures_util::stream::iter;
use http_body_util::{BodyExt as _, Collected, StreamBody};
use proptest::prelude::*;

use super::*;
use crate::config::compression::BrotliMode;

const COMPRESSIONS: [Compression; 4] = [
    Compression::Gzip { level: None, window_bits: 12 },
    Compression::Gzip { level: Some(9), window_bits: 9 },
    Compression::Brotli { quality: 3, window_bits: 18, mode: BrotliMode::Generic },
    Compression::Brotli { quality: 1, window_bits: 10, mode: BrotliMode::Text },
];

fn reverse(compression: Compression) -> Decompression {
    match compression {
        Compression::Gzip { .. } => {
            Decompression::Gzip { window_bits: 15, max_inflate_ratio: 1000 }
        }
        Compression::Brotli { .. } => Decompression::Brotli,
    }
}

/// Counts, and lets nothing become larger than `most`.
#[derive(Clone)]
struct Most {
    made: u64,
    most: u64,
}

impl Ledger for Most {
    fn took(&mut self, _: u64) {}

    fn made(&mut self, bytes: u64) -> Result<(), Undecodable> {
        self.made += bytes;
        if self.made > self.most { Err(Undecodable::TooLarge) } else { Ok(()) }
    }

    fn failed(&self, _: Undecodable) {}

    fn ended(&self, trailers: &mut Option<HeaderMap>) {
        if let Some(trailers) = trailers {
            trailers.insert("x-made", self.made.into());
        }
    }
}

const ANY: Most = Most { made: 0, most: u64::MAX };

fn body(pieces: &[Vec<u8>], trailers: Option<HeaderMap>) -> BoxBody {
    let data = pieces.iter().map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
    let frames: Vec<_> = data.chain(trailers.map(Frame::trailers)).map(Ok).collect();
    Box::new(StreamBody::new(iter(frames)))
}

/// The whole of a body.
fn whole(body: impl Body<Data = Bytes, Error = BoxError>) -> Result<Collected<Bytes>, BoxError> {
    futures_util::FutureExt::now_or_never(Box::pin(body.collect())).unwrap()
}

fn compress(pieces: &[Vec<u8>], compression: Compression) -> Vec<u8> {
    let recoded = Recoded::compressed(body(pieces, None), compression, ANY);
    whole(recoded).unwrap().to_bytes().to_vec()
}

fn decompress(
    pieces: &[Vec<u8>],
    compression: Compression,
    ledger: Most,
) -> Result<Vec<u8>, BadBody> {
    let recoded = Recoded::decompressed(body(pieces, None), reverse(compression), ledger);
    let whole = whole(recoded).map(|all| all.to_bytes().to_vec());
    whole.map_err(|error| error.downcast_ref::<crate::http::bad_body::Broken>().unwrap().body)
}

fn cut(data: &[u8], size: usize) -> Vec<Vec<u8>> {
    data.chunks(size).map(<[u8]>::to_vec).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn there_and_back_again(
        pieces in prop::collection::vec(
            (any::<Vec<u8>>(), 0_usize..400).prop_map(|(some, times)| some.repeat(times)),
            0..4,
        ),
        size in 1_usize..40_000,
    ) {
        for compression in COMPRESSIONS {
            let compressed = compress(&pieces, compression);
            let back = decompress(&cut(&compressed, size), compression, ANY).unwrap();
            prop_assert_eq!(&back, &pieces.concat());
        }
    }

    #[test]
    fn garbage_is_refused_or_read(garbage in any::<Vec<u8>>(), size in 1_usize..30) {
        for compression in COMPRESSIONS {
            let _ = decompress(&cut(&garbage, size), compression, ANY);
        }
    }
}

#[test]
fn all_that_was_given_can_be_read_at_once() {
    for compression in COMPRESSIONS {
        let pieces = [b"first".to_vec(), b"second".to_vec()];
        let mut recoded = Recoded::compressed(body(&pieces, None), compression, ANY);
        let mut sent = Vec::new();
        while recoded.ledger.made == 0 || recoded.until.is_some() {
            let frame = futures_util::FutureExt::now_or_never(recoded.frame()).unwrap();
            sent.push(frame.unwrap().unwrap().into_data().unwrap());
        }
        let decoder = reverse(compression);
        let cut_short = body(&[sent.concat()], None);
        let mut decoded = Recoded::decompressed(cut_short, decoder, ANY);
        let first = futures_util::FutureExt::now_or_never(decoded.frame()).unwrap();
        assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "first", "{compression:?}");
    }
}

#[test]
fn what_breaks_off_has_no_end() {
    for compression in COMPRESSIONS {
        let mut compressed = compress(&[b"hello, hello, hello".to_vec()], compression);
        compressed.pop();
        let error = decompress(&[compressed], compression, ANY).unwrap_err();
        assert_eq!(error, Undecodable::Truncated.bad_body(), "{compression:?}");
        // Nothing at all is nothing at all.
        assert_eq!(decompress(&[], compression, ANY).unwrap(), b"");
    }
}

#[test]
fn what_follows_the_end_is_dropped() {
    for compression in COMPRESSIONS {
        let compressed = compress(&[b"hello, hello, hello".to_vec()], compression);
        let pieces = [compressed, b"and more".to_vec()];
        assert_eq!(decompress(&pieces, compression, ANY).unwrap(), b"hello, hello, hello");
        let joined = [pieces.concat()];
        assert_eq!(decompress(&joined, compression, ANY).unwrap(), b"hello, hello, hello");
    }
}

#[test]
fn a_bomb_is_cut_before_it_takes_memory() {
    for compression in COMPRESSIONS {
        let bomb = compress(&[vec![0; 1_000_000]], compression);
        let ledger = Most { made: 0, most: 100_000 };
        let error = decompress(&[bomb], compression, ledger).unwrap_err();
        assert_eq!(error, Undecodable::TooLarge.bad_body(), "{compression:?}");
    }
}

#[test]
fn trailers_stay_and_may_be_added_to() {
    for compression in COMPRESSIONS {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "1".parse().unwrap());
        let pieces = [vec![7; 100_000]];
        let recoded = Recoded::compressed(body(&pieces, Some(trailers)), compression, ANY);
        let all = whole(recoded).unwrap();
        let trailers = all.trailers().unwrap();
        assert_eq!(trailers["x-end"], "1");
        let made = trailers["x-made"].clone();
        assert_eq!(made, all.to_bytes().len().to_string().as_str());
    }
}
