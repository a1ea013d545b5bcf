//! What a `pruned` record says: up to which checkpoint records were exported and removed, and who vouches for that.
//!
//! Whoever can write to the store can write a record, and the next checkpoint covers it. So a `pruned` record brings a proof:
//! what it says, signed with the key of the checkpoints, which is not in the store. Takes and gives records; it knows nothing
//! of where the keys are.

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::{self, Expectation, JwsError, KeyChoice, SigningAlgorithm, Untyped};
use serde::{Deserialize, Serialize};

use super::finding::{Finding, FindingKind};
use super::run::Record;
use super::statement::Evidence;
use crate::audit::HistoryPlace;
use crate::audit::believed::{BelievedKeys, Withdrawal};
use crate::audit::chain::{LogId, Position, RecordHash};
use crate::audit::checkpoint::MAX_CHECKPOINT_BYTES;
use crate::mint::{KeyError, Signer};
use crate::registry::history::Actor;

/// The `typ` of such a proof: it can be taken for no token, and for no checkpoint.
pub const PRUNE_TYPE: &str = "countersign-audit-prune+jwt";

/// A `pruned` record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// `pruned`
    pub kind: String,
    /// When.
    pub at: UnixTime,
    /// Where the command ran.
    pub node: String,
    /// Who gave it.
    pub actor: Actor,
    /// The checkpoint that the export ends with and the log begins after.
    pub checkpoint: i64,
    /// The export's name.
    pub file: String,
    /// Its SHA-256 hash, in hexadecimal digits.
    pub sha256: String,
    /// How many records are in it.
    pub records: u64,
    /// The last row of the registry's history whose `change` is in this export or one before it.
    pub history: HistoryPlace,
    /// All of this, of which log, and the checkpoint's own hash, signed (compact JWS). Empty where it is not signed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proof: String,
}

/// What is signed: the record without its proof, and what it is about. The checkpoint's hash stands for the heads in it.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    log: String,
    /// The hash of the checkpoint's statement.
    statement: String,
    #[serde(flatten)]
    record: Pruned,
}

/// Why a `pruned` record proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NoProof {
    /// Nobody who has the keys signed anything of this kind.
    Unsigned(JwsError),
    /// There is none.
    Missing,
    /// The key counted no more.
    Withdrawn(Withdrawal),
    /// It is about another prune, for this reason.
    Another(&'static str),
}

impl Pruned {
    /// Reads one; none where it is no such record.
    pub(in crate::audit) fn of(record: &Record<'_>) -> Option<Self> {
        serde_json::from_str(record.body).ok()
    }

    /// The same with a proof, of `log` and of the checkpoint whose hash is `statement`.
    ///
    /// # Errors
    /// [`KeyError`] if the key cannot sign.
    pub fn signed(self, issuer: &str, log: LogId, statement: RecordHash, signer: &Signer) -> Result<Self, KeyError> {
        let record = Self { proof: String::new(), ..self };
        let claims = Claims { iss: issuer.to_owned(), log: log.to_string(), statement: statement.to_string(), record };
        let payload = serde_json::to_vec(&claims).map_err(|_| KeyError::Refused)?;
        let proof = signer.sign(PRUNE_TYPE, &payload)?;
        Ok(Self { proof, ..claims.record })
    }

