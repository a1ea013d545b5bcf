//! The resource server's check and the mint's encoding in isolation: what the program `check` beside this one measures.
//!
//! It is a program of its own because its allocator counts. Takes the stage, runs it, gives its figures beside their goals.

use std::process::Command;

use serde_json::Value;

use crate::Failure;
use crate::programme::Stage;
use crate::report::{Goal, Report, Unit};

/// Runs it, or says that it is not there.
pub(crate) fn measure(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let program = std::env::current_exe()?.with_file_name("check");
    if !program.exists() {
        report.remarks.push(format!(
            "the check in isolation is left out: there is no {}; cargo build --release -p countersign-bench makes it",
            program.display()
        ));
        return Ok(());
    }
    stage.say("the resource server's check and the mint's encoding in isolation");
    let rounds = if stage.short { "3" } else { "21" };
    let output = Command::new(program).args(["--json", "--rounds", rounds]).output()?;
    if !output.status.success() {
        return Err(format!("check ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let figures = [
        ("remembered_token_us", "check of a remembered token", Unit::Microseconds, Some(Goal::AtMost(1.0))),
        (
            "remembered_token_allocations",
            "check of a remembered token: allocations",
            Unit::Count,
            Some(Goal::AtMost(0.0)),
        ),
        ("new_token_us", "check of a new token", Unit::Microseconds, None),
        ("new_token_allocations", "check of a new token: allocations", Unit::Count, None),
        (
            "new_token_over_verification",
            "check of a new token over one P-256 verification",
            Unit::Ratio,
            Some(Goal::AtMost(1.15)),
        ),
        ("encoding_us", "claims to compact form", Unit::Microseconds, None),
        (
            "encoding_over_signature",
            "claims to compact form over one ES256 signature",
            Unit::Ratio,
            Some(Goal::AtMost(1.25)),
        ),
        ("verification_us", "one P-256 verification", Unit::Microseconds, None),
        ("signature_us", "one ES256 signature", Unit::Microseconds, None),
    ];
    for (id, name, unit, goal) in figures {
        let value = said.get(id).and_then(Value::as_f64).ok_or_else(|| format!("check does not say {id}"))?;
        report.figure(&format!("check.{id}"), name, value, unit, goal);
    }
    Ok(())
}
