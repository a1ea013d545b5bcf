//! Can an acknowledged change be lost with the machine it is on?
//!
//! Takes what a PostgreSQL server says of itself, gives a [`Durability`]. It changes no setting, and knows nothing of who
//! asks.

use std::fmt;

use sqlx::{AnyPool, Row};

use super::{Engine, Store};
use crate::registry::StoreUnavailable;

/// Whether a store is good only while every acknowledged change is on a standby's disk too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standby {
    /// It is the database's to say.
    Optional,
    /// Every commit waits for a standby's disk, and without one nobody is served.
    Required,
}

/// Where a change is by the time it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On this machine's disk: there is nothing to fail over to.
    Embedded,
    /// On the disk of a standby as well, at least of one of these (`synchronous_standby_names`).
    Synchronous(String),
    /// On the primary's alone.
    Primary(Weakness),
}

/// Why a fail-over may lose what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// `synchronous_standby_names` is empty.
    NoStandby,
    /// `synchronous_commit` is `local`: nobody waits for the standby.
    NotWaitedFor,
    /// `synchronous_commit` is `remote_write`: the standby need not have it on disk.
    NotFlushed,
    /// `fsync` is off: not even the primary need have it on disk.
    NoFsync,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoStandby => "synchronous_standby_names is empty",
            Self::NotWaitedFor => "synchronous_commit is local",
            Self::NotFlushed => "synchronous_commit is remote_write",
            Self::NoFsync => "fsync is off",
        })
    }
}

impl Store {
    /// Asks the database, on a connection that writes, whether a fail-over can lose what it acknowledges.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn durability(&self) -> Result<Durability, StoreUnavailable> {
        match &self.engine {
            Engine::Sqlite { .. } => Ok(Durability::Embedded),
            Engine::Postgres { .. } => Ok(ask(&self.writers).await?),
        }
    }

    /// Refuses to go on where [`Store::lacks`] finds something.
    pub(super) async fn is_as_durable_as_wanted(&self) -> Result<(), StoreUnavailable> {
        match self.lacks().await? {
            None => Ok(()),
            Some(weakness) => Err(StoreUnavailable::because(format!("require_synchronous: {weakness}"))),
        }
    }

    /// What is in the way of serving, where every acknowledged change has to be on a standby's disk too. Asked whenever a
    /// chain is taken, taken again or kept: the setting may change, and after a fail-over the new primary may have no standby.
    pub(super) async fn lacks(&self) -> Result<Option<Weakness>, StoreUnavailable> {
        if self.standby == Standby::Optional {
            return Ok(None);
        }
        match self.durability().await? {
            Durability::Synchronous(_) => Ok(None),
            Durability::Embedded => Ok(Some(Weakness::NoStandby)),
            Durability::Primary(weakness) => Ok(Some(weakness)),
        }
    }
}

async fn ask(writers: &AnyPool) -> Result<Durability, sqlx::Error> {
    let row = sqlx::query(
        "SELECT current_setting('fsync'), current_setting('synchronous_commit'), \
         current_setting('synchronous_standby_names')",
    )
    .fetch_one(writers)
    .await?;
    Ok(judge(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

fn judge(fsync: &str, commit: &str, standbys: &str) -> Durability {
    let weakness = match (fsync, standbys.trim(), commit) {
        ("on", "", _) => Weakness::NoStandby,
        ("on", _, "on" | "remote_apply") => return Durability::Synchronous(standbys.to_owned()),
        ("on", _, "remote_write") => Weakness::NotFlushed,
        ("on", _, _) => Weakness::NotWaitedFor,
        _ => Weakness::NoFsync,
    };
    Durability::Primary(weakness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_standby_has_on_disk_is_synchronous() {
        let standby = Durability::Synchronous("ANY 1 (a, b)".to_owned());
        let names = "ANY 1 (a, b)";
        for (fsync, commit, standbys, expected) in [
            ("on", "on", names, standby.clone()),
            ("on", "remote_apply", names, standby),
            ("on", "remote_write", names, Durability::Primary(Weakness::NotFlushed)),
            ("on", "local", names, Durability::Primary(Weakness::NotWaitedFor)),
            ("on", "off", names, Durability::Primary(Weakness::NotWaitedFor)),
            ("on", "a setting to come", names, Durability::Primary(Weakness::NotWaitedFor)),
            ("on", "on", "", Durability::Primary(Weakness::NoStandby)),
            ("on", "on", " ", Durability::Primary(Weakness::NoStandby)),
            ("off", "on", names, Durability::Primary(Weakness::NoFsync)),
        ] {
            assert_eq!(judge(fsync, commit, standbys), expected, "{fsync} {commit} {standbys:?}");
        }
    }
}
