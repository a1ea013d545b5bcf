//! All cases, one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::bench::{self, Court, Verdict};
use super::case::{Case, Profile, Step};
use super::catalogue::Catalogue;
use super::facts::{self, Facts};
use super::issuer::{Keys, Trap, serve};
use super::report::{Judged, Outcome, Report, Subject, printable};
use super::target::{Target, TargetError};
use super::wire::Address;
use crate::clock::{self, Since};

/// A case that took this long was spent waiting.
const SLOW: Duration = Duration::from_secs(10);

/// So many of them and the target is given up: it would hold the judge for hours.
const SLOW_CASES: usize = 12;

/// So long for everything, and the target is given up: it may keep just below what counts as waiting.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// So many cases in a row that could not be asked, and the target is given up.
const ERRORS: usize = 25;

/// Which cases to ask.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Only those of the short profile.
    pub short: bool,
    /// Only those whose id, specification or specification and section begins so; all where empty.
    pub only: Vec<String>,
}

impl Choice {
    pub(crate) fn takes(&self, case: &Case) -> bool {
        let named = |wanted: &String| {
            let place = format!("{} {}", case.specification, case.section);
            names(wanted, &case.id) || place.starts_with(wanted.as_str())
        };
        (!self.short || case.profile == Profile::Short) && (self.only.is_empty() || self.only.iter().any(named))
    }
}

/// Whether it is this id, or `BEGINNING*` of it.
fn names(wanted: &str, id: &str) -> bool {
    wanted == id || wanted.strip_suffix('*').is_some_and(|beginning| id.starts_with(beginning))
}

/// Why the file says that this case does not count: the longest of what names it.
fn excepted<'a>(except: &'a BTreeMap<String, String>, id: &str) -> Option<&'a String> {
    let naming = except.iter().filter(|(wanted, _)| names(wanted, id));
    naming.max_by_key(|(wanted, _)| wanted.len()).map(|(_, reason)| reason)
}

/// Told of each case as it ends.
pub trait Progress {
    /// A case begins: how many are done, how many there are, and its id.
    fn begins(&mut self, done: usize, of: usize, id: &str);
    /// It ended: the word of its outcome, its section, and why, where there is a why.
    fn ended(&mut self, outcome: &str, place: &str, id: &str, why: &str);
}

