//! Records of commands: one each, in a chain that is leased for it.
//!
//! Takes what an operator is about to be shown, or has done to the log, gives a record that is durable when it returns. A
//! command that ends before it gives the chain back keeps nobody from anything: the lease runs out.

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use serde::Serialize;

use super::chain::Head;
use super::record;
use super::store::{AppendRefusal, AuditStore, Batch, Entry};
use super::verify::Pruned;
use crate::registry::StoreUnavailable;
use crate::registry::history::Actor;

/// How long a command may take to write its record.
const LEASE: Duration = Duration::from_secs(30);

/// Puts on record that `actor` reads the log, before anything is shown: with which command, and what it asks for.
///
/// # Errors
/// [`StoreUnavailable`]: then nothing is to be shown.
pub async fn record_reading(
    store: &dyn AuditStore,
    node: &str,
    now: UnixTime,
    actor: &Actor,
    command: &str,
    asked: &impl Serialize,
) -> Result<Head, StoreUnavailable> {
    record_one(store, node, now, record::reading(node, now, actor, command, asked)).await
}

/// Puts on record that records were exported, before they are removed.
///
/// # Errors
/// [`StoreUnavailable`]: then nothing is to be removed.
pub async fn record_pruned(store: &dyn AuditStore, pruned: &Pruned) -> Result<Head, StoreUnavailable> {
    record_one(store, &pruned.node, pruned.at, record::pruned(pruned)).await
}

/// Writes one record to a chain of its own and gives the chain back.
async fn record_one(store: &dyn AuditStore, node: &str, now: UnixTime, body: String) -> Result<Head, StoreUnavailable> {
    let lease = store.lease(node, now, now.after(LEASE)).await?;
    let entries = vec![Entry::new(now, body)];
    let batch = Batch { lease, entries, given_back: Vec::new(), history: None };
    let appended = store.append(Arc::new(batch)).await.map_err(|refusal| match refusal {
        AppendRefusal::Unavailable(error) => error,
        other => StoreUnavailable::because(other),
    })?;
    // Where it fails the lease runs out by itself.
    let _ = store.renew(lease.head.chain(), lease.number, UnixTime::from_millis(0)).await;
    Ok(appended.head)
}
