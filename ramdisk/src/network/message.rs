//! Messages as bytes: headers are the library's, attributes of links are put together and taken apart here (see
//! [`super::netlink`] for why).

use netlink_packet_core::{Emitable, NlasIterator};

use super::netlink::Change;

/// A request that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// What it does, for an error's text.
    pub(super) what: String,
    /// Its type, `RTM_NEWLINK` or the like.
    pub(super) kind: u16,
    /// What becomes of what is there.
    pub(super) change: Change,
    /// Header and attributes.
    pub(super) message: Bytes,
}

/// A message that is made already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Bytes {
    /// The bytes of a message or of a header.
    pub(super) fn of(message: &impl Emitable) -> Self {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        Self(bytes)
    }

    /// Appends an attribute: its length, its type, its value, zeros up to a multiple of four.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        // Nothing here is longer than a few hundred bytes; the kernel refuses what does not fit.
        let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

impl Emitable for Bytes {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        for (to, from) in buffer.iter_mut().zip(&self.0) {
            *to = *from;
        }
    }
}

/// The attributes in `bytes`: type (without the marks for nesting and byte order) and value.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), String>> {
    NlasIterator::new(bytes).map(|attribute| match attribute {
        Ok(attribute) => {
            let start = attribute.into_inner();
            let length = start.first_chunk::<2>().map_or(4, |bytes| usize::from(u16::from_ne_bytes(*bytes)));
            Ok((attribute.kind() & 0x3fff, start.get(4..length).unwrap_or_default()))
        }
        Err(error) => Err(error.to_string()),
    })
}

/// A number of four bytes.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// A name with or without the zero at its end.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

/// A name with the zero that the kernel wants.
pub(super) fn zero_ended(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_back_as_they_were_written() {
        let bytes = Bytes::default().with(3, b"eth0\0").with(0x8012, b"").with(4, &1500_u32.to_ne_bytes());
        assert_eq!(bytes.0.len(), 12 + 4 + 8);
        let read: Vec<_> = attributes(&bytes.0).map(Result::unwrap).collect();
        assert_eq!(read[..2], [(3, &b"eth0\0"[..]), (0x12, &b""[..])]);
        assert_eq!((text(read[0].1), number(read[2].1)), ("eth0".to_owned(), Some(1500)));
        assert!(attributes(&[9, 0, 1, 0]).any(|read| read.is_err()));
    }
}
