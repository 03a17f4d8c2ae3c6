//! Keyed hashes of user ids and messages: what has to be found again without being stored. The key is in the ledger
//! itself, so it hides nothing from whoever has that.
//!
//! A hash goes by the number of its destination, which a destination keeps for as long as it is in a ledger. Every
//! store hashes alike and keeps both, so that a ledger that is moved knows persons and messages again.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// A keyed hash.
pub(crate) type Hash = [u8; 16];

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

    /// The hash of a user id of the destination with this number.
    pub fn person(&self, destination: i64, user_id: &str) -> Hash {
        self.keyed(&[&destination.to_be_bytes(), user_id.as_bytes()])
    }

    /// The hash of a message of the destination with this number; never equal to that of a user id.
    pub fn message(&self, destination: i64, message: &[u8; 16]) -> Hash {
        self.keyed(&[b"message", &destination.to_be_bytes()[..], message])
    }

    fn keyed(&self, parts: &[&[u8]]) -> Hash {
        let mut mac =
            Hmac::<Sha1>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(part);
        }
        let digest = mac.finalize().into_bytes();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ledgers hold such hashes: they must stay what they are.
    #[test]
    fn they_are_what_they_were() {
        let key = HashKey::new(b"a key".to_vec());
        let hashes = [key.person(7, "ada"), key.message(7, &[1; 16]), key.person(8, "ada")];
        let were = [
            "1f5318b841e103d3ab8622e068d1c6a1",
            "74a92ce12e80f14ef72b6084900620fb",
            "6afcaab70854435682bbaa1219d0a79d",
        ];
        assert_eq!(hashes.map(hex::encode), were);
    }
}
