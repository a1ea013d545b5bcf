//! All cases, one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::bench::{self, Court, Verdict};
use super::case::{Case, Profile, Step};
use super::catalogue::Catalogue;
use super::clock::{self, Since};
use super::facts::{self, Facts};
use super::issuer::{Keys, Trap, serve};
use super::report::{Judged, Outcome, Report, Subject, printable};
use super::target::{Target, TargetError};

/// A case that took this long was spent waiting.
const SLOW: Duration = Duration::from_secs(10);

/// So many of them and the target is given up: it would hold the judge for hours.
const SLOW_CASES: usize = 12;

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
            case.id == *wanted
                || (wanted.ends_with('*') && case.id.starts_with(wanted.trim_end_matches('*')))
                || place.starts_with(wanted.as_str())
        };
        (!self.short || case.profile == Profile::Short) && (self.only.is_empty() || self.only.iter().any(named))
    }
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
    if let Some(id) = target.except.keys().find(|id| catalogue.case(id).is_none()) {
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
        if !forged_waited && case.needs.iter().any(|need| need == "forged") && target.forged.is_some() {
            wait_for_forged(&court).await;
            forged_waited = true;
        }
        let result = if slow < SLOW_CASES && errors < ERRORS {
            one(case, &court, &judged).await
        } else {
            let why = "not asked: the target has been given up, as too much before went unanswered";
            Judged::unasked(case, Outcome::Error, why)
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
    if let Some(why) = lacks(case, court.target, court.facts) {
        return Judged::unasked(case, Outcome::Skipped, &why);
    }
    if let Some(control) = &case.control
        && judged.get(control.as_str()).is_none_or(|judged| judged.outcome != Outcome::Pass)
    {
        let why = format!("its control {control} did not pass, so that it would prove nothing");
        return Judged::unasked(case, Outcome::Skipped, &why);
    }
    let since = Since::now();
    let (verdict, exchanges) = bench::run(case, court).await;
    let (outcome, why) = match verdict {
        Verdict::Pass => (Outcome::Pass, String::new()),
        Verdict::Fail(why) => (Outcome::Fail, why),
        Verdict::Error(why) => (Outcome::Error, why),
    };
    let (outcome, why) = match court.target.except.get(&case.id) {
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

fn has(need: &str, target: &Target, facts: &Facts) -> (bool, String) {
    let file = || format!("the target file has no {need}");
    match need {
        "ca" => (target.ca.is_some(), file()),
        "protected_resource" => (target.protected_resource.is_some(), file()),
        "forged" => (target.forged.is_some(), file()),
        "resource" => (target.resource.is_some(), file()),
        "other_scope" => (target.other_scope.is_some(), file()),
        "token.jwt" => (facts.access_tokens_are_jwts, "its access tokens are not JWTs".to_owned()),
        "metadata" => (facts.metadata.is_object(), "it publishes no metadata".to_owned()),
        _ => {
            if let Some(name) = need.strip_prefix("endpoint.") {
                return (
                    facts.endpoints.contains_key(name),
                    format!("neither metadata nor file name its {name} endpoint"),
                );
            }
            if let Some(member) = need.strip_prefix("metadata.") {
                let (member, value) =
                    member.split_once('=').map_or((member, None), |(member, value)| (member, Some(value)));
                let found = &facts.metadata[member];
                return match value {
                    None => (!found.is_null(), format!("its metadata has no {member}")),
                    Some(value) => {
                        let says = found.as_array().is_some_and(|all| all.contains(&Value::from(value)))
                            || super::template::plain(found) == value;
                        (says, format!("its metadata does not say {member} {value}"))
                    }
                };
            }
            (target.parties.contains_key(need), file())
        }
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
    let case = Case {
        id: String::new(),
        specification: String::new(),
        section: String::new(),
        level: super::case::Level::Must,
        title: String::new(),
        sentence: String::new(),
        profile: Profile::Full,
        needs: Vec::new(),
        control: None,
        steps: vec![step],
    };
    let since = Since::now();
    while bench::run(&case, court).await.0 != Verdict::Pass && since.elapsed().as_secs() < forged.wait_seconds {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
