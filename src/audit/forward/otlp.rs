//! OpenTelemetry logs over HTTP, in JSON (OTLP/HTTP).
//!
//! Takes runs, gives each as one `ExportLogsServiceRequest` to a collector, and takes its word for what it has.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_resource_server::time::{Clock, UnixTime};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::line::{Item, Weight};
use super::{Run, Sink, SinkFailure};
use crate::fetch::{Bounds, FetchError, Fetcher};
use crate::telemetry;

/// How much of an answer is taken, and how long it is waited for: less long than a turn.
const BOUNDS: Bounds = Bounds { bytes: 64 * 1024, time: Duration::from_secs(15) };

/// Posts to a collector.
pub struct OtlpSink {
    url: String,
    fetcher: Fetcher,
    node: String,
    clock: Arc<dyn Clock>,
}

impl OtlpSink {
    /// Posts to `url` through `fetcher`, in the name of this node.
    pub fn new(url: String, fetcher: Fetcher, node: String, clock: Arc<dyn Clock>) -> Self {
        Self { url, fetcher, node, clock }
    }
}

impl fmt::Debug for OtlpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpSink").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Sink for OtlpSink {
    fn name(&self) -> &'static str {
        "otlp"
    }

    fn send<'a>(&'a mut self, run: &'a Run) -> BoxFuture<'a, Result<(), SinkFailure>> {
        async move {
            let body = Bytes::from(request(run, &self.node, self.clock.now()).to_string());
            let json = "application/json";
            let answer = self.fetcher.post(&self.url, json, json, body, BOUNDS).await.map_err(|error| {
                let retry_after = match error {
                    FetchError::Later { after, .. } => Some(after),
                    _ => None,
                };
                SinkFailure { reason: error.to_string(), retry_after }
            })?;
            let Some(rejected) = rejected(&answer.body) else {
                return Err(SinkFailure::because("the answer is none of a collector's"));
            };
            if rejected.count > 0 {
                // The protocol forbids to send them again: the collector would throw them away again.
                metrics::counter!(telemetry::AUDIT_EXPORT_REJECTED, "sink" => self.name())
                    .increment(rejected.count.unsigned_abs());
                tracing::error!(
                    sink = self.name(),
                    rejected = rejected.count,
                    reason = rejected.reason,
                    "the collector took records of the audit log and threw them away"
                );
            }
            Ok(())
        }
        .boxed()
    }
}

/// `ExportLogsServiceRequest` in the JSON mapping of proto3: 64-bit integers are strings.
fn request(run: &Run, node: &str, now: UnixTime) -> Value {
    let records: Vec<Value> = run.items().iter().map(|item| record(item, now)).collect();
    json!({
        "resourceLogs": [{
            "resource": { "attributes": [
                attribute("service.name", &json!({ "stringValue": "countersign" })),
                attribute("service.version", &json!({ "stringValue": env!("CARGO_PKG_VERSION") })),
                attribute("service.instance.id", &json!({ "stringValue": node })),
            ] },
            "scopeLogs": [{ "scope": { "name": "countersign.audit" }, "logRecords": records }],
        }],
    })
}

fn record(item: &Item<'_>, now: UnixTime) -> Value {
    let (kind, weight) = item.kind();
    // The log data model's INFO, and INFO2, which is what it has for a notice of syslog.
    let (severity, severity_text) = match weight {
        Weight::Informational => (9, "INFO"),
        Weight::Notice => (10, "NOTICE"),
    };
    let string = |text: &str| json!({ "stringValue": text });
    let integer = |number: i64| json!({ "intValue": number.to_string() });
    let mut attributes = vec![attribute("audit.kind", &string(&kind))];
    let body = match item {
        Item::Checkpoint(checkpoint) => {
            attributes.push(attribute("audit.checkpoint", &integer(checkpoint.number)));
            &checkpoint.statement
        }
        Item::Record(entry) => {
            attributes.push(attribute("audit.chain", &integer(entry.position.chain().number())));
            attributes.push(attribute("audit.sequence", &integer(entry.position.sequence())));
            attributes.push(attribute("audit.at", &integer(entry.at.as_millis())));
            attributes.push(attribute("audit.hash", &string(&entry.hash.to_string())));
            &entry.body
        }
    };
    json!({
        "timeUnixNano": nanoseconds(item.at()),
        "observedTimeUnixNano": nanoseconds(now),
        "severityNumber": severity,
        "severityText": severity_text,
        "body": string(body),
        "attributes": attributes,
    })
}

