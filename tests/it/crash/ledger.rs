//! Holds what clients and operators were told against what the store has on record.
//!
//! Takes a [`Journal`] (every token that arrived whole, every change that was acknowledged) and a [`Log`] (the audit records
//! and the registry's history), gives every [`Violation`] of design §4, "no token without a receipt". [`check`] is a pure
//! function, so that each violation can be planted where all was well. It knows nothing of servers and crashes.

use std::collections::{BTreeMap, HashMap};

use countersign_resource_server::time::UnixTime;

/// What was told to somebody outside the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    pub(crate) tokens: Vec<Token>,
    pub(crate) changes: Vec<Acknowledged>,
}

/// A token that a client received whole, as it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) jti: String,
    pub(crate) client: String,
    /// `cnf`, `x5t#S256`.
    pub(crate) thumbprint: String,
    pub(crate) expires_at: i64,
    pub(crate) registry_version: i64,
    /// Before the request left.
    pub(crate) asked: UnixTime,
    /// After the answer was read.
    pub(crate) received: UnixTime,
}

/// A change of the registry that an operator was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) version: i64,
    /// The words the operator gave for it: no two changes have the same.
    pub(crate) why: String,
    /// After the operator was told.
    pub(crate) told: UnixTime,
}

/// What the store has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// In the order of their chains and numbers.
    pub(crate) records: Vec<Record>,
    /// In the order of their versions.
    pub(crate) history: Vec<Change>,
    /// Where the chains do not hold, in the words of whoever followed them.
    pub(crate) broken: Vec<String>,
}

/// One audit record, as far as a client's journal has anything to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) chain: i64,
    pub(crate) sequence: i64,
    pub(crate) at: UnixTime,
    pub(crate) about: About,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// A change of the registry.
    Change { version: i64 },
    /// A decision to issue.
    Issued { jti: String, client: String, thumbprint: String, expires_at: i64, registry_version: i64 },
    /// Anything else.
    Other,
    /// A decision whose token did not leave.
    Withheld { jti: String },
}

/// One row of the registry's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) version: i64,
    pub(crate) action: String,
    pub(crate) subject: String,
    pub(crate) why: Option<String>,
}

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// The hashes of a chain, or what a checkpoint says of it, do not hold.
    ChainBroken(String),
    /// A change of the history is not in a chain.
    ChangeNotChained { version: i64 },
    /// A change stands in a chain twice.
    ChangeChainedTwice { version: i64 },
    /// A change was acknowledged and is not in the history.
    ChangeMissing { version: i64, why: String },
    /// A change was acknowledged once and made more than once.
    ChangeMadeTwice { why: String },
    /// The history has no row for a version.
    HistoryGap { version: i64 },
    /// Two records decide to issue the same token.
    JtiIssuedTwice { jti: String },
    /// Two answers held the same token.
    JtiReceivedTwice { jti: String },
    /// The record is of a later instant than the answer.
    RecordAfterReceipt { jti: String },
    /// The record speaks of another client, certificate, end or registry than the token.
    RecordOfAnotherToken { jti: String },
    /// A number of a chain is missing, or there twice.
    SequenceBroken { chain: i64, sequence: i64 },
    /// A client received a token that it was suspended from.
    TokenDespiteSuspension { jti: String },
    /// A client received a token that no record has.
    TokenWithoutRecord { jti: String },
    /// A client received a token that was recorded as withheld.
    WithheldTokenReceived { jti: String },
}

/// Everything that must not be, in order.
pub(crate) fn check(journal: &Journal, log: &Log) -> Vec<Violation> {
    let mut found: Vec<Violation> = log.broken.iter().cloned().map(Violation::ChainBroken).collect();
    sequences(log, &mut found);
    tokens(journal, log, &mut found);
    changes(journal, log, &mut found);
    suspensions(journal, log, &mut found);
    found.sort();
    found.dedup();
    found
}

/// Each chain counts without a gap. It need not begin with 1: what was exported may be gone, and the hashes tell.
fn sequences(log: &Log, found: &mut Vec<Violation>) {
    let mut last: HashMap<i64, i64> = HashMap::new();
    for Record { chain, sequence, .. } in &log.records {
        if last.insert(*chain, *sequence).is_some_and(|last| *sequence != last + 1) {
            found.push(Violation::SequenceBroken { chain: *chain, sequence: *sequence });
        }
    }
}

