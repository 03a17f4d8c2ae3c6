//! Keyed hashes of user ids and messages: what has to be found again without being stored. The key is in the
//! database, so it hides nothing from whoever reads that.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::membership::{DestinationName, MessageHash};

/// The key of a ledger's hashes.
#[derive(Clone)]
pub(crate) struct HashKey(Vec<u8>);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl HashKey {
    pub fn new(key: Vec<u8>) -> Self {
        Self(key)
    }

    /// The hash of a user id of one destination.
    pub fn person(&self, destination: &DestinationName, user_id: &str) -> Vec<u8> {
        self.keyed(&[b"person", destination.as_str().as_bytes(), user_id.as_bytes()])
    }

    /// The hash of a message of one destination.
    pub fn message(&self, destination: &DestinationName, message: MessageHash) -> Vec<u8> {
        self.keyed(&[b"message", destination.as_str().as_bytes(), &message.0])
    }

    fn keyed(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut mac =
            Hmac::<Sha1>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes()[..16].to_vec()
    }
}
