//! Writes a file that `countersign registry import` takes: clients of many participants, each with a certificate of its
//! participant's own authority and an entitlement. Keys and certificates of some of the clients are written beside it, for whoever
//! asks for tokens as them.

#![expect(clippy::print_stdout, reason = "what was written is this program's output")]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use countersign_conformance::pki::{AltName, Authority, Name, Template};
use countersign_conformance::{Key, KeyKind};
use countersign_resource_server::time::{Clock, SystemClock};
use serde_json::json;

type Failure = Box<dyn Error + Send + Sync>;

/// How many clients of how many participants.
#[derive(Parser)]
struct Arguments {
    /// The file.
    file: PathBuf,
    /// How many clients.
    #[arg(long, default_value_t = 1_000_000)]
    clients: u64,
    /// How many participants, each with an authority of its own.
    #[arg(long, default_value_t = 1_000)]
    participants: u64,
    /// What ids begin with: files with different ones go into one registry.
    #[arg(long, default_value = "bulk")]
    prefix: String,
    /// A directory for the keys and certificates of the working set: CLIENT.pem and CLIENT.key.
    #[arg(long)]
    keys: Option<PathBuf>,
    /// How many clients that is, spread over all of them.
    #[arg(long, default_value_t = 1_000)]
    working_set: u64,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let now = SystemClock::new().now().as_seconds();
    let mut out = BufWriter::with_capacity(1024 * 1024, File::create(&arguments.file)?);
    let authorities = enter_participants(&arguments, now, &mut out)?;
    // One key pair for all: making a million would measure that.
    let key = Arc::new(Key::generate(KeyKind::P256));
    let every = (arguments.clients / arguments.working_set.max(1)).max(1);
    for number in 0..arguments.clients {
        let participant = number % arguments.participants.max(1);
        let id = format!("{}-c{number}", arguments.prefix);
        let name = format!("{id}.{}", domain(&arguments.prefix, participant));
        let template = Template::client(Name::common(&id), now).with_alt_names([AltName::Dns(name.clone())]);
        let authority = authorities.get(usize::try_from(participant)?).ok_or("no participant")?;
        let credential = authority.issue_for(&template, Arc::clone(&key));
        line(
            &mut out,
            &json!({ "client": {
                "id": id,
                "participant_id": participant_id(&arguments.prefix, participant),
                "token_endpoint_auth_method": "tls_client_auth",
                "tls_client_auth_san_dns": name,
            }}),
        )?;
        let der = STANDARD.encode(credential.certificate());
        line(&mut out, &json!({ "certificate": { "client_id": id, "der": der } }))?;
        line(
            &mut out,
            &json!({ "entitlement": {
                "id": format!("{id}.e"),
                "client_id": id,
                "resource_server_id": format!("{}-api", arguments.prefix),
                "scopes": "read write",
                "reason": "bulk",
            }}),
        )?;
        if let Some(directory) = arguments.keys.as_deref().filter(|_| number % every == 0) {
            write(directory, &format!("{id}.pem"), &credential.chain_pem())?;
            write(directory, &format!("{id}.key"), &credential.key.to_pem())?;
        }
    }
    out.flush()?;
    println!(
        "{} clients of {} participants in {}",
        arguments.clients,
        arguments.participants,
        arguments.file.display()
    );
    Ok(())
}

fn enter_participants(arguments: &Arguments, now: i64, out: &mut impl Write) -> Result<Vec<Authority>, Failure> {
    let mut authorities = Vec::new();
    for number in 0..arguments.participants {
        let id = participant_id(&arguments.prefix, number);
        line(
            out,
            &json!({ "participant": { "id": id, "legal_name": format!("Participant {number}"), "roles": ["supplier"] } }),
        )?;
        let authority = Authority::root(&format!("{id} CA"), now);
        line(
            out,
            &json!({ "anchor": {
                "der": STANDARD.encode(&authority.certificate),
                "owner": id,
                "grants": [{ "participant_id": id, "any": true }],
            }}),
        )?;
        authorities.push(authority);
    }
    let api = format!("{}-api", arguments.prefix);
    let resource = format!("https://{api}.example");
    line(out, &json!({ "resource_server": { "id": api, "resource": resource, "scopes": "read write" } }))?;
    Ok(authorities)
}

fn participant_id(prefix: &str, number: u64) -> String {
    format!("{prefix}-p{number}")
}

fn domain(prefix: &str, number: u64) -> String {
    format!("{prefix}-p{number}.example")
}

fn line(out: &mut impl Write, value: &serde_json::Value) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value)?;
    Ok(out.write_all(b"\n")?)
}

fn write(directory: &Path, name: &str, text: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)?;
    Ok(std::fs::write(directory.join(name), text)?)
}
