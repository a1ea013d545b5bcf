//! Measures what a resource server does about a token, and what the mint does to make one, without any network: on one thread,
//! by its own CPU time, in turns with the one cryptographic operation that it cannot do without.
//!
//! A token that was seen before, one that was not, and one P-256 verification; a token from its claims to its compact form, and
//! one ES256 signature of the same octets. Allocations are counted by an allocator that does nothing else.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

#[path = "../machine.rs"]
#[expect(dead_code, reason = "the programme uses the rest of it")]
mod machine;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, ParsedPublicKey,
};
use clap::Parser;
use countersign::mint::Signer;
use countersign_conformance::forge::{Members, Token};
use countersign_conformance::pki::{Authority, Name, Template};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use countersign_resource_server::bearer::Credentials;
use countersign_resource_server::peer::PeerCertificate;
use countersign_resource_server::scope::Scope;
use countersign_resource_server::status::{HeldList, REVOCATION_LIST_TYPE};
use countersign_resource_server::time::{Clock, ManualClock, UnixTime};
use countersign_resource_server::token::access_token::AccessTokens;
use countersign_resource_server::token::claims::{ACCESS_TOKEN_TYPE, AccessTokenClaims};
use countersign_resource_server::token::held_keys::HeldKeys;
use countersign_resource_server::token::jws::SigningAlgorithm;
use countersign_resource_server::verification::{self, Binding, Judgement, Requirement, Revocation};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Uri};
use serde_json::json;

use machine::thread_time;

type Failure = Box<dyn Error + Send + Sync>;

/// When everything happens.
const NOW: i64 = 1_800_000_000;

const ISSUER: &str = "https://as.example";
const RESOURCE: &str = "https://api.example/bank";

