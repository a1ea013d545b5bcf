//! What of the schema is in a backup, and what is not.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Octets,
    Text,
}

use Kind::{Integer, Octets, Text};

/// A table that is in a backup.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// The columns of its key, in order: it is read by them, page by page.
    pub(super) key: &'static [&'static str],
}

const fn table(name: &'static str, columns: &'static [(&'static str, Kind)], key: &'static [&'static str]) -> Table {
    Table { name, columns, key }
}

/// All of them, each after those it refers to.
pub(super) const TABLES: &[Table] = &[
    table("registry_state", &[("singleton", Integer), ("epoch", Integer), ("version", Integer)], &["singleton"]),
    table(
        "registry_import",
        &[("id", Integer), ("state", Text), ("leased_until", Integer), ("version", Integer), ("record", Text)],
        &["id"],
    ),
    table("participant", &[("id", Text), ("state", Text), ("record", Text), ("import_id", Integer)], &["id"]),
    table(
        "trust_anchor",
        &[
            ("id", Text),
            ("owner_participant_id", Text),
            ("subject_hash", Text),
            ("state", Text),
            ("record", Text),
            ("import_id", Integer),
        ],
        &["id"],
    ),
    table(
        "anchor_grant",
        &[("participant_id", Text), ("anchor_id", Text), ("state", Text), ("record", Text), ("import_id", Integer)],
        &["participant_id", "anchor_id"],
    ),
    table(
        "client",
        &[
            ("id", Text),
            ("participant_id", Text),
            ("rule_attribute", Text),
            ("rule_canonical", Text),
            ("state", Text),
            ("record", Text),
            ("import_id", Integer),
        ],
        &["id"],
    ),
    table(
        "certificate",
        &[
            ("thumbprint", Text),
            ("client_id", Text),
            ("key_hash", Text),
            ("issuer_key", Text),
            ("serial", Text),
            ("state", Text),
            ("expires_at", Integer),
            ("live_until", Integer),
            ("last_seen", Integer),
            ("record", Text),
            ("anchor_id", Text),
            ("import_id", Integer),
        ],
        &["thumbprint"],
    ),
    table(
        "path_issuer",
        &[("thumbprint", Text), ("issuer_key", Text), ("serial", Text), ("expires_at", Integer)],
        &["thumbprint", "issuer_key", "serial"],
    ),
    table(
        "resource_server",
        &[
            ("id", Text),
            ("resource", Text),
            ("owner_participant_id", Text),
            ("rule_attribute", Text),
            ("rule_canonical", Text),
            ("certificate_thumbprint", Text),
            ("state", Text),
            ("record", Text),
            ("import_id", Integer),
        ],
        &["id"],
    ),
    table("resource_server_certificate", &[("thumbprint", Text), ("resource_server_id", Text)], &["thumbprint"]),
    table(
        "entitlement",
        &[("id", Text), ("client_id", Text), ("resource_server_id", Text), ("record", Text), ("import_id", Integer)],
        &["id"],
    ),
    table(
        "revoked_key",
        &[("key_hash", Text), ("version", Integer), ("revoked_at", Integer), ("reason", Text), ("import_id", Integer)],
        &["key_hash"],
    ),
    table(
        "revocation_mark",
        &[
            ("kind", Text),
            ("id", Text),
            ("version", Integer),
            ("forget_after", Integer),
            ("client_id", Text),
            ("status_list_id", Text),
            ("status_index", Integer),
        ],
        &["kind", "id"],
    ),
    table(
        "history",
        &[
            ("version", Integer),
            ("step", Integer),
            ("at", Integer),
            ("actor", Text),
            ("action", Text),
            ("subject", Text),
            ("record_before", Text),
            ("record_after", Text),
            ("why", Text),
        ],
        &["version", "step"],
    ),
    table(
        "notice",
        &[
            ("id", Text),
            ("participant_id", Text),
            ("state", Text),
            ("raised_at", Integer),
            ("attempts", Integer),
            ("next_attempt_at", Integer),
            ("record", Text),
        ],
        &["id"],
    ),
    table("restoration", &[("epoch", Integer), ("state", Text), ("record", Text), ("statement", Text)], &["epoch"]),
    table("used_assertion", &[("digest", Octets), ("expires_at", Integer)], &["digest"]),
    table(
        "audit_log",
        &[
            ("singleton", Integer),
            ("id", Text),
            ("history_version", Integer),
            ("history_step", Integer),
            ("served_until", Integer),
        ],
        &["singleton"],
    ),
    table(
        "audit_chain",
        &[
            ("id", Integer),
            ("lease", Integer),
            ("holder", Text),
            ("leased_until", Integer),
            ("cut_sequence", Integer),
            ("cut_hash", Octets),
        ],
        &["id"],
    ),
    table("audit_checkpoint", &[("number", Integer), ("at", Integer), ("statement", Text)], &["number"]),
    table(
        "audit_forward",
        &[("sink", Text), ("lease", Integer), ("holder", Text), ("leased_until", Integer), ("checkpoint", Integer)],
        &["sink"],
    ),
    table(
        "audit_forward_cursor",
        &[("sink", Text), ("chain", Integer), ("sequence", Integer), ("hash", Octets)],
        &["sink", "chain"],
    ),
    table(
        "audit_record_without_chain",
        &[("position", Integer), ("writer", Text), ("sequence", Integer), ("at", Integer), ("body", Text)],
        &["position"],
    ),
    table("audit_record", &[("position", Integer), ("at", Integer), ("hash", Octets), ("body", Text)], &["position"]),
];

/// What is made again by whoever serves the restored store: the index of the log; what memories are checked with, which
/// nothing remembered reaches across an epoch; who has which revocation list; and status lists, for nobody knows which of their places were given out after
/// the backup: a list that is gone answers for no token, where one of before would call them valid.
#[cfg(test)]
pub(super) const MADE_AGAIN: &[&str] = &[
    "audit_index",
    "audit_index_progress",
    "audit_index_sweep",
    "audit_index_term",
    "list_follower",
    "registry_change",
    "status_block",
    "status_list",
];

/// Tables that a new schema has a row in.
pub(super) const BORN_WITH_A_ROW: &[&str] = &["registry_state", "audit_log"];
