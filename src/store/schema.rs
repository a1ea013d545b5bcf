//! Which schema does a database have, and is it ours?
//!
//! Takes what is recorded of applied migrations, gives leave to go on or the one line that says why not. A migration is
//! never edited once it is merged, so each is known by the hash of its text.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::{Migrate, OpenError};

/// The table in which applied migrations are recorded.
pub(super) const APPLIED: &str = "_sqlx_migrations";

/// The migrations of one engine, oldest first: number, name, text. The numbers and names are the same in both.
pub(super) type Migrations = &'static [(i64, &'static str, &'static str)];

/// A migration that the database says it has had.
pub(super) struct Applied {
    pub(super) version: i64,
    pub(super) checksum: Vec<u8>,
    pub(super) succeeded: bool,
}

/// How far a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Current,
    /// The last schema it has; 0 for none.
    Older(i64),
}

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    Migrate,
    Nothing,
}

/// What to do about a database that is so far.
pub(super) fn next_step(
    place: &str,
    migrations: Migrations,
    standing: Standing,
    migrate: Migrate,
) -> Result<NextStep, OpenError> {
    match (standing, migrate) {
        (Standing::Current, _) => Ok(NextStep::Nothing),
        (Standing::Older(_), Migrate::Apply) => Ok(NextStep::Migrate),
        (Standing::Older(0), Migrate::Check) => Err(OpenError::Missing { place: place.to_owned() }),
        (Standing::Older(found), Migrate::Check) => {
            Err(OpenError::SchemaOlder { place: place.to_owned(), found, known: known(migrations) })
        }
    }
}

pub(super) const fn known(migrations: Migrations) -> i64 {
    match migrations.last() {
        Some(&(version, ..)) => version,
        None => 0,
    }
}

pub(super) fn migrator(migrations: Migrations) -> Migrator {
    Migrator::with_migrations(
        migrations
            .iter()
            .map(|&(version, name, sql)| {
                Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
            })
            .collect(),
    )
}

/// Compares what was applied, in order, with what this build knows, and the tables `present` with those it made.
pub(super) fn standing(
    place: &str,
    migrations: Migrations,
    applied: &[Applied],
    present: &[String],
) -> Result<Standing, OpenError> {
    let damaged = |what: String| OpenError::Damaged { place: place.to_owned(), what };
    let known = known(migrations);
    let found = applied.last().map_or(0, |migration| migration.version);
    if found > known {
        return Err(OpenError::SchemaNewer { place: place.to_owned(), found, known });
    }
    let migrator = migrator(migrations);
    for (index, migration) in applied.iter().enumerate() {
        let version = migration.version;
        if !migration.succeeded {
            return Err(damaged(format!("migration {version} was not finished")));
        }
        match migrator.iter().nth(index) {
            Some(ours) if ours.version == version && ours.checksum == migration.checksum => {}
            Some(ours) if ours.version == version => {
                return Err(damaged(format!("migration {version} is not the one of this program")));
            }
            _ => return Err(damaged(format!("migration {version} is out of order"))),
        }
    }
    if let Some(missing) = tables(migrations, found).into_iter().find(|table| !present.iter().any(|name| name == table))
    {
        return Err(damaged(format!("table {missing} is missing")));
    }
    Ok(if found == known { Standing::Current } else { Standing::Older(found) })
}

/// The tables that the migrations up to `version` made and left.
pub(super) fn tables(migrations: Migrations, version: i64) -> Vec<&'static str> {
    let named = |line: &'static str, verb: &str| line.strip_prefix(verb)?.split([' ', '(', ';']).next();
    let mut tables = Vec::new();
    for line in migrations.iter().filter(|&&(number, ..)| number <= version).flat_map(|&(.., sql)| sql.lines()) {
        if let Some(made) = named(line, "CREATE TABLE ") {
            tables.push(made);
        }
        if let Some(dropped) = named(line, "DROP TABLE ") {
            tables.retain(|table| *table != dropped);
        }
    }
    tables
}
