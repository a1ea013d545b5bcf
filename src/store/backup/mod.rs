//! The whole store, read at one moment and written in one transaction, in SQL that both engines accept.
//!
//! Gives and takes rows as [`Cell`]s, table by table, in the order of [`tables::TABLES`]: what one engine has written, the
//! other reads. It knows nothing of files.

mod restoration;

mod tables;

#[cfg(test)]
mod tests;

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Executor, Row, Transaction};

pub(in crate::store) use self::restoration::{note_served_from, served_from};
use self::tables::{BORN_WITH_A_ROW, Kind, TABLES, Table};
use super::{Engine, PATIENT, Store, Turn, postgres, sqlite};
use crate::backup::{
    BackupFailure, BackupStore, Cell, Loading, Part, RegistryAt, Restoration, Snapshot, Standing, Summary,
    TokensOfBefore,
};
use crate::registry::history::Explanation;
use crate::registry::{RegistryVersion, StoreUnavailable};

/// Rows that are read together.
const PAGE: i64 = 512;

/// Rows that share one statement.
const CHUNK: usize = 32;

impl BackupStore for Store {
    fn schema(&self) -> i64 {
        match self.engine {
            Engine::Postgres { .. } => postgres::SCHEMA,
            Engine::Sqlite { .. } => sqlite::SCHEMA,
        }
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, StoreUnavailable>> {
        Box::pin(async move {
            let transaction = self.begin_look().await?;
            let look = Look { transaction, schema: self.schema(), table: 0, after: None };
            Ok(Box::new(look) as Box<dyn Snapshot>)
        })
    }

    fn begin_to_load<'a>(&'a self, restoration: &'a Restoration) -> BoxFuture<'a, Result<(), BackupFailure>> {
        Box::pin(self.note_loading(restoration))
    }

    fn load(&self) -> BoxFuture<'_, Result<Box<dyn Loading>, StoreUnavailable>> {
        Box::pin(async move {
            let turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            let is_postgres = matches!(self.engine, Engine::Postgres { .. });
            if is_postgres {
                transaction.execute(PATIENT).await?;
            }
            // Whatever a node has made meanwhile that was left with this database.
            empty(&mut transaction).await?;
            let filling = Filling { _turn: turn, transaction, is_postgres, begun: 0 };
            Ok(Box::new(filling) as Box<dyn Loading>)
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), BackupFailure>> {
        Box::pin(self.clear_loading())
    }

    fn finish<'a>(
        &'a self,
        restoration: &'a Restoration,
        statement: Option<String>,
        explanation: Explanation,
    ) -> BoxFuture<'a, Result<(), StoreUnavailable>> {
        Box::pin(self.put_on_record(restoration, statement, explanation))
    }

    fn standing(&self) -> BoxFuture<'_, Result<Standing, StoreUnavailable>> {
        Box::pin(self.restoration_standing())
    }

    fn restorations(&self) -> BoxFuture<'_, Result<Vec<Restoration>, StoreUnavailable>> {
        Box::pin(self.all_restorations())
    }

    fn confirm(
        &self,
        tokens: TokensOfBefore,
        explanation: Explanation,
    ) -> BoxFuture<'_, Result<Option<RegistryVersion>, StoreUnavailable>> {
        Box::pin(self.confirm_restorations(tokens, explanation))
    }
}

