//! What a call costs the API that is called: with a token that it has seen before, and with another token each time.
//!
//! Takes the stage, gets tokens from the server first, then calls the example API on kept connections and counts its CPU time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use serde_json::{Value, json};

use crate::Failure;
use crate::guarded;
use crate::load::{Measured, Target};
use crate::machine::PEAK;
use crate::programme::Stage;
use crate::report::{Report, Unit, median};
use crate::site::Server;
use crate::tokens::{AT_ONCE, MEGABYTE, SMALL};
use crate::wire::Line;

/// Tokens for each caller and each second of a measurement with new ones.
const NEW_TOKENS: f64 = 600.0;

/// How long the API may take until it has keys and a list.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client on a kept connection to the API, with what it will ask.
struct Caller {
    line: Line,
    calls: Vec<Vec<u8>>,
}

/// Measures all of it.
pub(crate) fn measure(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let site = stage.site(SMALL)?;
    let authorization = site.serve()?;
    let target = site.target(&authorization);
    let (api, address) = guarded::start(&stage.population, site.issuer(), &stage.log("guarded"))?;
    until_ready(stage, &target, address)?;
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for number in 1..=stage.rounds {
        stage.say(&format!("calls with the same token, {number} of {}", stage.rounds));
        warm.push(call(stage, callers(stage, &target, address, 1)?, &api, true)?);
        stage.say(&format!("calls with a new token each, {number} of {}", stage.rounds));
        let tokens = (NEW_TOKENS * stage.length.as_secs_f64()).ceil() as usize;
        cold.push(call(stage, callers(stage, &target, address, tokens)?, &api, false)?);
    }
    for (id, name, rounds) in [("warm", "the same token", &warm), ("cold", "a new token each", &cold)] {
        let of = |value: &dyn Fn(&Measured) -> f64| median(rounds.iter().map(value).collect()).unwrap_or_default();
        let figures = [
            ("cpu_us", "the API's CPU a call", of(&|round| round.cpu_of_one() * 1e6), Unit::Microseconds),
            ("per_second", "calls a second", of(&Measured::rate), Unit::PerSecond),
            ("p50", "p50", of(&|round| round.quantile(0.5).as_secs_f64() * 1e3), Unit::Milliseconds),
            ("p99", "p99", of(&|round| round.quantile(0.99).as_secs_f64() * 1e3), Unit::Milliseconds),
        ];
        for (what, text, value, unit) in figures {
            report.figure(&format!("resource.{id}.{what}"), &format!("guarded API, {name}: {text}"), value, unit, None);
        }
        for round in rounds {
            report.round(json!({
                "part": format!("resource.{id}"),
                "calls": round.tokens(),
                "calls_per_second": round.rate(),
                "api_cpu_us_per_call": round.cpu_of_one() * 1e6,
            }));
        }
    }
    let peak = api.process().memory(PEAK)? as f64 / MEGABYTE;
    report.figure("resource.peak", "guarded API: peak memory", peak, Unit::Megabytes, None);
    authorization.stop()
}

/// So many callers, each with so many tokens of its own.
fn callers(stage: &Stage, target: &Target, api: SocketAddr, tokens: usize) -> Result<Vec<Caller>, Failure> {
    std::thread::scope(|scope| {
        let getting: Vec<_> =
            (0..AT_ONCE).map(|client| scope.spawn(move || caller(stage, target, api, client, tokens))).collect();
        getting.into_iter().map(|worker| worker.join().map_err(|_| "a worker panicked")?).collect()
    })
}

fn caller(stage: &Stage, target: &Target, api: SocketAddr, client: u32, tokens: usize) -> Result<Caller, Failure> {
    let config = stage.population.caller(client, Resumption::disabled())?;
    let address = target.addresses.first().ok_or("a target without an address")?;
    let mut line = Line::open(*address, config.clone().into())?;
    let request = target.request(client);
    let mut calls = Vec::with_capacity(tokens);
    for _ in 0..tokens {
        let answer = line.ask(&request)?;
        let body: Value = serde_json::from_slice(answer.body)?;
        let token = body.get("access_token").and_then(Value::as_str).ok_or("no token came")?;
        calls.push(format!("GET /accounts HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"));
    }
    line.close();
    Ok(Caller { line: Line::open(api, config.into())?, calls: calls.into_iter().map(String::into_bytes).collect() })
}

/// The API refuses with 503 until it has keys and a list: that is waited for, and nothing else.
fn until_ready(stage: &Stage, target: &Target, api: SocketAddr) -> Result<(), Failure> {
    let Caller { mut line, calls } = caller(stage, target, api, 0, 1)?;
    let call = calls.first().ok_or("no call")?;
    let begun = Instant::now();
    loop {
        match line.ask(call)?.status {
            200 => return Ok(()),
            503 if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            status => return Err(format!("the guarded API answered {status}").into()),
        }
    }
}

/// All callers at once, until the time is over or one has no calls left. The first call of each is not counted: a handshake
/// comes with it.
fn call(stage: &Stage, callers: Vec<Caller>, api: &Server, again: bool) -> Result<Measured, Failure> {
    let mut ready = Vec::new();
    for mut caller in callers {
        let first = if again { caller.calls.first().cloned() } else { caller.calls.pop() };
        permitted(&mut caller.line, &first.ok_or("no call")?)?;
        ready.push(caller);
    }
    let cpu_before = api.process().cpu_time()?;
    let start = Instant::now();
    let end = start + stage.length;
    let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
        let calling: Vec<_> = ready
            .into_iter()
            .map(|Caller { mut line, calls }| {
                scope.spawn(move || {
                    let mut latencies = Vec::new();
                    let turns = if again { usize::MAX } else { calls.len() };
                    for call in calls.iter().cycle().take(turns) {
                        let begun = Instant::now();
                        if begun >= end {
                            break;
                        }
                        permitted(&mut line, call)?;
                        latencies.push(begun.elapsed());
                    }
                    line.close();
                    Ok::<_, Failure>(latencies)
                })
            })
            .collect();
        let mut all = Vec::new();
        for worker in calling {
            all.extend(worker.join().map_err(|_| "a worker panicked")??);
        }
        Ok::<_, Failure>(all)
    })?;
    let (wall, cpu) = (start.elapsed(), api.process().cpu_time()?.saturating_sub(cpu_before));
    latencies.sort_unstable();
    Ok(Measured { wall, cpu, cpu_beside: Duration::ZERO, latencies })
}

fn permitted(line: &mut Line, call: &[u8]) -> Result<(), Failure> {
    match line.ask(call)?.status {
        200 => Ok(()),
        status => Err(format!("the guarded API answered {status}").into()),
    }
}
