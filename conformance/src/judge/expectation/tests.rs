use serde_json::json;

use super::*;
use crate::judge::template::{self, Names};

const NOW: i64 = 1_000;

fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Answer::Response(Response { status, headers, body: body.to_owned() })
}

fn words() -> Words {
    Words {
        expect: BTreeMap::from([
            ("error".to_owned(), json!({ "status": [400, 401], "json": { "error": { "type": "string" } } })),
            ("refused".to_owned(), json!(["error", { "tls": "refused" }])),
        ]),
        ..Words::default()
    }
}

fn ask(expected: &Value, answer: &Answer) -> Result<(), String> {
    let words = words();
    check(expected, &words)?;
    let sight = Sight { words: &words, jwks: &json!({ "keys": [] }), now: NOW, fetched: false };
    judge(expected, answer, &sight, &|value| Ok(value.clone())).map_err(|unmet| format!("{unmet:?}"))
}

/// Judged where `${x}` is this value, and nothing else has a name.
fn ask_with(x: impl Into<Value>, expected: &Value, answer: &Answer) -> Result<(), Unmet> {
    struct X(Value);
    impl Names for X {
        fn value(&self, name: &str) -> Option<Value> {
            (name == "x").then(|| self.0.clone())
        }
    }
    let words = words();
    let x = X(x.into());
    assert_eq!(check(expected, &words), Ok(()), "{expected}");
    let sight = Sight { words: &words, jwks: &json!({ "keys": [] }), now: NOW, fetched: false };
    judge(expected, answer, &sight, &|value| template::fill_value(value, &x).map_err(|why| why.to_string()))
}

#[test]
fn each_expectation_fails_when_it_should() {
    let good = response(
        200,
        &[("Cache-Control", "no-store, private"), ("WWW-Authenticate", "Bearer error=\"x\"")],
        r#"{"a":1,"b":{"c":["d"]}}"#,
    );
    let pairs = [
        (json!({ "status": 200 }), json!({ "status": 400 })),
        (json!({ "status": "2xx" }), json!({ "status": "4xx" })),
        (json!({ "status": [400, 200] }), json!({ "status": [400, 401] })),
        (
            json!({ "headers": { "cache-control": { "lists": "no-store" } } }),
            json!({ "headers": { "pragma": "no-cache" } }),
        ),
        (json!({ "challenge": { "error": "x" } }), json!({ "challenge": { "error": "y" } })),
        (
            json!({ "json": { "a": 1, "/b/c": { "contains": "d" } } }),
            json!({ "json": { "/b/c": { "contains": "e" } } }),
        ),
        (json!({ "json": { "e": { "present": false } } }), json!({ "json": { "a": { "present": false } } })),
        (json!({ "body": { "contains": "\"a\"" } }), json!({ "body": { "contains": "nothing" } })),
        (json!({ "status": 200, "fetched": false }), json!({ "status": 200, "fetched": true })),
        (json!([{ "status": 400 }, { "status": 200 }]), json!([{ "status": 400 }, { "tls": "refused" }])),
    ];
    for (holds, fails) in pairs {
        assert_eq!(ask(&holds, &good), Ok(()), "{holds}");
        assert!(ask(&fails, &good).is_err(), "{fails}");
    }
    for jwt in [json!({ "of": "/a" }), json!({ "of": "a.b.c" }), json!({ "of": "/b/e" })] {
        assert!(ask(&json!({ "jwt": jwt }), &good).is_err());
    }
}

