//! Published examples, and keys that are no keys. Forged tokens are in the integration tests.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

/// RFC 7520 section 4.1's key is an RSA key; RFC 7515 appendix A.3 has this one, with its JWS.
const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const EC_JWS: &str = "eyJhbGciOiJFUzI1NiJ9.\
    eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
    DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn ec(more: Value) -> Value {
    let mut jwk = json!({ "kty": "EC", "crv": "P-256", "x": EC_X, "y": EC_Y });
    for (name, value) in more.as_object().unwrap() {
        jwk[name] = value.clone();
    }
    jwk
}

#[test]
fn the_example_of_rfc_7515_verifies() {
    let token = read(EC_JWS).unwrap();
    assert_eq!(
        (token.issuer.as_str(), token.key_id.as_deref()),
        ("joe", None)
    );
    let keys = set(&[ec(json!({}))]);
    let verified = keys.verify(EC_JWS, &token).unwrap();
    assert_eq!(verified.claims["http://example.com/is_root"], true);
    assert!(keys.holds(&verified.key));
    assert!(!set(&[]).holds(&verified.key));
}

#[test]
fn a_key_serves_for_nothing_but_what_it_is_for() {
    let token = read(EC_JWS).unwrap();
    for unfit in [
        json!({ "use": "enc" }),
        json!({ "key_ops": ["sign"] }),
        json!({ "alg": "ES384" }),
        json!({ "alg": "unheard-of" }),
        json!({ "crv": "P-384" }),
        json!({ "crv": "secp256k1" }),
        json!({ "x": "AAAA" }),
        json!({ "kty": "oct", "k": "c2VjcmV0" }),
        json!({ "d": "AAAA" }),
    ] {
        let refused = set(&[ec(unfit.clone())])
            .verify(EC_JWS, &token)
            .unwrap_err();
        assert_eq!(refused, Refusal::UnknownKey, "{unfit}");
    }
    for fit in [
        json!({ "use": "sig", "alg": "ES256" }),
        json!({ "key_ops": ["verify"] }),
    ] {
        set(&[ec(fit)]).verify(EC_JWS, &token).unwrap();
    }
}

#[test]
fn one_key_must_be_meant() {
    let token = read(EC_JWS).unwrap();
    let two = [ec(json!({ "kid": "a" })), ec(json!({ "kid": "b" }))];
    let refused = set(&two).verify(EC_JWS, &token).unwrap_err();
    assert_eq!(refused, Refusal::AmbiguousKey);
    let twice = set(&[ec(json!({})), ec(json!({}))]);
    assert_eq!(twice.len(), 1);
    twice.verify(EC_JWS, &token).unwrap();
}

#[test]
fn weak_rsa_keys_are_left_out() {
    let rsa = |bytes: usize, first: u8, e: &[u8]| {
        let mut n = vec![1; bytes];
        n[0] = first;
        json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e) })
    };
    let count = |key: Value| set(&[key]).len();
    assert_eq!(count(rsa(256, 0x80, &[1, 0, 1])), 1);
    assert_eq!(count(rsa(256, 0x7f, &[1, 0, 1])), 0);
    assert_eq!(count(rsa(257, 0, &[1, 0, 1])), 0);
    assert_eq!(count(rsa(1_025, 0xff, &[1, 0, 1])), 0);
    assert_eq!(count(rsa(256, 0x80, &[])), 0);
    assert_eq!(count(rsa(256, 0x80, &[1; 5])), 0);
}

#[test]
fn what_is_no_key_set_is_refused() {
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, "null", "<html>"] {
        assert_eq!(
            KeySet::parse(text.as_bytes()).unwrap_err(),
            KeySetFault::Malformed
        );
    }
    let many = json!({ "keys": vec![json!({}); 101] }).to_string();
    assert_eq!(
        KeySet::parse(many.as_bytes()).unwrap_err(),
        KeySetFault::TooMany
    );
}

#[test]
fn secrets_shared_with_the_issuer_are_no_choice() {
    for name in ["none", "HS256", "HS384", "HS512", "", "es256"] {
        assert_eq!(algorithm(name), None, "{name}");
    }
    for name in ALGORITHMS {
        assert!(algorithm(name).is_some(), "{name}");
    }
}

#[test]
fn times_are_numbers_of_our_era() {
    let at = |value: Value| {
        let claims = json!({ "exp": value });
        time(claims.as_object().unwrap(), "exp")
    };
    assert_eq!(at(json!(1.5)), Ok(Some(Timestamp::from_micros(1_500_000))));
    for value in [json!(-1), json!(1e300), json!("1"), json!(null), json!([1])] {
        assert_eq!(at(value.clone()), Err(NoTime), "{value}");
    }
    assert_eq!(time(&Claims::new(), "exp"), Ok(None));
}
