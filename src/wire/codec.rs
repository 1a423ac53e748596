//! The codec of all services: prost's, behind the look at what a message would take in memory.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Buf;
use prost::{Message, Name};
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::limits::{CLIENT_DECODED_BYTES_MAX, PEER_DECODED_BYTES_MAX};
use crate::wire::scan::{ScanError, Shape};

/// The package of the messages between peers.
const PEERS_PACKAGE: &str = "likewise.replication.v1";

/// Bytes that came as a message and are none, or one beyond the bounds.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MalformedMessage {
    #[error("{name} was not decoded: {source}")]
    Scan {
        name: &'static str,
        source: ScanError,
    },
    #[error("{name} cannot be decoded: {source}")]
    Decode {
        name: &'static str,
        source: prost::DecodeError,
    },
}

impl MalformedMessage {
    fn code(&self) -> Code {
        match self {
            Self::Scan {
                source: ScanError::TooMany { .. },
                ..
            } => Code::ResourceExhausted,
            Self::Scan { .. } | Self::Decode { .. } => Code::InvalidArgument,
        }
    }
}

/// Whether a stream ended because what came over it was no message, rather than with the connection.
/// tonic's own checks (the size, the flag of compression) have no type of their own.
pub fn malformed(status: &Status) -> Option<String> {
    let source = std::error::Error::source(status);
    match source.map(|source| source.downcast_ref::<MalformedMessage>()) {
        Some(Some(malformed)) => Some(malformed.to_string()),
        Some(None) => None,
        None => matches!(status.code(), Code::OutOfRange | Code::Internal)
            .then(|| status.message().to_owned()),
    }
}

/// Encodes `T` and decodes `U`.
pub struct BoundedCodec<T, U> {
    types: PhantomData<fn(T) -> U>,
}

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self { types: PhantomData }
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder::default()
    }
}

/// Decodes messages whose elements stay within the bound of their package.
pub struct BoundedDecoder<U> {
    shape: &'static Shape,
    bytes_max: usize,
    message: PhantomData<fn() -> U>,
}

impl<U: Name> Default for BoundedDecoder<U> {
    fn default() -> Self {
        let shape = Shape::of(&U::full_name());
        Self {
            shape: shape.expect("the build writes a shape for every message"),
            bytes_max: match U::PACKAGE == PEERS_PACKAGE {
                true => PEER_DECODED_BYTES_MAX,
                false => CLIENT_DECODED_BYTES_MAX,
            },
            message: PhantomData,
        }
    }
}

impl<U: Name + Default> BoundedDecoder<U> {
    /// What the decoder does with the bytes of one message.
    pub fn read(&self, bytes: bytes::Bytes) -> Result<U, MalformedMessage> {
        let name = U::NAME;
        let scanned = self.shape.scan(&bytes, self.bytes_max);
        scanned.map_err(|source| MalformedMessage::Scan { name, source })?;
        let decoded = U::decode(bytes);
        decoded.map_err(|source| MalformedMessage::Decode { name, source })
    }
}

impl<U: Name + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        self.read(bytes).map(Some).map_err(|malformed| {
            let mut status = Status::new(malformed.code(), malformed.to_string());
            status.set_source(Arc::new(malformed));
            status
        })
    }
}

impl<U> fmt::Debug for BoundedDecoder<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedDecoder").finish_non_exhaustive()
    }
}
