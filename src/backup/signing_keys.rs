//! The signing keys in a backup, where the store had them: what proves the backup, and signs for what is restored.
//!
//! Takes a file, gives rows as they were sealed. Whoever has the key-encryption key says whether they are authentic; nothing else
//! of the file is believed here. Blocks.

use std::path::Path;

use countersign_resource_server::time::UnixTime;

use super::BackupFailure;
use super::format::Cell;
use super::reading::Lines;
use super::store::Part;
use crate::mint::shared_keys::{RingRow, SealedKey, SealedRing};

/// More than anybody has rotated.
const MOST_KEYS: usize = 65_536;

/// The tables they are in, with what is in their columns.
const RING: (&str, [&str; 4]) = ("signing_key_ring", ["singleton", "revision", "encrypted_by", "proof"]);
const KEY: (&str, [&str; 7]) =
    ("signing_key", ["kid", "alg", "created_at", "signs_from", "retired_at", "revision", "sealed"]);

/// The signing keys in the backup at `path`; without a ring where there are none. Blocks.
///
/// # Errors
/// [`BackupFailure::File`] or [`BackupFailure::Malformed`].
pub fn signing_keys(path: &Path) -> Result<SealedRing, BackupFailure> {
    let mut lines = Lines::open(path)?;
    lines.header()?;
    let (mut found, mut table) = (SealedRing::default(), String::new());
    while let Some(part) = lines.next()? {
        match part {
            Part::Table { name, columns } => {
                let expected: &[&str] = match name.as_str() {
                    name if name == RING.0 => &RING.1,
                    name if name == KEY.0 => &KEY.1,
                    // Nothing that comes later is read twice.
                    _ if table == KEY.0 => return Ok(found),
                    _ => &[],
                };
                if !expected.is_empty() && columns != expected {
                    return Err(lines.malformed(format!("table {name} has other columns")));
                }
                table = name;
            }
            Part::Rows(rows) => {
                // Nothing of the file is proven yet, and a small one may hold more than there is memory for.
                if table == KEY.0 && found.keys.len() + rows.len() > MOST_KEYS {
                    return Err(lines.malformed("it has more signing keys than anybody has"));
                }
                for row in rows {
                    let taken = match table.as_str() {
                        name if name == RING.0 => ring(row).map(|row| found.ring = Some(row)),
                        name if name == KEY.0 => key(row).map(|row| found.keys.push(row)),
                        _ => Some(()),
                    };
                    taken.ok_or_else(|| {
                        lines.malformed(format!("a row of table {table} has not what its columns hold"))
                    })?;
                }
            }
        }
    }
    Ok(found)
}

fn ring(row: Vec<Cell>) -> Option<RingRow> {
    let row: [Cell; 4] = row.try_into().ok()?;
    let [_, Cell::Integer(revision), Cell::Text(encrypted_by), Cell::Octets(proof)] = row else {
        return None;
    };
    Some(RingRow { revision, encrypted_by, proof })
}

fn key(row: Vec<Cell>) -> Option<SealedKey> {
    let row: [Cell; 7] = row.try_into().ok()?;
    let [
        Cell::Text(kid),
        Cell::Text(alg),
        Cell::Integer(created_at),
        signs_from,
        retired_at,
        Cell::Integer(revision),
        Cell::Octets(sealed),
    ] = row
    else {
        return None;
    };
    let created_at = UnixTime::from_millis(created_at);
    Some(SealedKey {
        kid,
        alg,
        created_at,
        signs_from: instant(signs_from)?,
        retired_at: instant(retired_at)?,
        revision,
        sealed,
    })
}

fn instant(cell: Cell) -> Option<Option<UnixTime>> {
    match cell {
        Cell::Integer(millis) => Some(Some(UnixTime::from_millis(millis))),
        Cell::Null => Some(None),
        _ => None,
    }
}