/// Judges the target of this file.
///
/// # Errors
/// If the file cannot be used, names a case that does not exist, or nothing says where the token endpoint is.
pub async fn run(
    file: &Path,
    catalogue: &Catalogue,
    choice: &Choice,
    progress: &mut dyn Progress,
) -> Result<Report, TargetError> {
    let wrong = |why: String| TargetError(vec![why]);
    let began = clock::now();
    let since = Since::now();
    let target = Target::read(file, began)?;
    if let Some(id) = target.except.keys().find(|wanted| !catalogue.cases.iter().any(|case| names(wanted, &case.id))) {
        return Err(wrong(format!("except: there is no case {id:?}")));
    }
    let chosen: Vec<&Case> = catalogue.cases.iter().filter(|case| choice.takes(case)).collect();
    if chosen.is_empty() {
        return Err(wrong(format!("no case is called {:?}, or of the profile asked for", choice.only)));
    }
    let keys = Keys::generate(began);
    let trap = Trap::set(&keys).await.map_err(wrong)?;
    if let Some(forged) = &target.forged {
        serve(forged, &keys).await.map_err(wrong)?;
    }
    let facts = facts::gather(&target).await;
    if !facts.endpoints.contains_key("token") {
        return Err(TargetError(
            ["nothing says where the token endpoint is: neither token_endpoint in the file nor the metadata"
                .to_owned()]
            .into_iter()
            .chain(facts.troubles)
            .collect(),
        ));
    }
    let mut words = catalogue.words.clone();
    if let (Some(forged), Some(access)) = (&target.forged, words.token.get_mut("access")) {
        access.also_claiming(&forged.claims);
    }
    let court = Court { target: &target, facts: &facts, words: &words, keys: &keys, trap: &trap };

    let controls: Vec<&Case> = chosen.iter().flat_map(|case| catalogue.controls(case)).collect();
    let among = |list: &[&Case], case: &Case| list.iter().any(|other| other.id == case.id);
    let wanted = |case: &&Case| among(&chosen, case) || among(&controls, case);
    let mut cases: Vec<&Case> = catalogue.cases.iter().filter(wanted).collect();
    // Controls first, and theirs before them: what they say decides over others.
    cases.sort_by_key(|case| (!among(&controls, case), catalogue.controls(case).count()));

    let mut judged: BTreeMap<&str, Judged> = BTreeMap::new();
    let mut forged_waited = false;
    let (mut slow, mut errors) = (0, 0);
    for (done, case) in cases.iter().enumerate() {
        progress.begins(done, cases.len(), &case.id);
        let given_up = slow >= SLOW_CASES || errors >= ERRORS || since.elapsed() >= PATIENCE;
        if !given_up && !forged_waited && case.needs.iter().any(|need| need == "forged") && target.forged.is_some() {
            wait_for_forged(&court).await;
            forged_waited = true;
        }
        let result = if given_up {
            let why = "not asked: the target has been given up, as too much before went unanswered or took too long";
            Judged::unasked(case, Outcome::Error, why)
        } else {
            one(case, &court, &judged).await
        };
        slow += usize::from(u128::from(result.milliseconds) >= SLOW.as_millis());
        errors = if result.outcome == Outcome::Error { errors + 1 } else { 0 };
        progress.ended(
            result.outcome.as_str(),
            &format!("{} §{}", case.specification, case.section),
            &case.id,
            &printable(&result.why),
        );
        judged.insert(&case.id, result);
    }
    let mut cases: Vec<Judged> = judged.into_values().collect();
    let place = |id: &str| catalogue.cases.iter().position(|case| case.id == id);
    cases.sort_by_key(|judged| place(&judged.case.id));
    Ok(Report {
        subject: Subject { issuer: target.issuer.clone(), name: target.name.clone() },
        began,
        seconds: since.elapsed().as_secs_f64(),
        profile: if choice.short { "short" } else { "full" }.to_owned(),
        cases,
        clients: target.clients.clone(),
    })
}

async fn one(case: &Case, court: &Court<'_>, judged: &BTreeMap<&str, Judged>) -> Judged {
    if let Some(why) = lacks(case, court.target, court.facts).or_else(|| out_of_reach(case, court)) {
        return Judged::unasked(case, Outcome::Skipped, &why);
    }
    if let Some(control) = &case.control
        && judged.get(control.as_str()).is_none_or(|judged| judged.outcome != Outcome::Pass)
    {
        let why = format!("its control {control} did not pass, so that it would prove nothing");
        return Judged::unasked(case, Outcome::Skipped, &why);
    }
    let since = Since::now();
    let (verdict, exchanges) = bench::run(&case.steps, court).await;
    let (outcome, why) = match verdict {
        Verdict::Pass => (Outcome::Pass, String::new()),
        Verdict::Fail(why) => (Outcome::Fail, why),
        Verdict::Error(why) => (Outcome::Error, why),
    };
    let (outcome, why) = match excepted(&court.target.except, &case.id) {
        Some(reason) if outcome == Outcome::Pass => (Outcome::Excepted, format!("{reason} (it passed all the same)")),
        Some(reason) => (Outcome::Excepted, format!("{reason} ({why})")),
        None => (outcome, why),
    };
    let milliseconds = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    Judged { case: case.clone(), outcome, why, exchanges, milliseconds }
}

/// What the target lacks that the case needs.
fn lacks(case: &Case, target: &Target, facts: &Facts) -> Option<String> {
    case.needs.iter().find_map(|need| {
        let (wanted, need) = need.strip_prefix('!').map_or((true, need.as_str()), |need| (false, need));
        let (has, what) = has(need, target, facts);
        (has != wanted).then(|| if wanted { what } else { format!("only for a target without {need}") })
    })
}

