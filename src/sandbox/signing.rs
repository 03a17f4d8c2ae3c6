//! Computes `X-Signature` as Segment does.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::secret::Secret;

/// The `X-Signature` of an event: lower-case hex HMAC-SHA1 over its JSON text as it is sent. A
/// batch is signed by its first element.
///
/// # Panics
/// Never: HMAC takes a key of any length.
#[must_use]
pub fn sign(secret: &Secret, event: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(event);
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2202, test cases 2 and 6.
    #[test]
    fn the_signature_is_the_hmac_of_the_rfc() {
        let jefe = sign(&Secret::new("Jefe"), b"what do ya want for nothing?");
        assert_eq!(jefe, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        let empty = sign(&Secret::new(""), b"");
        assert_eq!(empty, "fbdb1d1b18aa6c08324b7d64b71fb76370690e1d");
    }
}