fn attribute(key: &str, value: &Value) -> Value {
    json!({ "key": key, "value": value })
}

/// `fixed64`: what is before the epoch, or after what fits, is unknown, which is written as 0.
fn nanoseconds(at: UnixTime) -> String {
    u64::try_from(at.as_millis()).ok().and_then(|millis| millis.checked_mul(1_000_000)).unwrap_or(0).to_string()
}

/// What a collector threw away.
#[derive(Debug, PartialEq, Eq)]
struct Rejected {
    count: i64,
    reason: String,
}

/// Reads `ExportLogsServiceResponse`. Some collectors answer with nothing at all; what is neither is not from one.
fn rejected(body: &[u8]) -> Option<Rejected> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Answer {
        partial_success: Option<PartialSuccess>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct PartialSuccess {
        rejected_log_records: Value,
        error_message: String,
    }
    if body.is_empty() {
        return Some(Rejected { count: 0, reason: String::new() });
    }
    // A list is no message of the JSON mapping, though it can be read as a struct.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let PartialSuccess { rejected_log_records, error_message } =
        serde_json::from_slice::<Answer>(body).ok()?.partial_success.unwrap_or_default();
    let count = match rejected_log_records {
        Value::Null => Some(0),
        Value::Number(count) => count.as_i64(),
        Value::String(count) => count.parse().ok(),
        _ => None,
    };
    Some(Rejected { count: count.filter(|count| *count >= 0)?, reason: error_message.chars().take(200).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::forward::tests::{NOW, checkpoint, entry};

    #[test]
    fn a_record_is_a_log_record_with_its_text_in_it() {
        let body = r#"{"kind":"decision","outcome":"refused","name":"Zürich \n \"東京\""}"#;
        let sent = entry(2, 9, body);
        let hash = sent.hash.to_string();
        let request = request(&Run::Records(vec![sent]), "node-1", NOW);
        let resource = &request["resourceLogs"][0];
        assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "countersign");
        assert_eq!(resource["resource"]["attributes"][2]["value"]["stringValue"], "node-1");
        let record = &resource["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["body"]["stringValue"], body);
        assert_eq!((&record["timeUnixNano"], &record["severityNumber"]), (&"1800000000000000000".into(), &10.into()));
        let attribute = |key: &str| {
            let attributes = record["attributes"].as_array().unwrap();
            attributes.iter().find(|attribute| attribute["key"] == key).unwrap()["value"].clone()
        };
        assert_eq!(attribute("audit.chain"), json!({ "intValue": "2" }));
        assert_eq!(attribute("audit.sequence"), json!({ "intValue": "9" }));
        assert_eq!(attribute("audit.hash"), json!({ "stringValue": hash }));
        assert_eq!(attribute("audit.kind"), json!({ "stringValue": "decision" }));
    }

    #[test]
    fn a_checkpoint_is_one_too() {
        let request = request(&Run::Checkpoint(checkpoint(3, "a.b.c")), "node-1", NOW);
        let record = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["body"]["stringValue"], "a.b.c");
        assert_eq!(record["attributes"][0]["value"]["stringValue"], "checkpoint");
        assert_eq!(record["attributes"][1]["value"]["intValue"], "3");
    }

    #[test]
    fn only_a_collectors_answer_is_believed() {
        let taken = |body: &str| rejected(body.as_bytes()).map(|rejected| rejected.count);
        for good in ["", "{}", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":null}"#, r#"{"other":1}"#] {
            assert_eq!(taken(good), Some(0), "{good}");
        }
        assert_eq!(taken(r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"no"}}"#), Some(3));
        assert_eq!(taken(r#"{"partialSuccess":{"rejectedLogRecords":3}}"#), Some(3));
        for bad in [
            "<html>please log in</html>",
            "[]",
            "7",
            "{",
            r#"{"partialSuccess":{"rejectedLogRecords":"x"}}"#,
            r#"{"partialSuccess":{"rejectedLogRecords":-1}}"#,
            r#"{"partialSuccess":7}"#,
        ] {
            assert_eq!(taken(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_instant_that_cannot_be_written_is_unknown() {
        assert_eq!(nanoseconds(UnixTime::from_millis(-1)), "0");
        assert_eq!(nanoseconds(UnixTime::from_millis(i64::MAX)), "0");
        assert_eq!(nanoseconds(UnixTime::from_millis(1)), "1000000");
    }
}