/// Why the trap would prove nothing: it listens on loopback, where nobody comes to it from another machine.
fn out_of_reach(case: &Case, court: &Court<'_>) -> Option<String> {
    if !case.steps.iter().any(|step| step.mentions(court.words, bench::TRAP)) {
        return None;
    }
    case.steps.iter().find_map(|step| {
        let to = step.upon(court.words).ok()?.to?;
        let address = Address::parse(court.facts.endpoints.get(&to)?)?;
        let why =
            || format!("the judge's trap is on loopback, out of reach of {}: it would prove nothing", address.host);
        (!is_loopback(&address.host)).then(why)
    })
}

fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    literal.map_or_else(|_| host == "localhost" || host.ends_with(".localhost"), |address| address.is_loopback())
}

fn has(need: &str, target: &Target, facts: &Facts) -> (bool, String) {
    let file = || format!("the target file has no {need}");
    match need {
        "ca" => (target.ca.is_some(), file()),
        "protected_resource" => (target.protected_resource.is_some(), file()),
        "forged" => (target.forged.is_some(), file()),
        "resource" => (target.resource.is_some(), file()),
        "other_scope" => (target.other_scope.is_some(), file()),
        _ => facts.says(need).unwrap_or_else(|| (target.parties.contains_key(need), file())),
    }
}

/// Waits until the API that trusts the judge has its keys, so that no case is judged before.
async fn wait_for_forged(court: &Court<'_>) {
    let Some(forged) = &court.target.forged else { return };
    let step: Result<Step, _> = serde_json::from_value(serde_json::json!({
        "forge": { "token": { "from": "access" } },
        "use": "forged",
        "expect": { "status": "2xx" },
    }));
    let Ok(step) = step else { return };
    let since = Since::now();
    while bench::run(std::slice::from_ref(&step), court).await.0 != Verdict::Pass
        && since.elapsed().as_secs() < forged.wait_seconds
    {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_met_by_metadata_and_tokens() {
        let metadata = serde_json::json!({ "a": ["x", "y"], "b": true });
        let mut facts = Facts { metadata, ..Facts::default() };
        facts.endpoints.insert("jwks".to_owned(), "https://as.example/jwks".to_owned());
        let says = |need: &str| facts.says(need).map(|(has, _)| has);
        for need in ["metadata", "metadata.a", "metadata.a=x", "metadata.b=true", "endpoint.jwks"] {
            assert_eq!(says(need), Some(true), "{need}");
        }
        for need in ["metadata.c", "metadata.a=z", "metadata.c=x", "endpoint.introspection", "token.jwt"] {
            assert_eq!(says(need), Some(false), "{need}");
        }
        assert_eq!(says("ca"), None);
    }

    #[test]
    fn an_exception_names_a_case_or_a_beginning_and_the_longest_counts() {
        let said = [("a-*", "all"), ("a-b-*", "some"), ("a-b-c", "one")];
        let except = said.map(|(wanted, reason)| (wanted.to_owned(), reason.to_owned())).into();
        let reason = |id: &str| excepted(&except, id).map(String::as_str);
        assert_eq!(["a-x", "a-b-x", "a-b-c", "b"].map(reason), [Some("all"), Some("some"), Some("one"), None]);
    }

    #[test]
    fn the_trap_is_within_reach_of_loopback_alone() {
        for host in ["localhost", "as.localhost", "127.0.0.1", "127.1.2.3", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["as.example", "192.0.2.1", "[2001:db8::1]", "localhost.example"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn cases_are_chosen_by_id_beginning_and_section() {
        let catalogue = Catalogue::built_in().unwrap();
        let chosen = |only: &str, short: bool| {
            let choice = Choice { short, only: vec![only.to_owned()] };
            catalogue.cases.iter().filter(|case| choice.takes(case)).count()
        };
        assert_eq!(chosen("rfc6749-4.4-token", false), 1);
        assert_eq!(chosen("rfc6749-4.4", false), 0);
        assert!(chosen("rfc6749-*", false) > 40);
        assert!(chosen("RFC 8705 3", false) > chosen("RFC 8705 3.1", false));
        assert!(chosen("RFC 8705", true) < chosen("RFC 8705", false));
    }
}