/// Each token received has exactly one record, which was there before it and says the same. A record without a token is
/// what a crash or a 503 may leave.
fn tokens(journal: &Journal, log: &Log, found: &mut Vec<Violation>) {
    let mut issued: HashMap<&str, &Record> = HashMap::new();
    let mut withheld: HashMap<&str, &Record> = HashMap::new();
    for record in &log.records {
        match &record.about {
            About::Issued { jti, .. } => {
                if let Some(first) = issued.insert(jti, record) {
                    found.push(Violation::JtiIssuedTwice { jti: jti.clone() });
                    issued.insert(jti, first);
                }
            }
            About::Withheld { jti } => drop(withheld.insert(jti, record)),
            About::Change { .. } | About::Other => {}
        }
    }
    let mut received: HashMap<&str, &Token> = HashMap::new();
    for token in &journal.tokens {
        let jti = token.jti.clone();
        if received.insert(&token.jti, token).is_some() {
            found.push(Violation::JtiReceivedTwice { jti: jti.clone() });
        }
        if withheld.contains_key(jti.as_str()) {
            found.push(Violation::WithheldTokenReceived { jti: jti.clone() });
        }
        let Some(record) = issued.get(jti.as_str()) else {
            found.push(Violation::TokenWithoutRecord { jti });
            continue;
        };
        if record.at > token.received {
            found.push(Violation::RecordAfterReceipt { jti: jti.clone() });
        }
        let says = About::Issued {
            jti: jti.clone(),
            client: token.client.clone(),
            thumbprint: token.thumbprint.clone(),
            expires_at: token.expires_at,
            registry_version: token.registry_version,
        };
        if record.about != says {
            found.push(Violation::RecordOfAnotherToken { jti });
        }
    }
}

/// The history has every version, each acknowledged change under the version the operator was told, and the chains have
/// each change once.
fn changes(journal: &Journal, log: &Log, found: &mut Vec<Violation>) {
    let mut versions: BTreeMap<i64, Vec<&Change>> = BTreeMap::new();
    for change in &log.history {
        versions.entry(change.version).or_default().push(change);
    }
    for version in 1..=versions.keys().next_back().copied().unwrap_or(0) {
        if !versions.contains_key(&version) {
            found.push(Violation::HistoryGap { version });
        }
    }
    for Acknowledged { version, why, .. } in &journal.changes {
        let made = versions.get(version).into_iter().flatten();
        if !made.into_iter().any(|change| change.why.as_ref() == Some(why)) {
            found.push(Violation::ChangeMissing { version: *version, why: why.clone() });
        }
    }
    let mut made: HashMap<&str, i64> = HashMap::new();
    let told: HashMap<&str, i64> = journal.changes.iter().map(|change| (change.why.as_str(), change.version)).collect();
    for change in &log.history {
        let Some(why) = change.why.as_deref().filter(|why| told.contains_key(why)) else { continue };
        if made.insert(why, change.version).is_some_and(|before| before != change.version) {
            found.push(Violation::ChangeMadeTwice { why: why.to_owned() });
        }
    }
    // One record for each row: a version may have several.
    let mut chained: BTreeMap<i64, usize> = BTreeMap::new();
    for record in &log.records {
        if let About::Change { version } = record.about {
            *chained.entry(version).or_default() += 1;
        }
    }
    for (version, rows) in &versions {
        match chained.get(version).copied().unwrap_or(0).cmp(&rows.len()) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Less => found.push(Violation::ChangeNotChained { version: *version }),
            std::cmp::Ordering::Greater => found.push(Violation::ChangeChainedTwice { version: *version }),
        }
    }
}

/// Design §2, the fence: no token leaves after the change that forbids it was acknowledged.
fn suspensions(journal: &Journal, log: &Log, found: &mut Vec<Violation>) {
    // By client: from which version to which.
    let mut suspended: HashMap<&str, Vec<(i64, i64)>> = HashMap::new();
    for Change { version, action, subject, .. } in &log.history {
        let Some(client) = subject.strip_prefix("client:") else { continue };
        let spans = suspended.entry(client).or_default();
        match (action.as_str(), spans.last_mut()) {
            ("client.suspend", _) => spans.push((*version, i64::MAX)),
            ("client.reinstate", Some((_, end))) => *end = *version,
            _ => {}
        }
    }
    let told: HashMap<i64, UnixTime> = journal.changes.iter().map(|change| (change.version, change.told)).collect();
    for token in &journal.tokens {
        let despite = |(from, to): &(i64, i64)| {
            let under = (*from..*to).contains(&token.registry_version);
            // Decided before, but asked for when the operator knew already.
            let after = token.registry_version < *from && told.get(from).is_some_and(|told| *told < token.asked);
            under || after
        };
        if suspended.get(token.client.as_str()).is_some_and(|spans| spans.iter().any(despite)) {
            found.push(Violation::TokenDespiteSuspension { jti: token.jti.clone() });
        }
    }
}
