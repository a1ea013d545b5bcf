//! The checker itself: each violation, planted alone in a journal and a log that are good, is found, and nothing else is.

use countersign_resource_server::time::UnixTime;

use super::ledger::{About, Acknowledged, Change, Journal, Log, Record, Token, Violation, check};

/// A journal and a log with nothing wrong in them: two chains, a token withheld, a record that nobody received, a client
/// suspended and reinstated.
fn good() -> (Journal, Log) {
    let token = |jti: &str, client: &str, registry_version, at| Token {
        jti: jti.to_owned(),
        client: client.to_owned(),
        thumbprint: format!("of {client}"),
        expires_at: 2_000,
        registry_version,
        asked: UnixTime::from_millis(at - 2),
        received: UnixTime::from_millis(at),
    };
    let issued = |token: &Token, chain: i64, sequence, at| Record {
        chain,
        sequence,
        at: UnixTime::from_millis(at),
        about: About::Issued {
            jti: token.jti.clone(),
            client: token.client.clone(),
            thumbprint: token.thumbprint.clone(),
            expires_at: token.expires_at,
            registry_version: token.registry_version,
        },
    };
    let other = |about, chain: i64, sequence, at| Record { chain, sequence, at: UnixTime::from_millis(at), about };
    let tokens = vec![token("t1", "one", 1, 100), token("t2", "two", 1, 110), token("t3", "one", 3, 300)];
    let (withheld, unanswered) = (token("t4", "one", 1, 0), token("t5", "two", 2, 0));
    let change = |version, action: &str, why: Option<&str>| Change {
        version,
        action: action.to_owned(),
        subject: "client:one".to_owned(),
        why: why.map(str::to_owned),
    };
    let told = |version, why: &str, at| Acknowledged { version, why: why.to_owned(), told: UnixTime::from_millis(at) };
    let journal = Journal { tokens: tokens.clone(), changes: vec![told(2, "stop", 200), told(3, "go on", 250)] };
    let log = Log {
        records: vec![
            other(About::Change { version: 1 }, 1, 7, 50),
            issued(&tokens[0], 1, 8, 99),
            issued(&withheld, 1, 9, 100),
            other(About::Withheld { jti: withheld.jti.clone() }, 1, 10, 101),
            issued(&tokens[1], 1, 11, 110),
            issued(&unanswered, 2, 1, 210),
            other(About::Change { version: 2 }, 2, 2, 220),
            other(About::Change { version: 3 }, 2, 3, 260),
            issued(&tokens[2], 2, 4, 299),
            other(About::Other, 2, 5, 400),
        ],
        history: vec![
            change(1, "client.add", None),
            change(2, "client.suspend", Some("stop")),
            change(3, "client.reinstate", Some("go on")),
        ],
        broken: Vec::new(),
    };
    (journal, log)
}

/// What `plant` does to a good journal and log is found, and nothing else.
fn finds(plant: impl FnOnce(&mut Journal, &mut Log), violations: &[Violation]) {
    let (mut journal, mut log) = good();
    plant(&mut journal, &mut log);
    assert_eq!(check(&journal, &log), violations);
}

fn t(number: u8) -> String {
    format!("t{number}")
}

#[test]
fn a_good_log_has_no_violation() {
    finds(|_, _| {}, &[]);
}

#[test]
fn a_record_without_a_token_is_none() {
    // Received by nobody: after a crash, after a 503.
    finds(|journal, _| drop(journal.tokens.remove(0)), &[]);
}

#[test]
fn a_token_without_a_record() {
    let cut = |_: &mut Journal, log: &mut Log| log.records.truncate(8);
    finds(cut, &[Violation::TokenWithoutRecord { jti: t(3) }]);
}

#[test]
fn a_refusal_is_no_record_of_a_token() {
    finds(|_, log| log.records[1].about = About::Other, &[Violation::TokenWithoutRecord { jti: t(1) }]);
}

#[test]
fn a_token_recorded_twice() {
    let plant = |_: &mut Journal, log: &mut Log| log.records[9].about = log.records[1].about.clone();
    finds(plant, &[Violation::JtiIssuedTwice { jti: t(1) }]);
}

#[test]
fn a_jti_issued_twice_that_nobody_received() {
    let plant = |_: &mut Journal, log: &mut Log| log.records[9].about = log.records[5].about.clone();
    finds(plant, &[Violation::JtiIssuedTwice { jti: t(5) }]);
}

#[test]
fn a_token_received_twice() {
    let plant = |journal: &mut Journal, _: &mut Log| journal.tokens.push(journal.tokens[0].clone());
    finds(plant, &[Violation::JtiReceivedTwice { jti: t(1) }]);
}

#[test]
fn a_record_one_millisecond_after_the_receipt() {
    finds(|_, log| log.records[1].at = UnixTime::from_millis(100), &[]);
    let plant = |_: &mut Journal, log: &mut Log| log.records[1].at = UnixTime::from_millis(101);
    finds(plant, &[Violation::RecordAfterReceipt { jti: t(1) }]);
}

