//! Marks of single tokens, and of the server's own keys.

use countersign_resource_server::status::MarkKind;
use countersign_resource_server::token::claims::StatusReference;
use serde::Serialize;

use super::{MARK_LEEWAY, NewMark, Writing, forbidden};
use crate::registry::KeyHash;
use crate::registry::edit::{EditRefusal, RecordKind};
use crate::registry::history::Touched;
use crate::registry::token::{
    AskedBy, KnownToken, REVOKED_TOKENS, REVOKED_TOKENS_OF_ALL, REVOKED_TOKENS_OF_PARTICIPANT, SigningKeyChange,
    TokenRevocation,
};
use crate::status_list::scatter::SIZE;

/// A token in the history.
#[derive(Serialize)]
struct Revoked<'a> {
    jti: &'a str,
    asked_by: AskedBy,
    #[serde(flatten)]
    token: Option<&'a KnownToken>,
}

/// A place in a status list, as a mark has it: the list by the last part of its URI.
fn place(status: &StatusReference) -> Option<(String, i64)> {
    let (_, list) = status.uri.rsplit_once('/')?;
    Some((list.to_owned(), i64::from(u32::try_from(status.idx).ok().filter(|index| *index < SIZE)?)))
}

impl Writing {
    pub(super) async fn revoke_token(&mut self, revocation: TokenRevocation) -> Result<(), EditRefusal> {
        let TokenRevocation { jti, token, asked_by } = revocation;
        let (now, kind) = (self.explanation.at, MarkKind::Jti);
        let place = token.as_ref().and_then(|token| token.status_list.as_ref()).and_then(place);
        let marked = sqlx::query(
            "SELECT version FROM revocation_mark WHERE kind = $1 AND id = $2 AND forget_after > $3 \
             AND (status_list_id IS NOT NULL OR $4 = 0)",
        )
        .bind(kind.as_str())
        .bind(jti.as_str())
        .bind(now.as_millis())
        .bind(i64::from(place.is_some()))
        .fetch_optional(&mut *self.transaction)
        .await?;
        if marked.is_some() {
            // No token of this name is issued again, so the mark there is concerns it as well as a later one would: unless
            // it is over by some wrong calendar, or nobody knew the token's place in its status list.
            return Err(forbidden(RecordKind::Token, &jti, "revoked", "revoked"));
        }
        let client_id = token.as_ref().filter(|_| asked_by == AskedBy::Client).map(|token| &token.client_id);
        if let Some(client_id) = client_id {
            let counts = [
                ("SELECT COUNT(*) FROM revocation_mark WHERE client_id = $1 AND forget_after > $2", REVOKED_TOKENS),
                (
                    "SELECT COUNT(*) FROM visible_client AS own JOIN visible_client AS client \
                         ON client.participant_id = own.participant_id \
                     JOIN revocation_mark AS mark ON mark.client_id = client.id \
                     WHERE own.id = $1 AND mark.forget_after > $2",
                    REVOKED_TOKENS_OF_PARTICIPANT,
                ),
                (
                    "SELECT COUNT(*) FROM revocation_mark WHERE client_id IS NOT NULL AND $1 <> '' AND forget_after > $2",
                    REVOKED_TOKENS_OF_ALL,
                ),
            ];
            for (statement, limit) in counts {
                let live: i64 = sqlx::query_scalar(statement)
                    .bind(client_id.as_str())
                    .bind(now.as_millis())
                    .fetch_one(&mut *self.transaction)
                    .await?;
                if usize::try_from(live).unwrap_or(usize::MAX) >= limit {
                    return Err(EditRefusal::TokenLimit { client: client_id.clone(), limit });
                }
            }
        }
        self.marks.push(NewMark {
            kind,
            id: jti.clone(),
            // Its own end: whatever calendar wrote that, the same readers go by it.
            forget_after: token.as_ref().map(|token| token.expires_at.after(MARK_LEEWAY)),
            client_id: client_id.map(ToString::to_string),
            status: place,
        });
        self.touch_nothing(&jti);
        let after = Revoked { jti: &jti, asked_by, token: token.as_ref() };
        self.note("token.revoke", RecordKind::Token, &jti, None::<&()>, Some(&after)).await
    }

    pub(super) async fn change_signing_keys(&mut self, changes: Vec<SigningKeyChange>) -> Result<(), EditRefusal> {
        for change in &changes {
            let kid = change.kid();
            self.touch_nothing(kid);
            match change {
                SigningKeyChange::Rotated { alg, signs_from, next, .. } => {
                    let after = serde_json::json!({ "alg": alg, "signs_from": signs_from, "next": next });
                    self.note("signing_key.rotate", RecordKind::SigningKey, kid, None::<&()>, Some(&after)).await?;
                }
                SigningKeyChange::Withdrawn { successor, .. } => {
                    self.mark(MarkKind::SigningKey, kid);
                    let after = serde_json::json!({ "successor": successor });
                    self.note("signing_key.withdraw", RecordKind::SigningKey, kid, None::<&()>, Some(&after)).await?;
                }
            }
        }
        Ok(())
    }

    /// A version in which nothing happened would look like one whose changes were lost, and every node would forget what it
    /// holds. No record rests on a single token or on a key of the server: so what is touched is a key that no
    /// certificate has.
    pub(super) fn touch_nothing(&mut self, id: &str) {
        self.touched.push(Touched::Key(KeyHash::of(id.as_bytes())));
    }
}
