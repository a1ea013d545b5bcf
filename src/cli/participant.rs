//! `countersign participant …`: who may take part.

use clap::{Args, Subcommand};

use super::receipt::{self, Ended};
use super::session::{Failure, Session};
use super::{every, found};
use crate::audit::receipt::{Concerned, EarlierMarks};
use crate::fetch::is_webhook;
use crate::registry::ParticipantId;
use crate::registry::participant::{Contacts, Participant, ParticipantState};

/// Organisations: admit, suspend, reinstate, withdraw.
#[derive(Debug, Subcommand)]
pub(super) enum ParticipantCommand {
    /// Enter an organisation; active at once unless --pending is given.
    Add(Add),
    /// List all.
    List,
    /// Show one.
    Show {
        /// Its id.
        id: ParticipantId,
    },
    /// Change what is known of it; what is not named stays.
    Change(Box<Changes>),
    /// Let a pending one act.
    Activate(Step),
    /// Stop it, with all its clients, until it is reinstated.
    Suspend(Step),
    /// Let a suspended one act again.
    Reinstate(Step),
    /// End its part, for good.
    Withdraw(Step),
}

/// What may be known of an organisation besides its name.
#[derive(Debug, Args)]
pub(super) struct Particulars {
    /// Its number in a public register.
    #[arg(long)]
    registration_number: Option<String>,
    /// ISO 3166-1 alpha-2, for example DE.
    #[arg(long, value_parser = country)]
    country: Option<String>,
    /// E-mail for outages and expiring certificates.
    #[arg(long)]
    technical_contact: Option<String>,
    /// E-mail for contracts.
    #[arg(long)]
    business_contact: Option<String>,
    /// E-mail for incidents.
    #[arg(long)]
    security_contact: Option<String>,
}

/// A new organisation.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its id here; becomes `participant_id` in tokens.
    id: ParticipantId,
    /// The name it is registered under.
    #[arg(long, value_parser = legal_name)]
    legal_name: String,
    #[command(flatten)]
    particulars: Particulars,
    /// What it takes part as; may be repeated.
    #[arg(long = "role")]
    roles: Vec<String>,
    /// Where signed notices about expiring certificates are pushed (RFC 8935): an https URL.
    #[arg(long, value_name = "URL", value_parser = webhook)]
    webhook: Option<String>,
    /// Enter it without letting it act yet.
    #[arg(long)]
    pending: bool,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// What to change. An empty text takes a value away; legal name and country stay.