/// A store at one moment.
struct Look {
    transaction: Transaction<'static, Any>,
    schema: i64,
    /// Which table is next.
    table: usize,
    /// The key of the last row of the table before that; none where it is at its end.
    after: Option<(&'static Table, Vec<Cell>)>,
}

impl Snapshot for Look {
    fn summary(&mut self) -> BoxFuture<'_, Result<Summary, StoreUnavailable>> {
        Box::pin(async move {
            let connection = &mut *self.transaction;
            let (epoch, version): (i64, i64) =
                sqlx::query_as("SELECT epoch, version FROM registry_state").fetch_one(&mut *connection).await?;
            let changed_at: Option<i64> =
                sqlx::query_scalar("SELECT at FROM history ORDER BY version DESC, step DESC LIMIT 1")
                    .fetch_optional(&mut *connection)
                    .await?;
            let log: String = sqlx::query_scalar("SELECT id FROM audit_log").fetch_one(&mut *connection).await?;
            let checkpoint: Option<(i64, i64)> =
                sqlx::query_as("SELECT number, at FROM audit_checkpoint ORDER BY number DESC LIMIT 1")
                    .fetch_optional(&mut *connection)
                    .await?;
            Ok(Summary {
                schema: self.schema,
                registry: RegistryAt { epoch, version, changed_at: changed_at.map(UnixTime::from_millis) },
                log,
                checkpoint: checkpoint.map(|(number, at)| (number, UnixTime::from_millis(at))),
            })
        })
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Part>, StoreUnavailable>> {
        Box::pin(async move {
            if let Some((table, after)) = self.after.take() {
                let rows = page(&mut self.transaction, table, &after).await?;
                if let Some(last) = rows.last() {
                    self.after = Some((table, table.key_of(last)));
                    return Ok(Some(Part::Rows(rows)));
                }
            }
            let Some(table) = TABLES.get(self.table) else { return Ok(None) };
            self.table += 1;
            self.after = Some((table, Vec::new()));
            Ok(Some(Part::Table { name: table.name.to_owned(), columns: table.column_names() }))
        })
    }
}

impl Table {
    fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn listed(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// The key of a row.
    fn key_of(&self, row: &[Cell]) -> Vec<Cell> {
        let is_key = |(index, cell): (usize, &Cell)| {
            let (name, _) = self.columns.get(index)?;
            Some((self.key.iter().position(|key| key == name)?, cell.clone()))
        };
        let mut key: Vec<(usize, Cell)> = row.iter().enumerate().filter_map(is_key).collect();
        key.sort_by_key(|(place, _)| *place);
        key.into_iter().map(|(_, cell)| cell).collect()
    }
}

/// Rows after the one with this key, or the first.
async fn page(
    transaction: &mut Transaction<'static, Any>,
    table: &Table,
    after: &[Cell],
) -> Result<Vec<Vec<Cell>>, sqlx::Error> {
    let key = table.key.join(", ");
    let condition = if after.is_empty() {
        String::new()
    } else {
        let places: Vec<String> = (1..=after.len()).map(|number| format!("${number}")).collect();
        format!("WHERE ({key}) > ({})", places.join(", "))
    };
    let limit = after.len() + 1;
    let statement = format!("SELECT {} FROM {} {condition} ORDER BY {key} LIMIT ${limit}", table.listed(), table.name);
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for cell in after {
        query = bound(query, cell, Kind::Text);
    }
    let rows = query.bind(PAGE).fetch_all(&mut **transaction).await?;
    rows.iter().map(|row| cells(table, row)).collect()
}

fn cells(table: &Table, row: &AnyRow) -> Result<Vec<Cell>, sqlx::Error> {
    let cell = |(index, (_, kind)): (usize, &(&str, Kind))| {
        Ok(match kind {
            Kind::Integer => row.try_get::<Option<i64>, _>(index)?.map_or(Cell::Null, Cell::Integer),
            Kind::Octets => row.try_get::<Option<Vec<u8>>, _>(index)?.map_or(Cell::Null, Cell::Octets),
            Kind::Text => row.try_get::<Option<String>, _>(index)?.map_or(Cell::Null, Cell::Text),
        })
    };
    table.columns.iter().enumerate().map(cell).collect()
}

fn bound<'q>(query: Query<'q, Any, AnyArguments>, cell: &Cell, kind: Kind) -> Query<'q, Any, AnyArguments> {
    match (cell, kind) {
        (Cell::Integer(number), _) => query.bind(*number),
        (Cell::Octets(octets), _) => query.bind(octets.clone()),
        (Cell::Text(text), _) => query.bind(text.clone()),
        (Cell::Null, Kind::Integer) => query.bind(None::<i64>),
        (Cell::Null, Kind::Octets) => query.bind(None::<Vec<u8>>),
        (Cell::Null, Kind::Text) => query.bind(None::<String>),
    }
}