#[test]
fn a_record_of_another_client_certificate_end_or_registry() {
    let plants: [fn(&mut Token); 4] = [
        |token| token.client = "two".to_owned(),
        |token| token.thumbprint = "of two".to_owned(),
        |token| token.expires_at += 1,
        |token| token.registry_version = 0,
    ];
    for plant in plants {
        let plant = |journal: &mut Journal, _: &mut Log| plant(&mut journal.tokens[0]);
        finds(plant, &[Violation::RecordOfAnotherToken { jti: t(1) }]);
    }
}

#[test]
fn a_withheld_token_received() {
    let plant = |journal: &mut Journal, _: &mut Log| {
        let token = Token { jti: t(4), ..journal.tokens[0].clone() };
        journal.tokens.push(token);
    };
    finds(plant, &[Violation::WithheldTokenReceived { jti: t(4) }]);
}

#[test]
fn a_token_under_a_registry_in_which_its_client_was_suspended() {
    let plant = |version| {
        move |journal: &mut Journal, log: &mut Log| {
            journal.tokens[0].registry_version = version;
            let About::Issued { registry_version, .. } = &mut log.records[1].about else { unreachable!() };
            *registry_version = version;
        }
    };
    finds(plant(1), &[]);
    finds(plant(2), &[Violation::TokenDespiteSuspension { jti: t(1) }]);
    finds(plant(3), &[]);
}

#[test]
fn a_token_asked_for_after_the_suspension_was_acknowledged() {
    let plant = |asked| {
        move |journal: &mut Journal, _: &mut Log| {
            journal.tokens[0].asked = UnixTime::from_millis(asked);
            journal.tokens[0].received = UnixTime::from_millis(asked);
        }
    };
    // On its way while the operator was told.
    finds(plant(200), &[]);
    finds(plant(201), &[Violation::TokenDespiteSuspension { jti: t(1) }]);
}

#[test]
fn a_number_missing_in_a_chain() {
    let plant = |_: &mut Journal, log: &mut Log| drop(log.records.remove(2));
    finds(plant, &[Violation::SequenceBroken { chain: 1, sequence: 10 }]);
}

#[test]
fn a_number_twice_in_a_chain() {
    let plant = |_: &mut Journal, log: &mut Log| log.records[9].sequence = 4;
    finds(plant, &[Violation::SequenceBroken { chain: 2, sequence: 4 }]);
}

#[test]
fn a_chain_that_does_not_hold() {
    let plant = |_: &mut Journal, log: &mut Log| log.broken.push("1/9: changed".to_owned());
    finds(plant, &[Violation::ChainBroken("1/9: changed".to_owned())]);
}

#[test]
fn an_acknowledged_change_missing_at_the_end() {
    let plant = |_: &mut Journal, log: &mut Log| {
        log.history.pop();
        log.records[7].about = About::Other;
        // Nothing in the history says that the client was reinstated.
        log.records[8].about = About::Other;
    };
    let (mut journal, mut log) = good();
    plant(&mut journal, &mut log);
    journal.tokens.pop();
    assert_eq!(check(&journal, &log), [Violation::ChangeMissing { version: 3, why: "go on".to_owned() }]);
}

#[test]
fn an_acknowledged_change_under_another_version() {
    let plant = |journal: &mut Journal, _: &mut Log| journal.changes[1].version = 2;
    finds(plant, &[Violation::ChangeMissing { version: 2, why: "go on".to_owned() }]);
}

#[test]
fn a_version_that_another_change_has() {
    let plant = |_: &mut Journal, log: &mut Log| log.history[2].why = Some("something else".to_owned());
    finds(plant, &[Violation::ChangeMissing { version: 3, why: "go on".to_owned() }]);
}

#[test]
fn a_change_acknowledged_once_and_made_twice() {
    let plant = |_: &mut Journal, log: &mut Log| {
        let again = Change { version: 4, action: "client.change".to_owned(), ..log.history[2].clone() };
        log.history.push(again);
        log.records[9].about = About::Change { version: 4 };
    };
    finds(plant, &[Violation::ChangeMadeTwice { why: "go on".to_owned() }]);
}

#[test]
fn a_gap_in_the_history() {
    let plant = |_: &mut Journal, log: &mut Log| {
        log.history.remove(0);
        log.records[0].about = About::Other;
    };
    finds(plant, &[Violation::HistoryGap { version: 1 }]);
}

#[test]
fn a_change_in_no_chain() {
    let plant = |_: &mut Journal, log: &mut Log| log.records[6].about = About::Other;
    finds(plant, &[Violation::ChangeNotChained { version: 2 }]);
}

#[test]
fn a_change_in_a_chain_twice() {
    let plant = |_: &mut Journal, log: &mut Log| log.records[9].about = About::Change { version: 2 };
    finds(plant, &[Violation::ChangeChainedTwice { version: 2 }]);
}
