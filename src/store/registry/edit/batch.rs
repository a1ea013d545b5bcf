//! Clients, certificates and entitlements of an import, many with each statement.
//!
//! The rules stand once, in `constraint.rs` and beside the single changes. Here it is only asked whether there is anything at all
//! that a rule could be about: a record that meets nothing is written with its neighbours, and each of the others goes the way
//! of a single change.

use std::collections::{HashMap, HashSet};

use countersign_resource_server::time::UnixTime;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Database, Postgres, Row};

use super::staging::Staging;
use super::{fits_its_server, fits_itself, json};
use crate::registry::certificate::{Certificate, CertificateState};
use crate::registry::client::{Client, ClientState};
use crate::registry::edit::{EditRefusal, LIVE_CERTIFICATES};
use crate::registry::entitlement::Entitlement;
use crate::registry::history::Touched;
use crate::registry::import::Entry;
use crate::registry::resource_server::{ResourceServer, ResourceServerState};
use crate::registry::store::Document;
use crate::registry::{ParticipantId, Record};

/// Rows that share one statement.
const TOGETHER: usize = 100;

/// What a column gets.
pub(super) enum Value {
    Integer(i64),
    Text(Option<String>),
}

/// Inserts rows; `insert` names the table and its columns, `end` says what follows the rows.
pub(super) async fn insert(
    connection: &mut AnyConnection,
    insert: &str,
    rows: &[Vec<Value>],
    end: &str,
) -> Result<(), EditRefusal> {
    for rows in rows.chunks(TOGETHER) {
        let width = rows.first().map_or(0, Vec::len);
        let statement = format!("{insert} VALUES {} {end}", places(connection, rows.len(), width));
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for value in rows.iter().flatten() {
            query = match value {
                Value::Integer(number) => query.bind(*number),
                Value::Text(text) => query.bind(text.clone()),
            };
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// `($1, $2), ($3, $4), …`; with SQLite `(?, ?), (?, ?), …`, for there whoever binds a thousand places that have names
/// goes through all the names before each.
fn places(connection: &AnyConnection, rows: usize, width: usize) -> String {
    let is_named = connection.backend_name() == Postgres::NAME;
    let mut text = String::with_capacity(rows * width * 6);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 1..=width {
            let comma = if column == 1 { "" } else { ", " };
            if is_named {
                text.push_str(&format!("{comma}${}", row * width + column));
            } else {
                text.push_str(comma);
                text.push('?');
            }
        }
        text.push(')');
    }
    text
}

/// Asks about keys of so many columns, as many as go together; the last one fills up what is left, so that a statement is
/// prepared once. `ask` is the statement, with the keys in place of `{}`.
async fn ask<const WIDTH: usize>(
    connection: &mut AnyConnection,
    ask: &str,
    keys: Vec<[String; WIDTH]>,
) -> Result<Vec<AnyRow>, EditRefusal> {
    let mut found = Vec::new();
    let statement = ask.replace("{}", &format!("VALUES {}", places(connection, TOGETHER, WIDTH)));
    for keys in keys.chunks(TOGETHER) {
        let Some(last) = keys.last() else { continue };
        let mut query = sqlx::query(AssertSqlSafe(statement.clone()));
        for text in keys.iter().chain(std::iter::repeat_n(last, TOGETHER - keys.len())).flatten() {
            query = query.bind(text.clone());
        }
        found.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(found)
}

/// The keys of one column that there is something with.
async fn known(
    connection: &mut AnyConnection,
    statement: &str,
    keys: Vec<[String; 1]>,
) -> Result<HashSet<String>, EditRefusal> {
    let rows = ask(connection, statement, keys).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, sqlx::Error>>()?)
}

/// Each of them once.
fn each(keys: impl Iterator<Item = String>) -> Vec<[String; 1]> {
    let keys: HashSet<String> = keys.collect();
    keys.into_iter().map(|key| [key]).collect()
}

/// A client that certificates and entitlements are for.
struct Owner {
    participant: String,
    import: i64,
    has_ended: bool,
}

impl Staging {
    /// Clients, each with the certificates it comes with.
    pub(super) async fn clients(&mut self, clients: Vec<(u64, Client, Vec<Certificate>)>) -> Result<(), EditRefusal> {
        let import = self.writing.import_id();
        let connection = &mut *self.writing.transaction;
        let ids = clients.iter().map(|(_, client, _)| [client.id.to_string()]).collect();
        let mut taken = known(connection, CLIENTS, ids).await?;
        let participants = each(clients.iter().map(|(_, client, _)| client.participant_id.to_string()));
        let rows = ask(connection, PARTICIPANTS, participants).await?;
        let mut taking_part = HashSet::new();
        for row in &rows {
            if row.try_get::<String, _>(1)? != "withdrawn" {
                taking_part.insert(row.try_get::<String, _>(0)?);
            }
        }
        let rule = |client: &Client| {
            let rule = client.authentication.subject()?;
            Some([rule.canonical.clone(), rule.attribute.as_str().to_owned()])
        };
        let mut names = HashSet::new();
        let rules = clients.iter().filter_map(|(_, client, _)| rule(client)).collect();
        for row in &ask(connection, NAMES, rules).await? {
            names.insert([row.try_get::<String, _>(0)?, row.try_get(1)?]);
        }
        let (mut rows, mut certificates, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (line, client, own) in clients {
            let is_new = taken.insert(client.id.to_string());
            let name_is_new = rule(&client).is_none_or(|rule| names.insert(rule));
            if !is_new || !name_is_new || !taking_part.contains(client.participant_id.as_str()) {
                others.push((line, Entry::Client(Box::new(client), own)));
                continue;
            }
            let rule = client.authentication.subject();
            rows.push(vec![
                Value::Text(Some(client.id.to_string())),
                Value::Text(Some(client.participant_id.to_string())),
                Value::Text(rule.map(|rule| rule.attribute.as_str().to_owned())),
                Value::Text(rule.map(|rule| rule.canonical.clone())),
                Value::Text(Some(client.state.as_str().to_owned())),
                Value::Text(Some(json(&client)?)),
                Value::Integer(import),
            ]);
            self.staged.newcomer.get_or_insert(client.participant_id);
            certificates.extend(own.into_iter().map(|certificate| (line, certificate)));
        }
        let statement =
            "INSERT INTO client (id, participant_id, rule_attribute, rule_canonical, state, record, import_id)";
        insert(connection, statement, &rows, "").await?;
        for (line, entry) in others {
            self.enter(line, entry).await?;
        }
        if certificates.is_empty() { Ok(()) } else { self.certificates(certificates).await }
    }

    /// Certificates.
    pub(super) async fn certificates(&mut self, certificates: Vec<(u64, Certificate)>) -> Result<(), EditRefusal> {
        let now = self.writing.explanation.at;
        let owners = self.owners(each(certificates.iter().map(|(_, one)| one.client_id.to_string()))).await?;
        let import = self.writing.import_id();
        let connection = &mut *self.writing.transaction;
        let thumbprints = certificates.iter().map(|(_, one)| [one.thumbprint.to_string()]).collect();
        let mut taken = known(connection, CERTIFICATES, thumbprints).await?;
        let keys = each(certificates.iter().map(|(_, one)| one.key_hash.to_string()));
        let revoked = known(connection, REVOKED_KEYS, keys).await?;
        let mut namesakes = known_serials(connection, &certificates).await?;
        let mut live = live_certificates(connection, each(owners.keys().cloned()), now).await?;
        let (mut rows, mut issuers, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let mut concerned = Vec::new();
        for (line, certificate) in certificates {
            let thumbprint = certificate.thumbprint.to_string();
            let owner = owners.get(certificate.client_id.as_str()).filter(|owner| !owner.has_ended);
            let is_new = taken.insert(thumbprint.clone());
            let key = certificate.key_hash.to_string();
            // By either name that its serial number could be known under.
            let by_key = namesakes.insert([certificate.serial.clone(), key.clone()]);
            let by_issuer = certificate
                .issuer_key
                .is_none_or(|issuer| namesakes.insert([certificate.serial.clone(), issuer.to_string()]));
            let has_room = certificate.live_until() <= now || {
                let count = live.entry(certificate.client_id.to_string()).or_default();
                *count += 1;
                *count <= LIVE_CERTIFICATES
            };
            let key_is_good = !revoked.contains(&key) || matches!(certificate.state, CertificateState::Revoked { .. });
            let has_issuer = certificate.issuer_key.is_some() || certificate.state == CertificateState::Announced;
            let meets_nothing = is_new && by_key && by_issuer && has_room && key_is_good && has_issuer;
            let Some(owner) = owner.filter(|_| meets_nothing && certificate.replaces.is_none()) else {
                others.push((line, Entry::Certificate(Box::new(certificate))));
                continue;
            };
            if owner.import != import {
                concerned.push(owner.participant.clone());
            }
            for issuer in &certificate.issuers {
                issuers.push(vec![
                    Value::Text(Some(thumbprint.clone())),
                    Value::Text(Some(issuer.issuer_key.to_string())),
                    Value::Text(Some(issuer.serial.clone())),
                    Value::Integer(issuer.expires_at().as_millis()),
                ]);
            }
            rows.push(vec![
                Value::Text(Some(thumbprint)),
                Value::Text(Some(certificate.client_id.to_string())),
                Value::Text(Some(key)),
                Value::Text(certificate.issuer_key.map(|key| key.to_string())),
                Value::Text(Some(certificate.serial.clone())),
                Value::Text(Some(certificate.state.as_str().to_owned())),
                Value::Integer(certificate.expires_at().as_millis()),
                Value::Integer(certificate.live_until().as_millis()),
                Value::Integer(certificate.last_seen.map_or(-1, UnixTime::as_millis)),
                Value::Text(Some(json(&certificate)?)),
                Value::Text(certificate.anchor.as_ref().map(ToString::to_string)),
                Value::Integer(import),
            ]);
        }
        let statement = "INSERT INTO certificate (thumbprint, client_id, key_hash, issuer_key, serial, state, expires_at, \
                         live_until, last_seen, record, anchor_id, import_id)";
        insert(connection, statement, &rows, "").await?;
        let statement = "INSERT INTO path_issuer (thumbprint, issuer_key, serial, expires_at)";
        insert(connection, statement, &issuers, "ON CONFLICT (thumbprint, issuer_key, serial) DO NOTHING").await?;
        self.concern(&concerned);
        for (line, entry) in others {
            self.enter(line, entry).await?;
        }
        Ok(())
    }

    /// Entitlements.
    pub(super) async fn entitlements(&mut self, entitlements: Vec<(u64, Entitlement)>) -> Result<(), EditRefusal> {
        let owners = self.owners(each(entitlements.iter().map(|(_, one)| one.client_id.to_string()))).await?;
        let import = self.writing.import_id();
        let connection = &mut *self.writing.transaction;
        let ids = entitlements.iter().map(|(_, one)| [one.id.to_string()]).collect();
        let mut taken = known(connection, ENTITLEMENTS, ids).await?;
        let servers = each(entitlements.iter().map(|(_, one)| one.resource_server_id.to_string()));
        let found = ask(connection, RESOURCE_SERVERS, servers).await?;
        let mut servers = HashMap::new();
        for row in &found {
            let server = ResourceServer::read(&Document { record: row.try_get(0)?, last_seen: None })?;
            servers.insert(server.id.to_string(), server);
        }
        let (mut rows, mut others, mut concerned) = (Vec::new(), Vec::new(), Vec::new());
        for (line, entitlement) in entitlements {
            let owner = owners.get(entitlement.client_id.as_str()).filter(|owner| !owner.has_ended);
            let is_new = taken.insert(entitlement.id.to_string());
            let fits = servers.get(entitlement.resource_server_id.as_str()).is_some_and(|server| {
                server.state == ResourceServerState::Active
                    && fits_itself(&entitlement).is_ok()
                    && fits_its_server(&entitlement, server).is_ok()
            });
            let Some(owner) = owner.filter(|_| is_new && fits) else {
                others.push((line, Entry::Entitlement(entitlement)));
                continue;
            };
            if owner.import != import {
                concerned.push(owner.participant.clone());
            }
            rows.push(vec![
                Value::Text(Some(entitlement.id.to_string())),
                Value::Text(Some(entitlement.client_id.to_string())),
                Value::Text(Some(entitlement.resource_server_id.to_string())),
                Value::Text(Some(json(&entitlement)?)),
                Value::Integer(import),
            ]);
        }
        let statement = "INSERT INTO entitlement (id, client_id, resource_server_id, record, import_id)";
        insert(connection, statement, &rows, "").await?;
        self.concern(&concerned);
        for (line, entry) in others {
            self.enter(line, entry).await?;
        }
        Ok(())
    }

    async fn owners(&mut self, clients: Vec<[String; 1]>) -> Result<HashMap<String, Owner>, EditRefusal> {
        let mut owners = HashMap::new();
        for row in &ask(&mut self.writing.transaction, OWNERS, clients).await? {
            let state: String = row.try_get(2)?;
            let has_ended = state == ClientState::Retired.as_str();
            let owner = Owner { participant: row.try_get(1)?, import: row.try_get(3)?, has_ended };
            owners.insert(row.try_get(0)?, owner);
        }
        Ok(owners)
    }

    /// Clients of these participants are in the registry already, and get something.
    fn concern(&mut self, participants: &[String]) {
        let ids = participants.iter().filter_map(|id| ParticipantId::parse(id).ok());
        self.staged.concerns.extend(ids.map(Touched::Participant));
    }
}

/// Serial numbers that are known, each with the key of whoever has it or issued it.
async fn known_serials(
    connection: &mut AnyConnection,
    certificates: &[(u64, Certificate)],
) -> Result<HashSet<[String; 2]>, EditRefusal> {
    let named = |(_, certificate): &(u64, Certificate)| {
        let issuer = certificate.issuer_key.map(|key| key.to_string()).unwrap_or_default();
        [certificate.serial.clone(), issuer, certificate.key_hash.to_string()]
    };
    let keys = certificates.iter().map(named).collect();
    let mut known = HashSet::new();
    for row in &ask(connection, SERIALS, keys).await? {
        let serial: String = row.try_get(0)?;
        known.insert([serial.clone(), row.try_get(1)?]);
        known.insert([serial, row.try_get(2)?]);
    }
    Ok(known)
}

async fn live_certificates(
    connection: &mut AnyConnection,
    clients: Vec<[String; 1]>,
    now: UnixTime,
) -> Result<HashMap<String, usize>, EditRefusal> {
    let statement = LIVE.replace("{now}", &now.as_millis().to_string());
    let mut live = HashMap::new();
    for row in &ask(connection, &statement, clients).await? {
        let count: i64 = row.try_get(1)?;
        live.insert(row.try_get(0)?, usize::try_from(count).unwrap_or(usize::MAX));
    }
    Ok(live)
}

// Both engines call the columns of a VALUES list so.
const CLIENTS: &str = "SELECT column1 FROM ({}) AS given WHERE EXISTS (SELECT id FROM client WHERE id = column1)";
const OWNERS: &str = "SELECT id, participant_id, state, import_id FROM client WHERE id IN ({})";
const PARTICIPANTS: &str = "SELECT id, state FROM participant WHERE id IN ({})";
const NAMES: &str = "\
    SELECT column1, column2 FROM ({}) AS given \
    WHERE EXISTS (SELECT id FROM client WHERE rule_canonical = column1 AND rule_attribute = column2) \
        OR EXISTS (SELECT id FROM resource_server WHERE rule_canonical = column1 AND rule_attribute = column2)";
const CERTIFICATES: &str = "\
    SELECT column1 FROM ({}) AS given \
    WHERE EXISTS (SELECT thumbprint FROM certificate WHERE thumbprint = column1) \
        OR EXISTS (SELECT thumbprint FROM resource_server_certificate WHERE thumbprint = column1)";
const REVOKED_KEYS: &str = "SELECT key_hash FROM revoked_key WHERE key_hash IN ({})";
const SERIALS: &str = "\
    SELECT column1, column2, column3 FROM ({}) AS given \
    WHERE EXISTS (SELECT thumbprint FROM certificate WHERE serial = column1 \
        AND (issuer_key = column2 OR key_hash = column3))";
const LIVE: &str = "\
    SELECT client_id, COUNT(*) FROM certificate WHERE client_id IN ({}) AND expires_at > {now} AND live_until > {now} \
    GROUP BY client_id";
const RESOURCE_SERVERS: &str = "SELECT record FROM resource_server WHERE id IN ({})";
const ENTITLEMENTS: &str =
    "SELECT column1 FROM ({}) AS given WHERE EXISTS (SELECT id FROM entitlement WHERE id = column1)";
