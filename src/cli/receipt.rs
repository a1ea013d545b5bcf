//! What a command that ends something prints: what it did, and what died with it.

use countersign_resource_server::time::{Clock, SystemClock};
use serde::Serialize;
use serde_json::json;

use super::output::{Output, printable};
use super::session::{Failure, Session};
use crate::audit::command::record_reading;
use crate::audit::index::catch_up;
use crate::audit::receipt::{self, Concerned, Receipt};
use crate::registry::StoreUnavailable;

/// What the index may be behind for a look-up to begin.
const CLOSE: i64 = 4_096;

#[derive(Serialize)]
struct Done<'a, R> {
    #[serde(flatten)]
    record: &'a R,
    /// None where it could not be looked up.
    ended: Option<Receipt>,
}

/// Tells what was done, then what died with it. The change stands whatever becomes of the second.
///
/// # Errors
/// Standard output cannot be written.
pub(super) async fn done(
    session: &Session,
    sentence: &str,
    record: &impl Serialize,
    concerned: &Concerned,
) -> Result<(), Failure> {
    // Whoever watches sees at once that it is done.
    session.output.note(sentence)?;
    let looked_up = look_up(session, concerned).await;
    if session.output == Output::Json {
        return session.output.record(&Done { record, ended: looked_up.ok() });
    }
    match looked_up {
        Ok(Receipt { tokens: 0, .. }) => {
            session.output.note("No token died with it: none was issued that has not expired.")
        }
        Ok(receipt) => {
            let each: Vec<String> = receipt
                .resource_servers
                .iter()
                .map(|(resource, tokens)| format!("{} ({tokens})", printable(resource)))
                .collect();
            session.output.note(&format!(
                "{} issued and not expired died with it, for {}; --json has each by its jti. A resource server takes that in within a second where it reaches a server, and within its staleness limit where it does not; which have is not known here.",
                counted(receipt.tokens),
                each.join(", ")
            ))
        }
        Err(error) => session.output.note(&format!("It is done; what died with it could not be looked up: {error}")),
    }
}

async fn look_up(session: &Session, concerned: &Concerned) -> Result<Receipt, StoreUnavailable> {
    let store = session.store();
    // Later than the change: no token under what ended was decided after that.
    let now = SystemClock::new().now();
    let (kind, text) = concerned.name();
    let asked = json!({ kind.as_str(): text });
    record_reading(store, session.config.node.as_str(), now, session.actor(), "receipt", &asked).await?;
    // Where the index cannot be written the look-up takes longer, and that is all.
    let _ = catch_up(store, CLOSE, |_| {}).await;
    receipt::receipt(store, concerned, now).await
}

fn counted(tokens: usize) -> String {
    if tokens == 1 { "1 token".to_owned() } else { format!("{tokens} tokens") }
}
