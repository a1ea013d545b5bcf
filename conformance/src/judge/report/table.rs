//! The table at the end of a run, by specification and section.

use super::{Outcome, Report};

impl Report {
    /// The table, with every failure and every reason to skip below it.
    pub fn table(&self) -> String {
        let mut rows = vec![["specification", "pass", "fail", "error", "excepted", "skipped"].map(str::to_owned)];
        for (specification, section, cases) in self.sections() {
            let count = |outcome| cases.iter().filter(|judged| judged.outcome == outcome).count();
            let mut row = vec![format!("{specification} §{section}")];
            row.extend(Outcome::ALL.map(|outcome| match count(outcome) {
                0 => "·".to_owned(),
                count => count.to_string(),
            }));
            if let Ok(row) = <[String; 6]>::try_from(row) {
                rows.push(row);
            }
        }
        let mut all = vec!["in all".to_owned()];
        all.extend(Outcome::ALL.map(|outcome| self.count(outcome).to_string()));
        if let Ok(all) = <[String; 6]>::try_from(all) {
            rows.push(all);
        }
        let widths: Vec<usize> =
            (0..6).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
        let mut out = String::new();
        for (at, row) in rows.iter().enumerate() {
            if at == 1 || at + 1 == rows.len() {
                out.push_str(&format!("{}\n", "-".repeat(widths.iter().sum::<usize>() + 10)));
            }
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                out.push_str(&if column == 0 { format!("{cell}{padding}") } else { format!("  {padding}{cell}") });
            }
            out.push('\n');
        }
        self.failures(&mut out);
        self.skipped(&mut out);
        out
    }

    fn failures(&self, out: &mut String) {
        for judged in &self.cases {
            if matches!(judged.outcome, Outcome::Fail | Outcome::Error | Outcome::Excepted) {
                let case = &judged.case;
                out.push_str(&format!(
                    "\n{} {}: {}\n  {} §{} ({}): \"{}\"\n  {}\n",
                    judged.outcome.as_str().to_uppercase(),
                    case.id,
                    case.title,
                    case.specification,
                    case.section,
                    case.level.as_str(),
                    case.sentence,
                    printable(&judged.why),
                ));
            }
        }
    }

    fn skipped(&self, out: &mut String) {
        let mut reasons: Vec<(&str, usize)> = Vec::new();
        for judged in self.cases.iter().filter(|judged| judged.outcome == Outcome::Skipped) {
            match reasons.iter_mut().find(|(why, _)| *why == judged.why) {
                Some((_, count)) => *count += 1,
                None => reasons.push((&judged.why, 1)),
            }
        }
        if !reasons.is_empty() {
            out.push_str("\nskipped because\n");
        }
        for (why, count) in reasons {
            out.push_str(&format!("  {count:>4}  {}\n", printable(why)));
        }
    }
}

/// Without the control characters that a target could send to a terminal, and without those that turn the text after them round.
pub(crate) fn printable(text: &str) -> String {
    let shown = |character: &char| !turns_round(*character);
    text.chars().filter(shown).map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// Whether the character decides over the direction of what follows (UAX #9): a reader would see another text.
pub(super) const fn turns_round(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;

    #[test]
    fn the_table_counts_and_no_target_writes_to_the_terminal() {
        let table = sample("\u{1b}[2Jhost\u{202e}\u{2066}ile\n").table();
        assert!(!table.contains('\u{1b}'));
        assert!(table.contains("in all"), "{table}");
        assert!(table.contains("FAIL case-1: A title"), "{table}");
        assert!(table.contains("     1   [2Jhostile"), "{table}");
    }
}