/// Removes every row of every table.
async fn empty(transaction: &mut Transaction<'static, Any>) -> Result<(), sqlx::Error> {
    for table in TABLES.iter().rev().map(|table| table.name).chain(["registry_change"]) {
        transaction.execute(AssertSqlSafe(format!("DELETE FROM {table}"))).await?;
    }
    Ok(())
}

/// A store while it is being filled.
struct Filling {
    transaction: Transaction<'static, Any>,
    is_postgres: bool,
    /// How many tables have begun.
    begun: usize,
    // Last: the transaction ends before it.
    _turn: Turn,
}

impl Loading for Filling {
    fn take(&mut self, part: Part) -> BoxFuture<'_, Result<(), BackupFailure>> {
        Box::pin(async move {
            match part {
                Part::Table { name, columns } => {
                    let expected = TABLES.get(self.begun);
                    if expected.is_none_or(|table| table.name != name || table.column_names() != columns) {
                        return Err(refused(format!("table {name} is not one that comes here, or has other columns")));
                    }
                    self.begun += 1;
                    Ok(())
                }
                Part::Rows(rows) => {
                    let table = self.begun.checked_sub(1).and_then(|index| TABLES.get(index));
                    let table = table.ok_or_else(|| refused("it has rows before its first table".to_owned()))?;
                    for chunk in rows.chunks(CHUNK) {
                        self.insert(table, chunk).await?;
                    }
                    Ok(())
                }
            }
        })
    }

    fn commit(mut self: Box<Self>, restoration: &Restoration) -> BoxFuture<'_, Result<(), BackupFailure>> {
        Box::pin(async move {
            if self.begun != TABLES.len() {
                return Err(refused(format!("it has {} tables, and should have {}", self.begun, TABLES.len())));
            }
            restoration::begin_epoch(&mut self.transaction, restoration).await?;
            if self.is_postgres {
                restoration::notify(&mut self.transaction, restoration.first_version).await?;
            }
            let Self { transaction, .. } = *self;
            transaction.commit().await.map_err(StoreUnavailable::from)?;
            Ok(())
        })
    }
}

impl Filling {
    async fn insert(&mut self, table: &Table, rows: &[Vec<Cell>]) -> Result<(), BackupFailure> {
        let mut values = Vec::with_capacity(rows.len());
        let mut number = 0;
        for row in rows {
            let fits = |(cell, (_, kind)): (&Cell, &(&str, Kind))| {
                matches!(
                    (cell, kind),
                    (Cell::Null, _)
                        | (Cell::Integer(_), Kind::Integer)
                        | (Cell::Octets(_), Kind::Octets)
                        | (Cell::Text(_), Kind::Text)
                )
            };
            if row.len() != table.columns.len() || !row.iter().zip(table.columns).all(fits) {
                return Err(refused(format!("a row of table {} has not what its columns hold", table.name)));
            }
            let places: Vec<String> = row
                .iter()
                .map(|_| {
                    number += 1;
                    format!("${number}")
                })
                .collect();
            values.push(format!("({})", places.join(", ")));
        }
        // Numbers that PostgreSQL would give by itself are those of the backup.
        let overriding = if self.is_postgres { "OVERRIDING SYSTEM VALUE " } else { "" };
        let statement =
            format!("INSERT INTO {} ({}) {overriding}VALUES {}", table.name, table.listed(), values.join(", "));
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for row in rows {
            for (cell, (_, kind)) in row.iter().zip(table.columns) {
                query = bound(query, cell, *kind);
            }
        }
        match query.execute(&mut *self.transaction).await {
            Ok(_) => Ok(()),
            // A rule that the schema keeps: a key twice, something that is referred to and is not there.
            Err(sqlx::Error::Database(error)) if !is_trouble(error.as_ref()) => {
                Err(refused(format!("table {} does not take a row: {error}", table.name)))
            }
            Err(error) => Err(StoreUnavailable::from(error).into()),
        }
    }
}

/// Whether the engine is in trouble, and not the row.
fn is_trouble(error: &dyn sqlx::error::DatabaseError) -> bool {
    use sqlx::error::ErrorKind::{CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation};
    !matches!(error.kind(), CheckViolation | ForeignKeyViolation | NotNullViolation | UniqueViolation)
}

fn refused(what: String) -> BackupFailure {
    BackupFailure::Refused(what)
}
