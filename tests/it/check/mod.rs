//! `/certificate-check` and `certificate explain`: the reason is the one a token request is refused for, told to whom it
//! concerns and to nobody else.

mod audience;

mod bounds;

mod command;

mod same_path;

use countersign_conformance::pki::Credential;
use serde_json::Value;

use crate::rig::{Engine, Rig, Time};
use crate::wire::{Answer, Request};

/// A server whose checks are as good as unlimited, time standing still.
async fn rig_without_bounds() -> Rig {
    rig_on(&Engine::Sqlite).await
}

async fn rig_on(engine: &Engine) -> Rig {
    Rig::configured(engine, Time::Standing, |config| {
        config.limits.certificate_checks_per_address = 1_000_000;
        config.limits.certificate_checks_per_certificate = 1_000_000;
    })
    .await
}

/// `GET /certificate-check` about this client.
fn about(client_id: &str) -> Request {
    Request::get(&format!("/certificate-check?client_id={client_id}"))
}

/// A peer with this credential asks about this client.
async fn check(rig: &Rig, credential: &Credential, client_id: &str) -> Answer {
    let answer = rig.peer(credential).ask(rig.address, &about(client_id)).await.unwrap();
    assert_eq!(answer.status, 200, "{client_id}: {answer}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer
}

/// The first step that was refused: stage and reason.
fn refused(answer: &Value) -> Option<(String, String)> {
    let steps = answer["steps"].as_array()?;
    let step = steps.iter().find(|step| step["outcome"] == "refused")?;
    Some((step["stage"].as_str()?.to_owned(), step["reason"].as_str()?.to_owned()))
}