#[test]
fn a_refused_connection_is_a_refusal_and_trouble_is_not() {
    assert_eq!(ask(&json!("refused"), &Answer::Refused("alert".to_owned())), Ok(()));
    assert!(ask(&json!("refused"), &Answer::Unfit("no answer".to_owned())).is_err());
    assert!(ask(&json!({ "status": 400 }), &Answer::Refused("alert".to_owned())).is_err());
    assert_eq!(ask(&json!("refused"), &response(400, &[], r#"{"error":"invalid_client"}"#)), Ok(()));
    assert!(ask(&json!("refused"), &response(200, &[], r#"{"error":"invalid_client"}"#)).is_err());
    assert!(ask(&json!("refused"), &response(400, &[], "<html>")).is_err());
}

#[test]
fn named_expectations_join_a_table() {
    let answer = response(400, &[], r#"{"error":"invalid_scope"}"#);
    assert_eq!(ask(&json!({ "is": ["error"], "json": { "error": "invalid_scope" } }), &answer), Ok(()));
    assert!(ask(&json!({ "is": ["error"], "json": { "error": "invalid_grant" } }), &answer).is_err());
    assert!(ask(&json!({ "is": ["error"], "status": 400 }), &response(400, &[], "[]")).is_err());
}

#[test]
fn hellos_are_chosen_or_refused() {
    let chosen = Answer::Hello(Heard::Chosen { version: 0x0303, cipher: 0xC02B });
    let refused = Answer::Hello(Heard::Refused("alert".to_owned()));
    let wanted = json!({ "hello": { "version": "1.2", "cipher": { "contains": "GCM" } } });
    assert_eq!(ask(&wanted, &chosen), Ok(()));
    assert!(ask(&json!({ "hello": { "version": "1.3" } }), &chosen).is_err());
    assert!(ask(&wanted, &refused).is_err());
    assert_eq!(ask(&json!({ "hello": "refused" }), &refused), Ok(()));
    assert!(ask(&json!({ "hello": "refused" }), &chosen).is_err());
    let unfit = Answer::Hello(Heard::Unfit("what came was not TLS".to_owned()));
    assert!(ask(&json!({ "hello": "refused" }), &unfit).is_err());
    assert!(ask(&wanted, &unfit).is_err());
}

#[test]
fn what_cannot_be_read_is_refused_before_it_runs() {
    let words = Words::default();
    for bad in [
        json!({}),
        json!("nothing"),
        json!({ "stauts": 200 }),
        json!({ "status": "400" }),
        json!({ "tls": "accepted" }),
        json!({ "json": { "a": { "equal": 1 } } }),
        json!({ "json": { "a": {} } }),
        json!({ "json": { "a": { "each": { "grammer": "x" } } } }),
        json!({ "json": { "a": { "grammar": "x" } } }),
        json!({ "json": { "a": { "scope_lacks": "x" } } }),
        json!({ "json": { "a": { "scope_lacks": { "of": "x" } } } }),
        json!({ "json": { "a": { "present": "no" } } }),
        json!({ "json": { "a": { "optional": true } } }),
        json!({ "json": { "a": { "optional": "yes", "type": "string" } } }),
        json!({ "json": { "a": { "unique": false } } }),
        json!({ "json": { "a": { "unique_by": 5 } } }),
        json!({ "json": { "a": { "after_now": false } } }),
        json!({ "json": { "a": { "member": {} } } }),
        json!({ "json": { "a": { "contains": 5 } } }),
        json!({ "json": { "a": { "contains": "" } } }),
        json!({ "json": { "a": { "starts_with": "" } } }),
        json!({ "json": { "a": { "ends_with": "" } } }),
        json!({ "json": { "a": { "starts_with": 5 } } }),
        json!({ "json": { "a": { "type": "array", "each": { "contains": "" } } } }),
        json!({ "body": { "contains": "" } }),
        json!({ "headers": { "a": { "challenge": "" } } }),
        json!({ "headers": { "a": { "challenge": 5 } } }),
        json!({ "headers": { "a": { "contains": "" } } }),
        json!({ "hello": { "cipher": { "contains": "" } } }),
        json!({ "json": { "a": { "scope_lacks": { "of": "", "but": "x" } } } }),
        json!({ "json": { "a": { "scope_lacks": { "of": "x y", "but": "y x" } } } }),
        json!({ "json": { "a": { "lacks": 5 } } }),
        json!({ "headers": {} }),
        json!({ "is": [] }),
        json!({ "tls": "refused", "status": 200 }),
        json!({ "tls": "refused", "hello": "refused" }),
        json!({ "hello": "refused", "json": { "a": 1 } }),
        json!({ "is": ["nothing"] }),
        json!({ "hello": "accepted" }),
        json!([{ "status": 200 }, {}]),
    ] {
        assert!(check(&bad, &words).is_err(), "{bad}");
    }
}

#[test]
fn what_rests_on_itself_is_refused_before_it_runs() {
    let mut words = words();
    let expect = |name: &str, meaning: Value| (name.to_owned(), meaning);
    words.expect.extend([
        expect("itself", json!({ "is": ["itself"] })),
        expect("by_name", json!("by_name")),
        expect("among_others", json!([{ "status": 200 }, "among_others"])),
        expect("there", json!({ "status": 200, "is": ["back"] })),
        expect("back", json!([{ "tls": "refused" }, { "is": ["error", "round"] }])),
        expect("round", json!(["there", { "status": 400 }])),
        expect("leads_there", json!({ "is": ["error", "there"] })),
        expect("bad", json!({ "status": 200, "json": { "a": {} } })),
    ]);
    for name in ["itself", "by_name", "among_others", "there", "back", "round", "leads_there", "bad"] {
        for expected in [json!(name), json!({ "is": [name] }), json!([{ "status": 200 }, name])] {
            assert!(check(&expected, &words).is_err(), "{expected}");
        }
    }
    // To be named twice is no circle.
    for good in [json!(["error", "refused"]), json!({ "is": ["error", "error", "refused"] })] {
        assert_eq!(check(&good, &words), Ok(()), "{good}");
    }
}

#[test]
fn what_asks_nothing_once_it_is_filled_in_is_an_error() {
    let answer = response(200, &[], r#"{"scope":"a b"}"#);
    let lacks = json!({ "json": { "scope": { "scope_lacks": { "of": "${x}", "but": "a" } } } });
    let is_unjudged = |x: &str, expected: &Value| matches!(ask_with(x, expected, &answer), Err(Unmet::Unjudged(_)));
    assert_eq!(ask_with("c", &lacks, &answer), Ok(()));
    assert_eq!(ask_with("a c", &lacks, &answer), Ok(()));
    assert!(matches!(ask_with("a b", &lacks, &answer), Err(Unmet::Failed(_))));
    for x in ["a", "a a", "", " "] {
        assert!(is_unjudged(x, &lacks), "{x:?}");
        // No other alternative makes up for it, but one that holds before it is enough.
        assert!(is_unjudged(x, &json!([lacks, { "status": 200 }])), "{x:?}");
        assert!(is_unjudged(x, &json!([{ "status": 400 }, lacks])), "{x:?}");
        assert_eq!(ask_with(x, &json!([{ "status": 200 }, lacks]), &answer), Ok(()));
    }
    for word in ["contains", "starts_with", "ends_with"] {
        assert!(is_unjudged("", &json!({ "body": { word: "${x}" } })), "{word}");
    }
    assert!(is_unjudged("a", &json!({ "body": "${y}" })));
    assert!(is_unjudged("a", &json!({ "headers": { "a": "${y?}" } })));
    assert!(is_unjudged("a", &json!({ "body": { "contains": "${y?}" } })));
}

#[test]
fn what_a_target_chose_is_never_a_matcher() {
    let answer = response(200, &[], r#"{"a":{"present":true},"b":["c"]}"#);
    for x in [json!({}), json!({ "present": true }), json!({ "type": "object" })] {
        for expected in [
            json!({ "json": { "a": "${x}" } }),
            json!({ "json": { "b": { "each": "${x}" } } }),
            json!({ "json": { "a": { "member": { "present": "${x}" } } } }),
            json!({ "json": { "a": { "equals": "${x}" } } }),
        ] {
            let asked = ask_with(x.clone(), &expected, &answer);
            assert!(matches!(asked, Err(Unmet::Unjudged(_))), "{expected} with {x}");
        }
    }
    assert_eq!(ask_with(json!(["c"]), &json!({ "json": { "b": "${x}" } }), &answer), Ok(()));
}

#[test]
fn each_matcher_fails_when_it_should() {
    let pairs = [
        (json!(1), json!(1.0), json!(2)),
        (json!({ "equals": "a" }), json!("a"), json!("b")),
        (json!({ "not": "a" }), json!("b"), json!("a")),
        (json!({ "any_of": ["a", "b"] }), json!("b"), json!("c")),
        (json!({ "contains": "a" }), json!(["a"]), json!(["ab"])),
        (json!({ "contains": "a" }), json!("bab"), json!("A")),
        (json!({ "lists": "no-store" }), json!("private, No-Store"), json!("private")),
        (json!({ "lists": "no-store" }), json!("no-store"), json!("no-storey")),
        (json!({ "lists": "no-store" }), json!("no-store,private"), json!("x=\"no-store\"")),
        (json!({ "lists": "no-store" }), json!("private=\"a, b\", no-store"), json!("private=\"a, no-store, b\"")),
        (json!({ "lists": "no-store" }), json!("x=\"\\\"\", no-store"), json!("x=\"\\\", no-store, \"")),
        (json!({ "lists": "no-store" }), json!(", no-store,"), json!("x=\"a, no-store")),
        (json!({ "challenge": "Basic" }), json!("basic realm=\"a\""), json!("Bearer realm=\"Basic\"")),
        (json!({ "challenge": "Basic" }), json!("Bearer, Basic"), json!("Bearer realm=\"a, Basic\"")),
        (
            json!({ "media_type": "application/json" }),
            json!("Application/JSON ; charset=x"),
            json!("application/jsonp"),
        ),
        (
            json!({ "media_type": "application/json" }),
            json!("application/json"),
            json!("text/html; x=\"application/json\""),
        ),
        (json!({ "lacks": "a" }), json!(["b"]), json!(["a"])),
        (json!({ "lacks": "a" }), json!("b"), json!({ "a": 1 })),
        (json!({ "type": "integer" }), json!(300), json!("300")),
        (json!({ "type": "integer" }), json!(300), json!(300.5)),
        (json!({ "starts_with": "a" }), json!("ab"), json!("ba")),
        (json!({ "ends_with": "a" }), json!("ba"), json!("ab")),
        (json!({ "at_least": 1 }), json!(1), json!(0)),
        (json!({ "at_most": 1 }), json!(1), json!(2)),
        (json!({ "longer_than": 1 }), json!("ab"), json!("a")),
        (json!({ "grammar": "scope" }), json!("a b"), json!("a  b")),
        (json!({ "grammar": "nqschar" }), json!("a b"), json!("a\"b")),
        (json!({ "grammar": "base64url" }), json!("a-_"), json!("a+/=")),
        (json!({ "grammar": "https_uri" }), json!("https://a/b"), json!("http://a/b")),
        (json!({ "near_now": 5 }), json!(1_005), json!(1_006)),
        (json!({ "after_now": true }), json!(1_001), json!(1_000)),
        (json!({ "each": { "type": "string" } }), json!(["a"]), json!(["a", 1])),
        (json!({ "some": { "type": "string" } }), json!([1, "a"]), json!([1])),
        (json!({ "member": { "a": 1 } }), json!({ "a": 1, "b": 2 }), json!({ "b": 2 })),
        (json!({ "unique": true }), json!(["a", "b"]), json!(["a", "a"])),
        (json!({ "unique_by": "a" }), json!([{ "a": 1 }, { "a": 2 }, {}, {}]), json!([{ "a": 1 }, { "a": 1 }])),
        (json!({ "scope_within": "a b" }), json!("b"), json!("b c")),
        (json!({ "scope_equals": "a b" }), json!("b a"), json!("a")),
        (json!({ "scope_lacks": { "of": "a x", "but": "a" } }), json!("b a"), json!("x a")),
        (json!({ "scope_lacks": { "of": "a x", "but": "a" } }), json!("ax"), json!(["a"])),
    ];
    for (wanted, holds, fails) in pairs {
        assert_eq!(matcher::check(&wanted), Ok(()));
        assert_eq!(matches(&wanted, Some(&holds), NOW), Ok(()), "{wanted}");
        assert!(matches(&wanted, Some(&fails), NOW).is_err(), "{wanted}");
    }
    assert!(matches(&json!({ "type": "string" }), None, NOW).is_err());
    assert_eq!(matches(&json!({ "type": "string", "optional": true }), None, NOW), Ok(()));
    assert!(matches(&json!({ "type": "string", "optional": true }), Some(&json!(1)), NOW).is_err());
    assert_eq!(matches(&json!({ "present": false }), None, NOW), Ok(()));
}
