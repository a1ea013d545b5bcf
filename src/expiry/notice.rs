//! One thing, one threshold, one notice.
//!
//! Takes what runs out and the instant, gives the [`Notice`] that is due, if one is, under an id that every node arrives at
//! by itself; and when a notice that was not taken is tried again. It knows nothing of storage.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Expiring, Kind, Successor};

/// For how long after its end something is still told of: a server that was down for a weekend tells on Monday; one that
/// meets a registry with years behind it is silent about them.
pub(super) const EXPIRED_IS_NEWS_FOR: Duration = Duration::from_secs(7 * 86_400);

/// How long a notice is tried: whoever has not answered for so long learns from the next one.
const TRIED_FOR: Duration = Duration::from_secs(5 * 86_400);

/// After the first attempt that failed; twice as long after each further one …
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3_600);

/// How close the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// It has come.
    Expired,
    /// At most so many days away.
    Days(u16),
}

/// For metrics and log events.
impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("expired"),
            Self::Days(days) => write!(f, "{days}d"),
        }
    }
}

impl Threshold {
    /// The closest of `days` (ascending) that `expiring` has come within at `now`; none while it is far from its end, and
    /// none when that is long past. A threshold that lasts as long as the thing itself says nothing: it is always within it.
    pub(super) fn of(expiring: &Expiring, days: &[u16], now: UnixTime) -> Option<Self> {
        let end = expiring.expires_at;
        if end <= now {
            // What has a successor in use is over, and nobody has anything to do.
            let replaced = matches!(expiring.successor, Some(Successor::Seen { .. }));
            return (now < end.after(EXPIRED_IS_NEWS_FOR) && !replaced).then_some(Self::Expired);
        }
        // A list is made anew all the time, and is close to its end most of the time.
        let days = if expiring.kind == Kind::Crl { &[] } else { days };
        let life = expiring.begins_at.map(|begin| end.since(begin));
        days.iter()
            .find(|days| end.since(now) <= length(**days))
            .filter(|days| life.is_none_or(|life| length(**days) < life))
            .map(|days| Self::Days(*days))
    }
}

/// So many days.
pub(super) fn length(days: u16) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

/// Names a notice: the hash of what it is about. The `jti` of what is pushed, the same for every attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NoticeId(String);

impl NoticeId {
    /// Reads one as a store has it.
    pub fn from_store(text: String) -> Self {
        Self(text)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// That something has come within a threshold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Its name.
    pub id: NoticeId,
    /// How close the end is.
    pub threshold: Threshold,
    /// When it was noticed.
    pub raised_at: UnixTime,
    /// What it is about, as it was then.
    pub expiring: Expiring,
}

impl Notice {
    /// The notice that is due about `expiring` at `now`, if one is.
    pub(super) fn due(expiring: Expiring, days: &[u16], now: UnixTime) -> Option<Self> {
        let threshold = Threshold::of(&expiring, days, now)?;
        let mut hash = Sha256::new();
        let end = expiring.expires_at.as_millis().to_string();
        let participant = expiring.participant.as_ref().map(ToString::to_string).unwrap_or_default();
        // Each part with its length: no two are written alike.
        for part in [expiring.kind.as_str(), &expiring.id, &end, &participant, &threshold.to_string()] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let id = NoticeId(URL_SAFE_NO_PAD.encode(hash.finalize()));
        Some(Self { id, threshold, raised_at: now, expiring })
    }

    /// When it is tried again after `attempt` attempts, the last at `now`, have failed; not any more, where that would be
    /// too late.
    pub(super) fn next_attempt(&self, attempt: i64, now: UnixTime) -> Option<UnixTime> {
        let doublings = u32::try_from(attempt.saturating_sub(1).clamp(0, 16)).unwrap_or(16);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
        Some(now.after(pause)).filter(|next| *next < self.raised_at.after(TRIED_FOR))
    }

    /// What its receiver is told.
    pub(super) fn event(&self) -> Value {
        let Expiring {
            kind,
            id,
            subject,
            expires_at,
            participant,
            contact,
            client,
            last_seen,
            successor,
            certificates,
            ..
        } = &self.expiring;
        let mut event = json!({
            "kind": kind.as_str(),
            "id": id,
            "subject": subject,
            "expires_at": expires_at.as_seconds(),
            "expired": self.threshold == Threshold::Expired,
        });
        let successor = successor.as_ref().map(|successor| match successor {
            Successor::Announced { thumbprint, .. } => {
                json!({ "state": "announced", "x5t#S256": thumbprint.to_string() })
            }
            Successor::Seen { thumbprint } => json!({ "state": "seen", "x5t#S256": thumbprint.to_string() }),
        });
        let days = match self.threshold {
            Threshold::Days(days) => Some(days),
            Threshold::Expired => None,
        };
        for (name, value) in [
            ("within_days", days.map(Value::from)),
            ("participant_id", participant.as_ref().map(|id| id.as_str().into())),
            ("contact", contact.as_deref().map(Value::from)),
            ("client_id", client.as_ref().map(|id| id.as_str().into())),
            ("last_seen", last_seen.map(|at| at.as_seconds().into())),
            ("successor", successor),
            ("certificates", certificates.map(Value::from)),
        ] {
            if let Some(value) = value {
                event[name] = value;
            }
        }
        event
    }
}
