//! What a case does, in words: `list` and `explain`.

use super::case::{Case, Profile, Step};
use super::catalogue::Catalogue;
use super::report::place;
use super::run::Choice;

impl Catalogue {
    /// A line for each case, in the order of specifications and sections.
    pub fn list(&self, choice: &Choice) -> String {
        let cases = self.sorted(choice);
        let width = cases.iter().map(|case| case.id.len()).max().unwrap_or(0);
        let mut out = String::new();
        for case in &cases {
            let place = format!("{} §{}", case.specification, case.section);
            out.push_str(&format!("{:width$}  {:6}  {place:30}  {}\n", case.id, case.level.as_str(), case.title));
        }
        out.push_str(&format!("{} cases\n", cases.len()));
        out
    }

    /// How many cases there are of each section.
    pub fn counts(&self, choice: &Choice) -> String {
        let cases = self.sorted(choice);
        let mut counts: Vec<(String, usize)> = Vec::new();
        for case in &cases {
            let place = format!("{} §{}", case.specification, case.section);
            match counts.last_mut() {
                Some((own, count)) if *own == place => *count += 1,
                _ => counts.push((place, 1)),
            }
        }
        let lines = counts.iter().map(|(place, count)| format!("{count:>5}  {place}\n"));
        lines.chain([format!("{:>5}  in all\n", cases.len())]).collect()
    }

    fn sorted(&self, choice: &Choice) -> Vec<&Case> {
        let mut cases: Vec<&Case> = self.cases.iter().filter(|case| choice.takes(case)).collect();
        cases.sort_by_key(|case| place(&case.specification, &case.section));
        cases
    }

    /// What the case of this id does, and the sentence it rests on.
    pub fn explain(&self, id: &str) -> Option<String> {
        let case = self.case(id)?;
        let mut out = format!(
            "{}\n{}\n\n{} section {}, {}:\n  \"{}\"\n",
            case.id,
            case.title,
            case.specification,
            case.section,
            case.level.as_str(),
            case.sentence
        );
        if case.profile == Profile::Short {
            out.push_str("\nIt is part of the short profile.\n");
        }
        if !case.needs.is_empty() {
            out.push_str(&format!("\nIt needs: {}.\n", case.needs.join(", ")));
        }
        if let Some(control) = &case.control {
            out.push_str(&format!("\nIt is asked only where {control} passes, else it would prove nothing.\n"));
        }
        for (at, step) in case.steps.iter().enumerate() {
            out.push_str(&format!("\nStep {}\n", at + 1));
            match step.upon(&self.words) {
                Ok(step) => self.step(&step, &mut out),
                Err(why) => out.push_str(&format!("  {why}\n")),
            }
        }
        Some(out)
    }

    fn step(&self, step: &Step, out: &mut String) {
        let mut line = |what: &str, text: String| out.push_str(&format!("  {what:10} {text}\n"));
        for (name, mint) in &step.mint {
            line("mints", format!("{name}: a certificate {}", mint.told()));
        }
        for (name, forge) in &step.forge {
            line("forges", format!("{name}: {}", forge.told()));
        }
        if let Some(offer) = &step.hello {
            line("offers", offer.told());
        }
        if let Some(to) = &step.to {
            line("to", to.clone());
        }
        if let Some(method) = &step.method {
            line("method", method.clone());
        }
        if step.hello.is_none() && step.to.is_some() {
            line("as", step.party.clone().unwrap_or_else(|| "none".to_owned()));
        }
        let pairs = |pairs: &[(String, String)]| {
            pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("  ")
        };
        if !step.query.is_empty() {
            line("query", pairs(&step.query));
        }
        for (name, values) in &step.headers {
            line("header", format!("{name}: {}", values.values().join(" | ")));
        }
        if let Some(body) = &step.body {
            line("body", body.clone());
        } else if let Some(form) = &step.form {
            line("form", pairs(form));
        }
        if !step.set.is_empty() {
            line("set", pairs(&step.set.clone().into_iter().collect::<Vec<_>>()));
        }
        if !step.drop.is_empty() {
            line("drop", step.drop.join(" "));
        }
        if !step.add.is_empty() {
            line("add", pairs(&step.add));
        }
        if let Some(expected) = &step.expect {
            line("expects", expected.to_string());
            let mut named = Vec::new();
            self.named(expected, &mut named);
            for (name, meaning) in named {
                line("", format!("{name} = {meaning}"));
            }
        }
        if let Some(seconds) = step.within {
            line("within", format!("{seconds} s, asked again until it holds"));
        }
        for (name, pointer) in &step.capture {
            line("keeps", format!("{pointer} as {name}"));
        }
    }

    /// The named expectations that one rests on.
    fn named<'a>(&'a self, expected: &serde_json::Value, found: &mut Vec<(&'a str, &'a serde_json::Value)>) {
        let mut name = |name: &str| {
            if let Some((own, meaning)) = self.words.expect.get_key_value(name)
                && !found.iter().any(|(known, _)| *known == own)
            {
                found.push((own, meaning));
                self.named(meaning, found);
            }
        };
        match expected {
            serde_json::Value::String(text) => name(text),
            serde_json::Value::Array(alternatives) => {
                for alternative in alternatives {
                    self.named(alternative, found);
                }
            }
            table => {
                for word in table["is"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str) {
                    name(word);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_can_be_listed_and_explained() {
        let catalogue = Catalogue::built_in().unwrap();
        let list = catalogue.list(&Choice::default());
        for case in &catalogue.cases {
            assert!(list.contains(&case.id));
            let text = catalogue.explain(&case.id).unwrap();
            assert!(text.contains(&case.sentence) && text.contains("expects"), "{text}");
        }
        assert!(catalogue.explain("nothing").is_none());
    }
}
