//! `countersign participant …`: who may take part.

use clap::{Args, Subcommand};

use super::session::{Failure, Session};
use super::{every, found};
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
    /// Let a pending one act.
    Activate(Change),
    /// Stop it, with all its clients, until it is reinstated.
    Suspend(Change),
    /// Let a suspended one act again.
    Reinstate(Change),
    /// End its part, for good.
    Withdraw(Change),
}

/// A new organisation.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its id here; becomes `participant_id` in tokens.
    id: ParticipantId,
    /// The name it is registered under.
    #[arg(long)]
    legal_name: String,
    /// Its number in a public register.
    #[arg(long)]
    registration_number: Option<String>,
    /// ISO 3166-1 alpha-2, for example DE.
    #[arg(long, value_parser = country)]
    country: Option<String>,
    /// What it takes part as; may be repeated.
    #[arg(long = "role")]
    roles: Vec<String>,
    /// E-mail for outages and expiring certificates.
    #[arg(long)]
    technical_contact: Option<String>,
    /// E-mail for contracts.
    #[arg(long)]
    business_contact: Option<String>,
    /// E-mail for incidents.
    #[arg(long)]
    security_contact: Option<String>,
    /// Enter it without letting it act yet.
    #[arg(long)]
    pending: bool,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// A change of state.
#[derive(Debug, Args)]
pub(super) struct Change {
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
                registration_number: add.registration_number,
                country: add.country,
                roles: add.roles,
                contacts: Contacts {
                    technical: add.technical_contact,
                    business: add.business_contact,
                    security: add.security_contact,
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
        ParticipantCommand::Activate(change) | ParticipantCommand::Reinstate(change) => {
            set(change, ParticipantState::Active, session).await
        }
        ParticipantCommand::Suspend(change) => set(change, ParticipantState::Suspended, session).await,
        ParticipantCommand::Withdraw(change) => set(change, ParticipantState::Withdrawn, session).await,
    }
}

async fn set(change: Change, to: ParticipantState, session: &Session) -> Result<(), Failure> {
    let version = session.registry.set_participant_state(change.id.clone(), to, session.explain(change.why)).await?;
    let after = found(session.registry.participant(&change.id).await?, "participant", &change.id)?;
    let sentence = format!("participant {} is {}, registry version {version}", change.id, to.as_str());
    session.output.done(&sentence, &after)
}

fn country(text: &str) -> Result<String, String> {
    let good = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if good { Ok(text.to_owned()) } else { Err("two capital letters by ISO 3166-1, for example DE".to_owned()) }
}
