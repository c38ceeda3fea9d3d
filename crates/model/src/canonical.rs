//! Canonical bytes (RFC 8785, JSON Canonicalization Scheme) and the digests made of them.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::Digest;

/// Returns the canonical JSON bytes of `value` (RFC 8785): keys sorted, no white space, one spelling per number.
pub fn canonical_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    // The nouns hold only strings, integers, lists and string-keyed maps, all of which have a JSON form.
    serde_json_canonicalizer::to_vec(value).expect("model values always have a JSON form")
}

/// Returns the SHA-256 of the canonical bytes of `value`.
pub fn digest_of<T: Serialize>(value: &T) -> Digest {
    Digest::from_bytes(Sha256::digest(canonical_bytes(value)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_order_does_not_matter() {
        let a: serde_json::Value = serde_json::from_str(r#"{"b": 1, "a": [1, 2]}"#).unwrap();
        let b: serde_json::Value = serde_json::from_str(r#"{ "a":[1,2],"b":1 }"#).unwrap();
        assert_eq!(canonical_bytes(&a), br#"{"a":[1,2],"b":1}"#);
        assert_eq!(digest_of(&a), digest_of(&b));
    }
}
