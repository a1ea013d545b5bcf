//! What the server says about itself: tracing set-up, and the names of fields and metrics.
//!
//! Takes the log's configuration, gives a subscriber and the handle from which `/metrics` is rendered. Names are
//! constants, so that a dashboard can rely on them; tokens, keys, certificates and bodies are never among the values.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Counter: answered requests by `endpoint`, `status`, and `reason` (`ok` where nothing was refused).
pub const REQUESTS: &str = "countersign_requests_total";
/// Histogram: seconds from a request's head to its answer, by `endpoint`.
pub const REQUEST_SECONDS: &str = "countersign_request_duration_seconds";
/// Gauge: how many requests may be decided at one time, as things stand.
pub const PLACES: &str = "countersign_request_places";
/// Counter: completed handshakes by `protocol`, `resumed` and `certificate` (`yes` or `no`).
pub const HANDSHAKES: &str = "countersign_handshakes_total";
/// Counter: connections that never came to a request, by `reason`.
pub const HANDSHAKES_REFUSED: &str = "countersign_handshakes_refused_total";
/// Counter: request heads that hyper answered by itself, with a bare 400, 414 or 431, by `status`.
pub const HEADS_REFUSED: &str = "countersign_request_heads_refused_total";
/// Counter: connections ended by one of the limits, by `limit`.
pub const CONNECTIONS_ENDED: &str = "countersign_connections_ended_total";
/// Gauge: open connections.
pub const CONNECTIONS: &str = "countersign_connections";
/// Gauge: the second after which the server's certificate is expired.
pub const SERVER_CERTIFICATE_NOT_AFTER: &str = "countersign_server_certificate_not_after_seconds";
/// Counter: new server certificates that were broken and set aside.
pub const SERVER_CERTIFICATES_SET_ASIDE: &str = "countersign_server_certificates_set_aside_total";
/// Gauge: seconds since the revocation list was signed.
pub const REVOCATION_LIST_AGE: &str = "countersign_revocation_list_age_seconds";
/// Gauge: the number of the newest checkpoint of the audit log.
pub const AUDIT_CHECKPOINT: &str = "countersign_audit_checkpoint";
/// Gauge: 1 where the audit log in the store is older than the checkpoint this node wrote down: somebody put it back.
pub const AUDIT_BEHIND_CHECKPOINT: &str = "countersign_audit_behind_checkpoint";
/// Counter: records of the audit log that were sent on, by `sink` (file, syslog, otlp).
pub const AUDIT_EXPORTED: &str = "countersign_audit_exported_records_total";
/// Counter: attempts to send on that failed, by `sink`.
pub const AUDIT_EXPORT_FAILURES: &str = "countersign_audit_export_failures_total";
/// Counter: records that a collector took and threw away, as it said itself, by `sink`.
pub const AUDIT_EXPORT_REJECTED: &str = "countersign_audit_export_rejected_records_total";
/// Gauge: how many records of the audit log a `sink` has not got yet.
pub const AUDIT_EXPORT_BEHIND: &str = "countersign_audit_export_behind_records";
/// Gauge: seconds since the oldest of them was decided, by `sink`; 0 where there is none.
pub const AUDIT_EXPORT_OLDEST: &str = "countersign_audit_export_oldest_seconds";
/// Gauge: seconds until the first thing of a `kind` (leaf, intermediate, anchor, crl, server) expires; infinite where there
/// is none.
pub const EXPIRY_SOONEST: &str = "countersign_expiry_soonest_seconds";
/// Gauge: how many things of a `kind` expire `within` a number of days, or have expired; of certificates, in the last week.
pub const EXPIRY_WITHIN: &str = "countersign_expiry_within";
/// Counter: attempts to push a notice about what expires, by `outcome` (delivered, failed, given_up).
pub const EXPIRY_NOTICES: &str = "countersign_expiry_notices_total";
/// Counter: questions that responders were asked, by `outcome`: `good`, `revoked`, `unknown`, or why there was no answer.
pub const OCSP_ANSWERS: &str = "countersign_ocsp_answers_total";
/// Histogram: seconds that such a question took.
pub const OCSP_SECONDS: &str = "countersign_ocsp_exchange_duration_seconds";
/// Gauge: certificates whose status is remembered.
pub const OCSP_REMEMBERED: &str = "countersign_ocsp_remembered_certificates";
/// Gauge: seconds since the oldest of an anchor's certificate revocation lists was issued, by `anchor`. This and the next
/// two are not a number once the anchor has no list any more.
pub const CRL_AGE: &str = "countersign_crl_age_seconds";
/// Gauge: seconds until the first of an anchor's certificate revocation lists is out of date, by `anchor`; negative once it
/// is.
pub const CRL_SECONDS_LEFT: &str = "countersign_crl_seconds_until_next_update";
/// Gauge: certificates that the lists of an anchor revoke, by `anchor`.
pub const CRL_ENTRIES: &str = "countersign_crl_entries";
/// Counter: certificate revocation lists that were not taken, by `reason`.
pub const CRLS_REFUSED: &str = "countersign_crls_refused_total";
/// Gauge: seconds since a trust domain's endpoint last confirmed the bundle that is held, by `trust_domain`.
pub const BUNDLE_AGE: &str = "countersign_trust_domain_bundle_age_seconds";
/// Gauge: `spiffe_sequence` of the bundle that is held, by `trust_domain`.
pub const BUNDLE_SEQUENCE: &str = "countersign_trust_domain_bundle_sequence";
/// Counter: how often bundle endpoints were asked, by `trust_domain` and `outcome` (`replaced`, `unchanged`, `failed`).
pub const BUNDLE_REFRESHES: &str = "countersign_trust_domain_bundle_refreshes_total";

