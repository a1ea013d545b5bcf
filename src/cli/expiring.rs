//! `countersign certificate expiring`: what runs out soon, and whose it is.

use std::time::Duration;

use clap::Args;

use super::session::{Failure, Session};
use crate::expiry::{Expiring, Kind, Successor, Window};

/// How far to look ahead.
#[derive(Debug, Args)]
pub(super) struct ExpiringArguments {
    /// A number of hours, days or weeks: 12h, 30d, 8w.
    #[arg(long, default_value = "30d", value_parser = span)]
    within: Duration,
}

/// Runs the command.
///
/// # Errors
/// The store does not answer.
pub(super) async fn run(arguments: &ExpiringArguments, session: &Session) -> Result<(), Failure> {
    let window = Window { from: session.now, until: session.now.after(arguments.within) };
    let all = session.survey().within(window).await?;
    let columns = ["expires", "kind", "client", "participant", "contact", "last seen", "successor", "id", "subject"];
    session.output.list(&all, columns, |one| {
        let text = |value: Option<String>| value.unwrap_or_default();
        [
            one.expires_at.to_string(),
            one.kind.as_str().to_owned(),
            clients(one),
            text(one.participant.as_ref().map(ToString::to_string)),
            text(one.contact.clone()),
            text(one.last_seen.map(|at| at.to_string())),
            match (&one.successor, one.kind) {
                (Some(successor), _) => successor.as_str().to_owned(),
                (None, Kind::Leaf) => "none".to_owned(),
                (None, _) => String::new(),
            },
            one.id.clone(),
            one.subject.clone(),
        ]
    })?;
    for one in &all {
        if let Some(sentence) = called_out(one) {
            session.output.note(&sentence)?;
        }
    }
    Ok(())
}

fn clients(one: &Expiring) -> String {
    let client = one.client.as_ref().map(ToString::to_string).unwrap_or_default();
    match one.certificates {
        Some(certificates) if certificates > 1 => format!("{client} (one of {certificates} certificates)"),
        _ => client,
    }
}

/// A client whose next certificate was announced and has not been seen, while the one in use runs out.
fn called_out(one: &Expiring) -> Option<String> {
    let Some(Successor::Announced { thumbprint, announced_at }) = &one.successor else { return None };
    let client = one.client.as_ref()?;
    let since = announced_at.map(|at| format!(", announced at {at},")).unwrap_or_default();
    let whom = one.contact.as_ref().map(|contact| format!(": ask {contact}")).unwrap_or_default();
    Some(format!(
        "client {client}: its next certificate {thumbprint}{since} has never been seen, and the one it is to replace ends at {}{whom}",
        one.expires_at
    ))
}

pub(super) fn span(text: &str) -> Result<Duration, String> {
    let problem = || "must be a number of hours, days or weeks: 12h, 30d, 8w".to_owned();
    let unit = text.chars().last().ok_or_else(problem)?;
    let hours = match unit {
        'h' => 1,
        'd' => 24,
        'w' => 24 * 7,
        _ => return Err(problem()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(problem)?;
    let seconds = number.checked_mul(hours * 3600).filter(|seconds| *seconds <= LONGEST_SECONDS).ok_or_else(problem)?;
    Ok(Duration::from_secs(seconds))
}

/// A hundred years.
const LONGEST_SECONDS: u64 = 100 * 366 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_number_and_a_unit() {
        assert_eq!(span("12h"), Ok(Duration::from_secs(12 * 3_600)));
        assert_eq!(span("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(span("2w"), Ok(Duration::from_secs(14 * 86_400)));
        for bad in ["", "d", "30", "30m", "-1d", "1.5d", "30 d", "30ä", "18446744073709551615w", "36601d"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
