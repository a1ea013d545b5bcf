//! Which schema does a database have, and is it ours?
//!
//! Takes what is recorded of applied migrations, gives leave to go on or the one line that says why not. A migration is
//! never edited once it is merged, so each is known by the hash of its text.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::OpenError;

/// The migrations of one engine, oldest first: number, name, text. The numbers and names are the same in both.
pub(super) type Migrations = &'static [(i64, &'static str, &'static str)];

/// A migration that the database says it has had.
pub(super) struct Applied {
    pub(super) version: i64,
    pub(super) checksum: Vec<u8>,
    pub(super) succeeded: bool,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Current,
    /// The last schema it has; 0 for none.
    Older(i64),
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

/// Compares what was applied, in order, with what this build knows.
pub(super) fn standing(place: &str, migrations: Migrations, applied: &[Applied]) -> Result<Standing, OpenError> {
    let damaged = |what: String| OpenError::Damaged { place: place.to_owned(), what };
    let known = migrations.last().map_or(0, |&(version, ..)| version);
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
    Ok(if found == known { Standing::Current } else { Standing::Older(found) })
}

/// The tables that the applied migrations made: each has to be there.
pub(super) fn tables(migrations: Migrations) -> impl Iterator<Item = &'static str> {
    migrations
        .iter()
        .flat_map(|&(.., sql)| sql.lines())
        .filter_map(|line| line.strip_prefix("CREATE TABLE "))
        .filter_map(|rest| rest.split([' ', '(']).next())
}
