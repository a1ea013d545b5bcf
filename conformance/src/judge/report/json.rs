//! The report as JSON.

use serde_json::{Value, json};

use super::{Outcome, Report, moment};

impl Report {
    /// The whole report: subject, counts, and every case with its exchange.
    pub fn to_json(&self) -> Value {
        let counts: serde_json::Map<String, Value> =
            Outcome::ALL.iter().map(|outcome| (outcome.as_str().to_owned(), self.count(*outcome).into())).collect();
        let cases: Vec<Value> = self
            .cases
            .iter()
            .map(|judged| {
                let case = &judged.case;
                json!({
                    "id": case.id,
                    "specification": case.specification,
                    "section": case.section,
                    "level": case.level.as_str(),
                    "title": case.title,
                    "sentence": case.sentence,
                    "outcome": judged.outcome,
                    "why": judged.why,
                    "milliseconds": judged.milliseconds,
                    "exchanges": judged.exchanges,
                })
            })
            .collect();
        json!({
            "judge": concat!("countersign-conformance ", env!("CARGO_PKG_VERSION")),
            "target": { "name": self.subject.name, "issuer": self.subject.issuer },
            "began": moment(self.began),
            "seconds": (self.seconds * 10.0).round() / 10.0,
            "profile": self.profile,
            "failed": self.failed(),
            "counts": counts,
            "real_clients": self.clients,
            "cases": cases,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;

    #[test]
    fn every_case_and_count_is_there() {
        let json = sample("x").to_json();
        assert_eq!(json["cases"].as_array().unwrap().len(), 5);
        assert_eq!(json["counts"]["fail"], 1);
        assert_eq!(json["failed"], true);
        assert_eq!(json["began"], "2027-01-15T08:00:00Z");
    }
}
