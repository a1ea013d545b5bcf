//! Which of a record's names have a row in the index, and by which rows each name is found: two sides of one agreement.
//!
//! Rows are what an index costs, and a record of a decision names eight things. What follows from another row has none of
//! its own: a token that was issued is a decision, every record is of some kind, and what begins with its time is near
//! the record that was written then. It knows nothing of how rows are stored.

use std::ops::Range;
use std::time::Duration;

use countersign_resource_server::time::UnixTime;

use super::terms::{Named, Term, TermKind, time_in};

/// The kinds of records there are. One of another kind is found all the same.
pub const KINDS: [&str; 10] =
    ["decision", "withheld", "check", "refusals", "checks", "dropped", "change", "opened", "reading", "pruned"];

const DECISION: &str = "decision";

/// The outcome of decisions alone.
const ISSUED: &str = "issued";

/// A record decided so shortly after the time that a name begins with is found by that time.
const NEAR: Duration = Duration::from_millis(16);

/// One way to records: those decided in this span that have rows of all these terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// At least one.
    pub terms: Vec<Term>,
    /// From when, and until when.
    pub span: Range<UnixTime>,
}

impl Named<'_> {
    /// The terms that a record which names this, and was decided at `at`, has rows of.
    pub fn rows(&self, at: UnixTime) -> impl Iterator<Item = Term> {
        let is_issued = self.has(TermKind::Outcome, ISSUED);
        let follows = move |kind: TermKind, text: &str| match kind {
            TermKind::Jti | TermKind::Request => near(text).is_some_and(|near| near.contains(&at)),
            TermKind::Kind => is_issued && text == DECISION,
            _ => false,
        };
        let is_of_a_kind = is_issued || KINDS.iter().any(|kind| self.has(TermKind::Kind, kind));
        let rows = self.texts().filter(move |(kind, text)| !follows(*kind, text));
        rows.map(|(kind, text)| Term::of(kind, text)).chain((!is_of_a_kind).then(Term::any))
    }
}

/// The ways that lead to every record with all of `names` in `span`, and to others as well.
pub(in crate::audit) fn ways(names: &[(TermKind, String)], span: &Range<UnixTime>) -> Vec<Way> {
    let alternatives = names.iter().map(|(kind, text)| match kind {
        TermKind::Kind if text == DECISION => vec![Term::of(*kind, text), Term::of(TermKind::Outcome, ISSUED)],
        _ => vec![Term::of(*kind, text)],
    });
    let mut ways = match names {
        [] => every(),
        _ => alternatives.fold(vec![Vec::new()], |ways, terms| {
            let with = |way: &Vec<Term>| terms.iter().map(|term| [&way[..], &[*term]].concat()).collect::<Vec<_>>();
            ways.iter().flat_map(with).collect()
        }),
    }
    .into_iter()
    .map(|terms| Way { terms, span: span.clone() })
    .collect::<Vec<_>>();
    // So few records that they are all looked at, whatever else they have to name.
    let ids = names.iter().filter(|(kind, _)| matches!(kind, TermKind::Jti | TermKind::Request));
    for near in ids.filter_map(|(_, text)| near(text)) {
        let span = near.start.max(span.start)..near.end.min(span.end);
        ways.extend(every().into_iter().map(|terms| Way { terms, span: span.clone() }));
    }
    ways.retain(|way| way.span.start < way.span.end);
    ways
}

/// One of these every record has.
fn every() -> Vec<Vec<Term>> {
    let kinds = KINDS.iter().map(|kind| Term::of(TermKind::Kind, kind));
    kinds.chain([Term::of(TermKind::Outcome, ISSUED), Term::any()]).map(|term| vec![term]).collect()
}

/// When a record was decided that is found by the time that `text` begins with.
fn near(text: &str) -> Option<Range<UnixTime>> {
    let time = UnixTime::from_millis(time_in(text)?);
    Some(time..time.after(NEAR))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_800_000_000_000;

    fn at(milliseconds: i64) -> UnixTime {
        UnixTime::from_millis(AT + milliseconds)
    }

    fn rows(body: &serde_json::Value, at: UnixTime) -> Vec<TermKind> {
        Named::of(&body.to_string()).rows(at).map(|term| term.kind).collect()
    }

    #[test]
    fn a_token_that_was_issued_has_four_rows() {
        let body = serde_json::json!({
            "kind": "decision", "outcome": "issued", "request_id": format!("{AT:012x}r"), "client_id": "c",
            "participant_id": "p", "peer": { "thumbprint": "t" }, "token": { "jti": format!("{AT:012x}j") },
        });
        let four = [TermKind::Outcome, TermKind::Client, TermKind::Participant, TermKind::Thumbprint];
        assert_eq!(rows(&body, at(0)), four);
        assert_eq!(rows(&body, at(15)), four);
        for far in [-1, 16] {
            assert_eq!(rows(&body, at(far)).len(), 6, "{far}");
        }
    }

    #[test]
    fn every_name_of_a_record_leads_to_one_of_its_rows() {
        let id = |time: i64, rest: &str| format!("{:012x}{rest}", AT + time);
        for kind in KINDS.into_iter().chain(["another", ""]) {
            for outcome in ["issued", "refused", "another"] {
                for (request, jti) in [(0, 0), (0, -16), (-16, 0), (-15, 1), (1, -15), (-AT, -AT - 1)] {
                    let body = serde_json::json!({
                        "kind": kind, "outcome": outcome, "request_id": id(request, "r"), "jti": id(jti, "j"),
                        "client_id": "c", "reason": "x",
                    })
                    .to_string();
                    let named = Named::of(&body);
                    let rows: Vec<Term> = named.rows(at(0)).collect();
                    let is_found = |names: &[(TermKind, String)]| {
                        let ways = ways(names, &(at(0)..at(1)));
                        let leads = |way: &Way| way.terms.iter().all(|term| rows.contains(term));
                        ways.iter().any(|way| way.span.contains(&at(0)) && leads(way))
                    };
                    assert!(is_found(&[]), "{body}");
                    let names: Vec<_> = named.texts().map(|(kind, text)| (kind, text.to_owned())).collect();
                    for one in &names {
                        for other in &names {
                            assert!(is_found(&[one.clone(), other.clone()]), "{one:?} {other:?} of {body}");
                        }
                    }
                    assert!(is_found(&names), "{body}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_looked_for_outside_the_span() {
        let names = [(TermKind::Jti, format!("{AT:012x}j"))];
        let spans = |since, until| ways(&names, &(at(since)..at(until))).into_iter().map(|way| way.span);
        assert!(spans(4, 8).all(|span| span == (at(4)..at(8))));
        assert!(spans(-9, 90).skip(1).all(|span| span == (at(0)..at(16))));
        assert_eq!(spans(16, 20).count(), 1, "by its row alone");
        assert_eq!(spans(5, 5).count(), 0);
    }
}
