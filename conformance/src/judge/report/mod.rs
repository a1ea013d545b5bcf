//! What is said at the end: for a person, a machine, and a pipeline.

/// For the terminal.
mod table;

/// For machines.
mod json;

/// For pipelines.
mod junit;

/// One self-contained page.
mod html;

use serde::Serialize;
pub(crate) use table::printable;

use super::case::{Case, Level};
use super::exchange::Exchange;
use super::target::RealClient;

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// What the sentence demands holds.
    Pass,
    /// It does not.
    Fail,
    /// The target lacks what the case needs.
    Skipped,
    /// The judge itself could not ask. Counts as failed.
    Error,
    /// The target file says that it does not count.
    Excepted,
}

impl Outcome {
    pub(crate) const ALL: [Self; 5] = [Self::Pass, Self::Fail, Self::Error, Self::Excepted, Self::Skipped];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skipped => "skipped",
            Self::Error => "error",
            Self::Excepted => "excepted",
        }
    }
}

/// A case and how it ended.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) case: Case,
    pub(crate) outcome: Outcome,
    /// Empty where it passed.
    pub(crate) why: String,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) milliseconds: u64,
}

impl Judged {
    /// A case that was not asked, and why.
    pub(crate) fn unasked(case: &Case, outcome: Outcome, why: &str) -> Self {
        Self { case: case.clone(), outcome, why: why.to_owned(), exchanges: Vec::new(), milliseconds: 0 }
    }
}

/// Who was judged.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) issuer: String,
    pub(crate) name: Option<String>,
}

impl Subject {
    pub(crate) fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.issuer)
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct Report {
    pub(crate) subject: Subject,
    /// In seconds since 1970.
    pub(crate) began: i64,
    pub(crate) seconds: f64,
    pub(crate) profile: String,
    /// In the order of the catalogue.
    pub(crate) cases: Vec<Judged>,
    pub(crate) clients: Vec<RealClient>,
}

impl Report {
    /// Whether a MUST failed, or a case could not be asked.
    pub fn failed(&self) -> bool {
        self.cases.iter().any(|judged| match judged.outcome {
            Outcome::Fail => judged.case.level == Level::Must,
            Outcome::Error => true,
            _ => false,
        })
    }

    /// The ids of the cases that ended so: `pass`, `fail`, `skipped`, `error` or `excepted`.
    pub fn ids(&self, outcome: &str) -> Vec<&str> {
        let so = self.cases.iter().filter(|judged| judged.outcome.as_str() == outcome);
        so.map(|judged| judged.case.id.as_str()).collect()
    }

    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.cases.iter().filter(|judged| judged.outcome == outcome).count()
    }

    /// Specifications and their sections, in order of appearance, with the cases of each.
    pub(crate) fn sections(&self) -> Vec<(&str, &str, Vec<&Judged>)> {
        let mut sections: Vec<(&str, &str, Vec<&Judged>)> = Vec::new();
        for judged in &self.cases {
            let (specification, section) = (judged.case.specification.as_str(), judged.case.section.as_str());
            match sections.iter_mut().find(|(own, its, _)| *own == specification && *its == section) {
                Some((_, _, cases)) => cases.push(judged),
                None => sections.push((specification, section, vec![judged])),
            }
        }
        sections.sort_by_key(|one| place(one.0, one.1));
        sections
    }
}

/// Where a section comes: RFC 7009 before RFC 10000, §5.2 before §5.10.
pub(crate) fn place(specification: &str, section: &str) -> (String, u64, Vec<u64>, String) {
    let digits: String = specification.chars().filter(char::is_ascii_digit).collect();
    let letters: String = specification.chars().take_while(|character| !character.is_ascii_digit()).collect();
    let numbers = section.split(['.', ',', ' ']).map(|part| part.parse().unwrap_or(u64::MAX)).collect();
    (letters, digits.parse().unwrap_or(0), numbers, section.to_owned())
}

/// A moment as RFC 3339 has it.
pub(crate) fn moment(seconds: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report of one case for each outcome, with this text wherever a target can put one.
    pub(crate) fn sample(text: &str) -> Report {
        let mut cases = Vec::new();
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            let written = format!(
                "[[case]]\nid = \"case-{at}\"\nspecification = \"RFC 6749\"\nsection = \"5.{at}\"\nlevel = \"MUST\"\n\
                 title = \"A title\"\nsentence = \"A sentence\"\n[[case.step]]\nexpect = {{ status = 200 }}\n"
            );
            let case = crate::judge::case::parse("sample", &written).unwrap().remove(0);
            let exchange = Exchange {
                party: "client".to_owned(),
                made: vec![text.to_owned()],
                sent: text.to_owned(),
                received: text.to_owned(),
                milliseconds: 1,
            };
            cases.push(Judged { case, outcome, why: text.to_owned(), exchanges: vec![exchange], milliseconds: 1 });
        }
        Report {
            subject: Subject { issuer: text.to_owned(), name: None },
            began: 1_800_000_000,
            seconds: 1.5,
            profile: "full".to_owned(),
            cases,
            clients: vec![RealClient { name: text.to_owned(), version: "1".to_owned() }],
        }
    }

    #[test]
    fn a_failed_should_is_told_and_does_not_fail_the_run() {
        let mut report = sample("x");
        assert!(report.failed());
        report.cases.retain(|judged| judged.outcome == Outcome::Fail);
        assert!(report.failed());
        report.cases[0].case.level = Level::Should;
        assert!(!report.failed());
        report.cases[0].outcome = Outcome::Error;
        assert!(report.failed());
    }

    #[test]
    fn sections_come_in_the_order_of_their_numbers() {
        let mut places = [("RFC 8705", "3"), ("RFC 6749", "5.10"), ("FAPI 2.0", "5.3"), ("RFC 6749", "5.2")];
        places.sort_by_key(|(specification, section)| place(specification, section));
        assert_eq!(places, [("FAPI 2.0", "5.3"), ("RFC 6749", "5.2"), ("RFC 6749", "5.10"), ("RFC 8705", "3")]);
    }
}