    /// Whether one of `keys` signed just this, of `log` and, if it is known here, the checkpoint whose hash is `statement`.
    fn proven(&self, keys: &BelievedKeys, log: LogId, statement: Option<RecordHash>) -> Result<(), NoProof> {
        if self.proof.is_empty() {
            return Err(NoProof::Missing);
        }
        let expected = Expectation {
            algorithms: &[SigningAlgorithm::ES256],
            types: &[PRUNE_TYPE],
            untyped: Untyped::Refuse,
            key: KeyChoice::ByKid,
            max_bytes: MAX_CHECKPOINT_BYTES,
        };
        let verified = jws::verify(&self.proof, keys.keys(), &expected).map_err(NoProof::Unsigned)?;
        let claims: Claims = verified.claims().map_err(NoProof::Unsigned)?;
        if claims.log != log.to_string() {
            return Err(NoProof::Another("its proof is of another log"));
        }
        if claims.record != (Self { proof: String::new(), ..self.clone() }) {
            return Err(NoProof::Another("its proof says something else than it does"));
        }
        if statement.is_some_and(|statement| claims.statement != statement.to_string()) {
            return Err(NoProof::Another("its proof is of another checkpoint of that number"));
        }
        match keys.withdrawal(&self.proof).filter(|key| key.is_before(self.at)) {
            Some(key) => Err(NoProof::Withdrawn(key)),
            None => Ok(()),
        }
    }
}

/// A `pruned` record, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::audit) struct Announced {
    position: Position,
    pruned: Pruned,
}

impl Announced {
    /// Reads one; none where it is no such record.
    pub(in crate::audit) fn of(record: &Record<'_>) -> Option<Self> {
        Pruned::of(record).map(|pruned| Self { position: record.position, pruned })
    }

    /// Which checkpoint it says the log begins after.
    pub(in crate::audit) const fn checkpoint(&self) -> i64 {
        self.pruned.checkpoint
    }

    /// What it says, if whoever has the keys said so.
    ///
    /// # Errors
    /// What was found in its place.
    pub(in crate::audit) fn proven(
        self,
        keys: &BelievedKeys,
        log: LogId,
        statement: Option<RecordHash>,
    ) -> Result<Pruned, Finding> {
        let Err(why) = self.pruned.proven(keys, log, statement) else { return Ok(self.pruned) };
        let (kind, what) = match why {
            NoProof::Missing => (
                FindingKind::Signature,
                "this `pruned` record is not signed: no operator's command wrote it".to_owned(),
            ),
            NoProof::Unsigned(JwsError::KeyUnknown) => {
                let what = "this `pruned` record is signed with a key that is not known: give the keys with --jwks";
                (FindingKind::Signature, what.to_owned())
            }
            NoProof::Unsigned(error) => {
                (FindingKind::Signature, format!("this `pruned` record is not signed by the key it names: {error}"))
            }
            NoProof::Withdrawn(key) => {
                let what = format!(
                    "this `pruned` record is signed with key {}, which had been withdrawn at {}: it says nothing",
                    key.kid, key.at
                );
                (FindingKind::Signature, what)
            }
            NoProof::Another(what) => {
                (FindingKind::Cut, format!("this `pruned` record is about another prune: {what}"))
            }
        };
        let sequence = self.position.sequence();
        let finding = Finding::new(kind, what).in_chain(self.position.chain()).of_records(sequence, sequence);
        Err(finding.of_checkpoint(self.pruned.checkpoint).at(self.pruned.at))
    }

    /// Those that are proven, and what was found of the others.
    pub(in crate::audit) fn sorted(
        all: Vec<Self>,
        keys: &BelievedKeys,
        log: LogId,
        evidence: &Evidence,
    ) -> (Vec<Pruned>, Vec<Finding>) {
        let (mut proven, mut findings) = (Vec::new(), Vec::new());
        let newest = evidence.newest.as_ref().map_or(0, |newest| newest.number);
        for announced in all {
            let statement = evidence.statement(announced.checkpoint());
            let position = announced.position;
            match announced.proven(keys, log, statement) {
                // Of another past of this log, or of a copy of it that somebody tried out.
                Ok(pruned) if pruned.checkpoint > newest => {
                    let what =
                        format!("this `pruned` record is about checkpoint {}, which is not there", pruned.checkpoint);
                    let sequence = position.sequence();
                    let finding = Finding::new(FindingKind::Cut, what).in_chain(position.chain());
                    findings.push(finding.of_records(sequence, sequence).at(pruned.at));
                }
                Ok(pruned) => proven.push(pruned),
                Err(finding) => findings.push(finding),
            }
        }
        (proven, findings)
    }
}