/// The check and the mint by themselves.
#[derive(Parser)]
struct Arguments {
    /// Turns; medians are told.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Checks of a remembered token in a turn; a tenth as many of everything else.
    #[arg(long, default_value_t = 10_000)]
    times: usize,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<(), Failure> {
    let Arguments { rounds, times, json } = Arguments::parse();
    let times = times.max(1);
    let few = (times / 10).max(1);
    let bench = Bench::new()?;
    let mut turns = Vec::new();
    for turn in 0..rounds {
        let new = (0..few).map(|number| bench.call(&format!("jti-{turn}-{number}"))).collect::<Result<Vec<_>, _>>()?;
        turns.push([
            bench.verification(few)?,
            bench.checks(&new)?,
            bench.remembered(times)?,
            bench.signature(few)?,
            bench.encoding(few)?,
        ]);
    }
    let of =
        |at: usize| -> Result<f64, Failure> { median(turns.iter().map(|turn| turn[at].as_secs_f64() * 1e6).collect()) };
    let over = |one: usize, other: usize| -> Result<f64, Failure> {
        median(turns.iter().map(|turn| turn[one].as_secs_f64() / turn[other].as_secs_f64()).collect())
    };
    let figures = json!({
        "verification_us": of(0)?,
        "new_token_us": of(1)?,
        "remembered_token_us": of(2)?,
        "signature_us": of(3)?,
        "encoding_us": of(4)?,
        "new_token_over_verification": over(1, 0)?,
        "encoding_over_signature": over(4, 3)?,
        "remembered_token_allocations": bench.allocations(&bench.call("jti-again")?)?.1,
        "new_token_allocations": bench.allocations(&bench.call("jti-counted")?)?.0,
    });
    if json {
        println!("{figures}");
        return Ok(());
    }
    for (name, value) in figures.as_object().into_iter().flatten() {
        println!("{name:30} {:>10.3}", value.as_f64().unwrap_or_default());
    }
    Ok(())
}

/// A guarded API's judgement, a client, and the server's signing hand.
struct Bench {
    judgement: Judgement,
    required: Requirement,
    peer: PeerCertificate,
    thumbprint: String,
    now: UnixTime,
    key: Key,
    pair: EcdsaKeyPair,
    signer: Signer,
    kid: String,
}

/// What comes with one call.
struct Call {
    headers: HeaderMap,
}

impl Bench {
    fn new() -> Result<Self, Failure> {
        let credential =
            Authority::root("Partner CA", NOW).issue(&Template::client(Name::common("client"), NOW), KeyKind::P256);
        let key = Key::generate(KeyKind::P256);
        let signer = Signer::from_pem(SigningAlgorithm::ES256, &key.to_pem())?;
        let kid = signer.kid().to_string();
        let keys = Arc::new(HeldKeys::default());
        keys.take(json!({ "keys": [signer.public_jwk()] }).to_string().as_bytes())?;
        let now = UnixTime::from_seconds(NOW);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(now));
        let list = HeldList::new(ISSUER.to_owned(), Duration::from_secs(30), Arc::clone(&keys), clock);
        let claims = Members::new().with("iss", ISSUER).with("iat", NOW).with("exp", NOW + 60).with("epoch", 1);
        let claims = claims.with("number", 41).with("salt", "pepper").with("marks", json!({}));
        list.take(&compact(REVOCATION_LIST_TYPE, claims, &kid, &key))?;
        Ok(Self {
            judgement: Judgement {
                tokens: AccessTokens::new(ISSUER.to_owned(), RESOURCE.to_owned(), keys, REMEMBERED_BYTES),
                revocations: Arc::new(list),
                introspection: None,
            },
            required: Requirement {
                scope: Scope::parse("accounts:read")?,
                binding: Binding::Required,
                revocation: Revocation::Checked,
            },
            peer: PeerCertificate::parse(credential.certificate())?,
            thumbprint: credential.thumbprint(),
            now,
            pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.pkcs8())?,
            signer,
            kid,
            key,
        })
    }

    /// A call with a good token of this name.
    fn call(&self, jti: &str) -> Result<Call, Failure> {
        let token = compact(ACCESS_TOKEN_TYPE, self.claims(jti), &self.kid, &self.key);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}"))?);
        Ok(Call { headers })
    }

    /// As ours says them.
    fn claims(&self, jti: &str) -> Members {
        Members::new()
            .with("iss", ISSUER)
            .with("sub", "client-1")
            .with("aud", RESOURCE)
            .with("exp", NOW + 300)
            .with("iat", NOW)
            .with("jti", jti)
            .with("client_id", "client-1")
            .with("scope", "accounts:read accounts:write")
            .with("cnf", json!({ "x5t#S256": self.thumbprint }))
            .with("participant_id", "participant-1")
            .with("roles", json!(["bank"]))
            .with("environment", "sandbox")
            .with("anchor", self.kid.as_str())
            .with("registry_version", 41)
    }

    fn check(&self, call: &Call) -> Result<(), Failure> {
        let target = Uri::from_static("/accounts");
        let credentials = Credentials::of(&call.headers, &target);
        let mut shown = None;
        let peer = Some(&self.peer);
        match verification::authorize(&self.judgement, &self.required, peer, &credentials, self.now, &mut shown) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(format!("a good call was refused: {}", refusal.reason()).into()),
        }
    }

    /// Each call once: its token is new.
    fn checks(&self, calls: &[Call]) -> Result<Duration, Failure> {
        let begun = thread_time();
        for call in calls {
            self.check(call)?;
        }
        Ok((thread_time() - begun) / calls.len() as u32)
    }

    /// One call again and again.
    fn remembered(&self, times: usize) -> Result<Duration, Failure> {
        let call = self.call("jti-remembered")?;
        self.check(&call)?;
        let begun = thread_time();
        for _ in 0..times {
            self.check(&call)?;
        }
        Ok((thread_time() - begun) / times as u32)
    }

    /// How many allocations a check makes of a token that is new, and how many when it is remembered.
    fn allocations(&self, call: &Call) -> Result<(u64, u64), Failure> {
        let mut outcome = Ok(());
        let mut counted = || allocation_counter::measure(|| outcome = self.check(call)).count_total;
        let new = counted();
        // What the memory of tokens does once in a while is not a check's own: the least of many is.
        let remembered = (0..100).map(|_| counted()).min().unwrap_or(u64::MAX);
        outcome.map(|()| (new, remembered))
    }

    /// Another signature of another message each time, as with tokens: one and the same again and again is a sixteenth cheaper.
    fn verification(&self, times: usize) -> Result<Duration, Failure> {
        let random = SystemRandom::new();
        let mut signed = Vec::with_capacity(times);
        for number in 0..times {
            let mut message = [0x5A_u8; SIGNED_BYTES];
            message[..size_of::<usize>()].copy_from_slice(&number.to_be_bytes());
            let signature = self.pair.sign(&random, &message)?;
            signed.push((message, signature));
        }
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, signature::KeyPair::public_key(&self.pair).as_ref())?;
        let begun = thread_time();
        for (message, signature) in &signed {
            key.verify_sig(message, signature.as_ref())?;
        }
        Ok((thread_time() - begun) / times as u32)
    }

    fn signature(&self, times: usize) -> Result<Duration, Failure> {
        let (random, message) = (SystemRandom::new(), [0x5A_u8; SIGNED_BYTES]);
        let begun = thread_time();
        for _ in 0..times {
            self.pair.sign(&random, &message)?;
        }
        Ok((thread_time() - begun) / times as u32)
    }

    /// The path of the mint: claims to JSON, JSON to a compact JWS.
    fn encoding(&self, times: usize) -> Result<Duration, Failure> {
        let claims: AccessTokenClaims = serde_json::from_str(&self.claims("jti-minted").to_json())?;
        let begun = thread_time();
        for _ in 0..times {
            let payload = serde_json::to_vec(&claims)?;
            self.signer.sign(ACCESS_TOKEN_TYPE, &payload)?;
        }
        Ok((thread_time() - begun) / times as u32)
    }
}

/// About as many octets as are signed of one of our tokens.
const SIGNED_BYTES: usize = 700;

/// Room for every token of a run.
const REMEMBERED_BYTES: u64 = 256 * 1024 * 1024;

fn compact(typ: &str, claims: Members, kid: &str, key: &Key) -> String {
    let header = Members::new().with("typ", typ).with("alg", "ES256").with("kid", kid);
    Token { header, claims, algorithm: JwsAlgorithm::Es256, key }.compact()
}

fn median(mut values: Vec<f64>) -> Result<f64, Failure> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().ok_or_else(|| "no rounds".into())
}