#[derive(Debug, Args)]
pub(super) struct Changes {
    /// Its id.
    id: ParticipantId,
    /// The name it is registered under.
    #[arg(long, value_parser = legal_name)]
    legal_name: Option<String>,
    #[command(flatten)]
    particulars: Particulars,
    /// What it takes part as, in place of all it has; may be repeated. Tokens end where one is taken away.
    #[arg(long = "role")]
    roles: Vec<String>,
    /// Where signed notices about expiring certificates are pushed (RFC 8935): an https URL.
    #[arg(long, value_name = "URL", value_parser = webhook, conflicts_with = "no_webhook")]
    webhook: Option<String>,
    /// Push no notices any more.
    #[arg(long)]
    no_webhook: bool,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

impl Changes {
    fn of(self, before: Participant) -> Participant {
        let text = |given: Option<String>, before: Option<String>| match given {
            Some(text) => Some(text).filter(|text| !text.is_empty()),
            None => before,
        };
        let given = self.particulars;
        let Contacts { technical, business, security, webhook } = before.contacts;
        Participant {
            legal_name: self.legal_name.unwrap_or(before.legal_name),
            registration_number: text(given.registration_number, before.registration_number),
            country: given.country.or(before.country),
            roles: if self.roles.is_empty() { before.roles } else { self.roles },
            contacts: Contacts {
                technical: text(given.technical_contact, technical),
                business: text(given.business_contact, business),
                security: text(given.security_contact, security),
                webhook: self.webhook.or(webhook).filter(|_| !self.no_webhook),
            },
            ..before
        }
    }
}

/// A change of state.
#[derive(Debug, Args)]
pub(super) struct Step {
    /// Its id.
    id: ParticipantId,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the registry refuses, as a sentence.
pub(super) async fn run(command: ParticipantCommand, session: &Session) -> Result<(), Failure> {
    match command {
        ParticipantCommand::Add(add) => {
            let participant = Participant {
                id: add.id,
                legal_name: add.legal_name,
                registration_number: add.particulars.registration_number,
                country: add.particulars.country,
                roles: add.roles,
                contacts: Contacts {
                    technical: add.particulars.technical_contact,
                    business: add.particulars.business_contact,
                    security: add.particulars.security_contact,
                    webhook: add.webhook,
                },
                state: if add.pending { ParticipantState::Pending } else { ParticipantState::Active },
            };
            let version = session.registry.add_participant(participant.clone(), session.explain(add.why)).await?;
            let sentence = format!("participant {} entered, registry version {version}", participant.id);
            session.output.done(&sentence, &participant)
        }
        ParticipantCommand::List => {
            let all = every(|page| session.registry.participants(page), |one: &Participant| one.id.to_string()).await?;
            session.output.list(&all, ["id", "state", "country", "legal name", "roles"], |one| {
                [
                    one.id.to_string(),
                    one.state.as_str().to_owned(),
                    one.country.clone().unwrap_or_default(),
                    one.legal_name.clone(),
                    one.roles.join(","),
                ]
            })
        }
        ParticipantCommand::Show { id } => {
            session.output.record(&found(session.registry.participant(&id).await?, "participant", &id)?)
        }
        ParticipantCommand::Change(mut changes) => {
            let why = changes.why.take();
            let id = changes.id.clone();
            let before: Participant = found(session.registry.participant(&id).await?, "participant", &id)?;
            let after = changes.of(before.clone());
            if after == before {
                return Err(
                    "nothing was named that would change it: see `countersign participant change --help`".into()
                );
            }
            let version = session.registry.change_participant(after.clone(), session.explain(why)).await?;
            session.output.done(&format!("participant {id} changed, registry version {version}"), &after)
        }
        ParticipantCommand::Activate(change) | ParticipantCommand::Reinstate(change) => {
            set(change, ParticipantState::Active, session).await
        }
        ParticipantCommand::Suspend(change) => set(change, ParticipantState::Suspended, session).await,
        ParticipantCommand::Withdraw(change) => set(change, ParticipantState::Withdrawn, session).await,
    }
}

async fn set(change: Step, to: ParticipantState, session: &Session) -> Result<(), Failure> {
    let ends = matches!(to, ParticipantState::Suspended | ParticipantState::Withdrawn);
    let earlier = if ends { receipt::before(session).await } else { EarlierMarks::default() };
    let version = session.registry.set_participant_state(change.id.clone(), to, session.explain(change.why)).await?;
    let after = found(session.registry.participant(&change.id).await?, "participant", &change.id)?;
    let sentence = format!("participant {} is {}, registry version {version}", change.id, to.as_str());
    if ends {
        let concerned = Concerned::Participant(change.id);
        return receipt::done(session, Ended { concerned, earlier, version, sentence: &sentence }, &after).await;
    }
    session.output.done(&sentence, &after)
}

pub(super) fn legal_name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("an organisation has a name".to_owned()) } else { Ok(text.to_owned()) }
}

pub(super) fn country(text: &str) -> Result<String, String> {
    let good = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if good { Ok(text.to_owned()) } else { Err("two capital letters by ISO 3166-1, for example DE".to_owned()) }
}

pub(super) fn webhook(text: &str) -> Result<String, String> {
    if is_webhook(text) {
        Ok(text.to_owned())
    } else {
        Err("an https URL without user name and fragment; http only for this machine itself".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        changes: Changes,
    }

    fn changed(arguments: &[&str]) -> Participant {
        let mut before = crate::registry::fixture::participant("acme");
        before.contacts.technical = Some("ops@acme.example".to_owned());
        before.contacts.webhook = Some("https://acme.example/hook".to_owned());
        let line = [&["change", "acme"], arguments].concat();
        <Line as clap::Parser>::try_parse_from(line).unwrap().changes.of(before)
    }

    #[test]
    fn what_is_not_named_stays() {
        let after = changed(&["--business-contact", "sales@acme.example"]);
        assert_eq!(after.contacts.business.as_deref(), Some("sales@acme.example"));
        assert_eq!(after.contacts.technical.as_deref(), Some("ops@acme.example"));
        assert_eq!(after.contacts.webhook.as_deref(), Some("https://acme.example/hook"));
        assert_eq!(after.roles, ["supplier"]);
    }

    #[test]
    fn a_contact_and_a_webhook_are_taken_away() {
        let after = changed(&["--technical-contact", "", "--no-webhook"]);
        assert_eq!((after.contacts.technical, after.contacts.webhook), (None, None));
    }

    #[test]
    fn a_webhook_in_the_clear_is_refused() {
        let line = ["change", "acme", "--webhook", "http://acme.example/hook"];
        assert!(<Line as clap::Parser>::try_parse_from(line).is_err());
    }
}
