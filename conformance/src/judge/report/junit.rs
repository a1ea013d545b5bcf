//! The report as JUnit XML: a suite for each section.

use super::table::turns_round;
use super::{Outcome, Report};
use crate::judge::case::Level;

impl Report {
    /// One `testsuite` for each section. A failed SHOULD is no failure there: it goes into `system-out`.
    pub fn to_junit(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let failed = |outcome: Outcome, level: Level| outcome == Outcome::Fail && level == Level::Must;
        let failures = self.cases.iter().filter(|judged| failed(judged.outcome, judged.case.level)).count();
        out.push_str(&format!(
            "<testsuites name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"{}\" time=\"{:.1}\">\n",
            escaped(self.subject.shown()),
            self.cases.len(),
            self.count(Outcome::Error),
            self.seconds
        ));
        for (specification, section, cases) in self.sections() {
            let count = |wanted: &dyn Fn(Outcome, Level) -> bool| {
                cases.iter().filter(|judged| wanted(judged.outcome, judged.case.level)).count()
            };
            let name = escaped(&format!("{specification} §{section}"));
            out.push_str(&format!(
                "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">\n",
                cases.len(),
                count(&failed),
                count(&|outcome, _| outcome == Outcome::Error),
                count(&|outcome, _| matches!(outcome, Outcome::Skipped | Outcome::Excepted)),
            ));
            for judged in cases {
                let case = &judged.case;
                out.push_str(&format!(
                    "    <testcase classname=\"{name}\" name=\"{}: {}\" time=\"{:.3}\"",
                    escaped(&case.id),
                    escaped(&case.title),
                    judged.milliseconds as f64 / 1_000.0
                ));
                let why = escaped(&judged.why);
                let sentence = escaped(&case.sentence);
                match judged.outcome {
                    Outcome::Pass => out.push_str("/>\n"),
                    Outcome::Fail if case.level == Level::Must => {
                        out.push_str(&format!("><failure message=\"{why}\">{sentence}</failure></testcase>\n"));
                    }
                    Outcome::Fail => {
                        out.push_str(&format!("><system-out>SHOULD: {sentence}: {why}</system-out></testcase>\n"));
                    }
                    Outcome::Error => out.push_str(&format!("><error message=\"{why}\"/></testcase>\n")),
                    Outcome::Skipped | Outcome::Excepted => {
                        out.push_str(&format!("><skipped message=\"{why}\"/></testcase>\n"));
                    }
                }
            }
            out.push_str("  </testsuite>\n");
        }
        out.push_str("</testsuites>\n");
        out
    }
}

/// For XML and HTML alike; what neither may contain becomes a question mark (XML 1.0 §2.2).
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            '\u{fffe}' | '\u{ffff}' => out.push('?'),
            character if turns_round(character) => {}
            character if character.is_control() => out.push('?'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn what_a_target_says_stays_text() {
        let junit = sample("\"/><failure message='x'>&\u{0}\u{1b}\u{202e}\u{2069}]]>").to_junit();
        assert!(!junit.contains('\u{202e}') && !junit.contains('\u{2069}'));
        assert_eq!(junit.matches("<failure").count(), 1);
        assert!(!junit.contains('\u{0}') && !junit.contains('\u{1b}'));
        assert!(junit.contains("tests=\"5\" failures=\"1\" errors=\"1\""));
    }

    #[test]
    fn a_failed_should_is_no_failure() {
        let mut report = sample("x");
        for judged in &mut report.cases {
            judged.case.level = Level::Should;
        }
        assert_eq!(report.to_junit().matches("<failure").count(), 0);
    }
}