/// Field: the id of the request, as in the audit log and in `X-Request-Id`.
pub const REQUEST_ID: &str = "request.id";
/// Field: the short reason of a refusal.
pub const REFUSAL: &str = "refusal";

/// Buckets of [`REQUEST_SECONDS`] and [`OCSP_SECONDS`]: from a tenth of a millisecond to a long poll.
const BUCKETS: [f64; 12] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

/// Sends log lines to standard error in the configured shape. Where a subscriber is set already, it stays.
pub fn start_log(log: &Log) {
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let colours = std::io::stderr().is_terminal();
    // Only a second call can fail, and then the first one's choice stands.
    let _ = match log.format {
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
        LogFormat::Text => {
            registry.with(tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init()
        }
    };
}

/// The handle `/metrics` is rendered from. The first call makes the recorder that all metrics of this process go to; later
/// ones give the same handle.
pub fn start_metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let make = || {
        let builder =
            [REQUEST_SECONDS, OCSP_SECONDS].into_iter().try_fold(PrometheusBuilder::new(), |builder, name| {
                builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &BUCKETS)
            });
        let builder = builder.unwrap_or_else(|_| PrometheusBuilder::new()); // only an empty list of buckets is refused
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Where another recorder is set already, metrics stay there and this handle is empty.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        handle
    };
    HANDLE.get_or_init(make).clone()
}

/// Moves what was measured into its buckets every few seconds, so that it does not pile up where nobody asks for
/// `/metrics`; never ends.
pub async fn keep_metrics(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

fn describe() {
    metrics::describe_counter!(REQUESTS, "Answered requests by endpoint, status and reason");
    metrics::describe_histogram!(REQUEST_SECONDS, metrics::Unit::Seconds, "From a request's head to its answer");
    metrics::describe_gauge!(PLACES, "Requests that may be decided at one time");
    metrics::describe_counter!(HANDSHAKES, "Completed handshakes");
    metrics::describe_counter!(HANDSHAKES_REFUSED, "Connections that never came to a request");
    metrics::describe_counter!(HEADS_REFUSED, "Request heads that could not be read");
    metrics::describe_counter!(CONNECTIONS_ENDED, "Connections ended by a limit");
    metrics::describe_gauge!(CONNECTIONS, "Open connections");
    metrics::describe_gauge!(SERVER_CERTIFICATE_NOT_AFTER, "When the server's certificate expires");
    metrics::describe_gauge!(REVOCATION_LIST_AGE, metrics::Unit::Seconds, "Age of the revocation list");
    metrics::describe_counter!(AUDIT_EXPORTED, "Records of the audit log that were sent on");
    metrics::describe_counter!(AUDIT_EXPORT_FAILURES, "Attempts to send on the audit log that failed");
    metrics::describe_counter!(AUDIT_EXPORT_REJECTED, "Records of the audit log that a collector threw away");
    metrics::describe_gauge!(AUDIT_EXPORT_BEHIND, "Records of the audit log that were not sent on yet");
    metrics::describe_gauge!(AUDIT_EXPORT_OLDEST, metrics::Unit::Seconds, "Age of the oldest of them");
    metrics::describe_gauge!(EXPIRY_SOONEST, metrics::Unit::Seconds, "Until the first thing of a kind expires");
    metrics::describe_gauge!(EXPIRY_WITHIN, "Things of a kind that expire within so many days");
    metrics::describe_counter!(EXPIRY_NOTICES, "Attempts to push a notice about what expires");
    metrics::describe_counter!(OCSP_ANSWERS, "Questions to OCSP responders by outcome");
    metrics::describe_histogram!(OCSP_SECONDS, metrics::Unit::Seconds, "What a question to an OCSP responder took");
    metrics::describe_gauge!(OCSP_REMEMBERED, "Certificates whose status is remembered");
    metrics::describe_gauge!(CRL_AGE, metrics::Unit::Seconds, "Age of an anchor's oldest certificate revocation list");
    metrics::describe_gauge!(
        CRL_SECONDS_LEFT,
        metrics::Unit::Seconds,
        "Until the first of an anchor's certificate revocation lists is out of date"
    );
    metrics::describe_gauge!(CRL_ENTRIES, "Certificates that the revocation lists of an anchor revoke");
    metrics::describe_counter!(CRLS_REFUSED, "Certificate revocation lists that were not taken");
    metrics::describe_gauge!(BUNDLE_AGE, metrics::Unit::Seconds, "Since a trust domain's bundle was last confirmed");
    metrics::describe_gauge!(BUNDLE_SEQUENCE, "Sequence of a trust domain's bundle");
    metrics::describe_counter!(BUNDLE_REFRESHES, "Bundle endpoints asked");
    metrics::describe_counter!(SERVER_CERTIFICATES_SET_ASIDE, "New server certificates that were broken");
}
