//! What is told: every figure beside its goal, on the terminal, as JSON and as a page with the curves.
//!
//! Takes figures, says of each whether its goal was reached. It measures nothing.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::plot::{Plot, escaped};

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// This, or more.
    AtLeast(f64),
    /// This, or less.
    AtMost(f64),
}

impl Goal {
    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// What a figure counts, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A number of events.
    Count,
    /// 1,048,576 octets.
    Megabytes,
    /// 1,024 octets.
    Kilobytes,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Events a second.
    PerSecond,
    /// One figure over another.
    Ratio,
    /// Seconds.
    Seconds,
}

impl Unit {
    fn written(self, value: f64) -> String {
        match self {
            Self::Count => format!("{value:.0}"),
            Self::Kilobytes => format!("{value:.1} kB"),
            Self::Megabytes => format!("{value:.1} MB"),
            Self::Microseconds => format!("{value:.2} us"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Ratio if value >= 10.0 => format!("{value:.1}"),
            Self::Ratio => format!("{value:.3}"),
            Self::Seconds => format!("{value:.3} s"),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Kilobytes => "KiB",
            Self::Megabytes => "MiB",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::PerSecond => "1/s",
            Self::Ratio => "ratio",
            Self::Seconds => "s",
        }
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// Its name in the JSON: stable.
    pub(crate) id: String,
    /// What it is, for people.
    pub(crate) measure: String,
    /// How much it is.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: Unit,
    /// What it should be, if anything was promised.
    pub(crate) goal: Option<Goal>,
}

/// Everything that is told.
#[derive(Default)]
pub(crate) struct Report {
    /// The machine, the programme and its settings.
    pub(crate) facts: Map<String, Value>,
    /// What makes the figures doubtful, or was left out and why.
    pub(crate) remarks: Vec<String>,
    /// Curves.
    pub(crate) plots: Vec<Plot>,
    figures: Vec<Figure>,
    rounds: Vec<Value>,
}

impl Report {
    /// Adds a figure.
    pub(crate) fn figure(&mut self, id: &str, measure: &str, value: f64, unit: Unit, goal: Option<Goal>) {
        self.figures.push(Figure { id: id.to_owned(), measure: measure.to_owned(), value, unit, goal });
    }

    /// Adds what one single measurement gave.
    pub(crate) fn round(&mut self, round: Value) {
        self.rounds.push(round);
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let width = self.figures.iter().map(|figure| figure.measure.chars().count()).max().unwrap_or_default();
        let mut table = String::new();
        for figure in &self.figures {
            let value = figure.unit.written(figure.value);
            let goal = figure.goal.map_or_else(String::new, |goal| goal_text(goal, figure));
            let line = format!("{:width$}  {value:>12}  {goal}", figure.measure);
            // Writing to a String cannot fail.
            let _ = writeln!(table, "{}", line.trim_end());
        }
        for remark in &self.remarks {
            let _ = writeln!(table, "! {remark}");
        }
        table
    }

    /// The same as a page, with the curves.
    pub(crate) fn page(&self) -> String {
        let mut page = String::from(PAGE_HEAD);
        for (name, value) in &self.facts {
            // Writing to a String cannot fail.
            let _ = writeln!(page, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(&value.to_string()));
        }
        page.push_str("</dl>\n");
        for remark in &self.remarks {
            let _ = writeln!(page, "<p class=\"remark\">{}</p>", escaped(remark));
        }
        page.push_str("<table><tr><th>measure</th><th>here</th><th>goal</th></tr>\n");
        for figure in &self.figures {
            let (class, goal) = match figure.goal {
                None => ("", String::new()),
                Some(goal) if goal.is_reached(figure.value) => ("reached", goal_text(goal, figure)),
                Some(goal) => ("missed", goal_text(goal, figure)),
            };
            let _ = writeln!(
                page,
                "<tr class=\"{class}\"><td>{}</td><td>{}</td><td>{}</td></tr>",
                escaped(&figure.measure),
                figure.unit.written(figure.value),
                escaped(&goal)
            );
        }
        page.push_str("</table>\n");
        for plot in &self.plots {
            page.push_str(&plot.to_svg());
        }
        page.push_str("</html>\n");
        page
    }

    /// The same for machines, with every single measurement.
    pub(crate) fn to_json(&self) -> Value {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| {
                let (least, most) = match figure.goal {
                    Some(Goal::AtLeast(least)) => (Some(least), None),
                    Some(Goal::AtMost(most)) => (None, Some(most)),
                    None => (None, None),
                };
                json!({
                    "id": figure.id,
                    "measure": figure.measure,
                    "value": figure.value,
                    "unit": figure.unit.as_str(),
                    "at_least": least,
                    "at_most": most,
                    "reached": figure.goal.map(|goal| goal.is_reached(figure.value)),
                })
            })
            .collect();
        json!({ "facts": self.facts, "remarks": self.remarks, "figures": figures, "rounds": self.rounds })
    }
}

const PAGE_HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\"><meta charset=\"utf-8\"><title>What a token costs</title>
<style>
body { font: 14px sans-serif; max-width: 60em; margin: 2em auto; }
td, th { text-align: left; padding: 2px 12px 2px 0; border-bottom: 1px solid #ddd; }
td:nth-child(2) { text-align: right; white-space: nowrap; }
.reached td:nth-child(3) { color: #2e8b57; }
.missed td:nth-child(3), .remark { color: #b03060; }
dt { float: left; clear: left; width: 10em; }
svg { display: block; margin-top: 2em; }
</style>
<h1>What a token costs</h1>
<dl>
";

fn goal_text(goal: Goal, figure: &Figure) -> String {
    let (sign, bound) = match goal {
        Goal::AtLeast(least) => (">=", least),
        Goal::AtMost(most) => ("<=", most),
    };
    let verdict = if goal.is_reached(figure.value) { "reached" } else { "NOT REACHED" };
    format!("{sign} {:>9}  {verdict}", figure.unit.written(bound))
}

/// The middle one; of an even number the higher of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_where_it_is_met_exactly() {
        for (goal, value, reached) in [
            (Goal::AtLeast(0.3), 0.3, true),
            (Goal::AtLeast(0.3), 0.299, false),
            (Goal::AtMost(50.0), 50.0, true),
            (Goal::AtMost(50.0), 50.001, false),
            // What could not be measured is not reached.
            (Goal::AtLeast(0.3), f64::NAN, false),
            (Goal::AtMost(50.0), f64::NAN, false),
        ] {
            assert_eq!(goal.is_reached(value), reached, "{goal:?} {value}");
        }
    }

    #[test]
    fn the_table_the_page_and_the_json_say_the_same() {
        let mut report = Report::default();
        report.figure("a", "one <measure>", 0.25, Unit::Ratio, Some(Goal::AtLeast(0.3)));
        report.figure("b", "another", 12.0, Unit::Megabytes, Some(Goal::AtMost(50.0)));
        report.figure("c", "a third", 7.0, Unit::Count, None);
        let (table, page, json) = (report.table(), report.page(), report.to_json());
        assert_eq!((table.matches("NOT REACHED").count(), page.matches("NOT REACHED").count()), (1, 1));
        assert!(page.contains("one &lt;measure&gt;") && !page.contains("<measure>"));
        let reached: Vec<Option<bool>> =
            json["figures"].as_array().unwrap().iter().map(|figure| figure["reached"].as_bool()).collect();
        assert_eq!(reached, [Some(false), Some(true), None]);
    }

    #[test]
    fn the_middle_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![1.0]), Some(1.0));
        assert_eq!(median(Vec::new()), None);
    }
}
