//! Countersign: an OAuth 2.0 authorization server for machines. A partner's certificate in, a token out that only that
//! certificate can use.
//!
//! The modules below stand in the order a token request meets them. Start with [`issuance`].

/// The path of a token request, as one function. Read this first.
pub mod issuance;

/// The path of a revocation request, as one function.
pub mod revocation;

/// The path of a question about a token, as one function.
pub mod introspection;

/// The parameters of a request, typed; none twice.
pub mod request;

/// The handshake: proves possession, bounds the work, decides nothing.
pub mod tls;

/// How much does this node take on at one time?
pub mod capacity;

/// Is this certificate good now?
pub mod pki;

/// Which client does it prove?
pub mod client_auth;

/// How many requests a second may it make?
pub mod rates;

/// May this client act now?
pub mod admission;

/// May it have this?
pub mod policy;

/// Write it down and sign it.
pub mod mint;

/// What happened, durable before it is answered.
pub mod audit;

/// Would this certificate be let in, and if not, why?
pub mod explanation;

/// HTTP and nothing else.
pub mod endpoint;

/// What is this token that somebody shows us?
pub mod presented_token;

/// Which issued tokens are still good.
pub mod status;

/// Who has taken that in.
pub mod followers;

/// The same as Token Status Lists, for resource servers that read those.
pub mod status_list;

/// The book of participants.
pub mod registry;

/// What runs out soon, and who has to be told.
pub mod expiry;

/// What others publish, fetched within bounds.
pub mod fetch;

/// The whole store as one file, and a store from such a file.
pub mod backup;

/// SQL and nothing else.
pub mod store;

/// The commands.
pub mod cli;

/// Everything wired together.
pub mod app;

/// Listeners, reload, graceful shutdown.
pub mod server;

/// The one file that reads configuration.
pub mod config;

/// Why not: one variant per stage, and the table to protocol error codes.
pub mod error;

/// Tracing set-up; the names of spans, fields and metrics.
pub mod telemetry;

/// Everything on one machine, nothing to prepare.
pub mod quickstart;
