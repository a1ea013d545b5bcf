//! HTTP/2 used against the server, frame by frame: the connection ends, and everybody else notices nothing.

use std::time::Duration;

use crate::rig::{Engine, Rig, Time};
use crate::wire::{Connection, Tls};

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PRIORITY: u8 = 0x2;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a form to `/token`, or of `GET` of another path (RFC 7541 §6.2.2: literals that nobody indexes).
fn head(path: &str) -> Vec<u8> {
    let literal = |name: &[u8], value: &str| [name, &[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    let method = if path == "/token" { 0x83 } else { 0x82 };
    [
        vec![method, 0x87],
        literal(&[0x04], path),
        literal(&[0x01], "localhost"),
        literal(&[0x0f, 0x10], "application/x-www-form-urlencoded"),
    ]
    .concat()
}

/// The head of a request whose body follows.
fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head("/token"))
}

/// A connection that has said its preface and these settings.
async fn begun(rig: &Rig, settings: &[u8]) -> Connection {
    let peer = rig.peer_with(&rig.world.a_dn.credential, Tls::V1_3, &[b"h2"]);
    let mut connection = peer.connect(rig.address).await.unwrap();
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, settings)[..]].concat();
    connection.send(&preface).await.unwrap();
    connection
}

/// What has come, frame by frame: kind, stream and payload.
struct Frames(Vec<u8>);

impl Frames {
    /// All that comes until the server ends the connection.
    async fn to_the_end(connection: &mut Connection) -> Self {
        let mut octets = Vec::new();
        loop {
            match connection.read_some().await.expect("the server ends the connection") {
                some if some.is_empty() => return Self(octets),
                some => octets.extend(some),
            }
        }
    }

    fn each(&self) -> Vec<(u8, u32, &[u8])> {
        let (mut rest, mut each) = (&self.0[..], Vec::new());
        while let [a, b, c, kind, _, s, t, u, v, behind @ ..] = rest {
            let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            each.push((*kind, u32::from_be_bytes([*s, *t, *u, *v]), payload));
            rest = behind;
        }
        each
    }

    fn count(&self, kind: u8) -> usize {
        self.each().iter().filter(|(own, ..)| *own == kind).count()
    }
}

/// Sends these again and again until the server has ended the connection: whether that came before they were all sent.
async fn ended_by(rig: &Rig, mut piece: impl FnMut(u32) -> Vec<u8>, most: u32) -> bool {
    let mut connection = begun(rig, &[]).await;
    let mut sent = 0;
    while sent < most {
        // Streams are odd (RFC 9113 §5.1.1).
        let pieces: Vec<u8> = (sent..sent + 64).flat_map(|at| piece(at * 2 + 1)).collect();
        sent += 64;
        if connection.send_or_fail(&pieces).await.is_err() {
            break;
        }
    }
    Frames::to_the_end(&mut connection).await;
    let party = &rig.world.a_dn;
    let mut other = rig.peer_with(&party.credential, Tls::V1_3, &[b"h2"]).connect_h2(rig.address).await.unwrap();
    assert_eq!(other.ask(&party.request()).await.unwrap().status, 200, "somebody else");
    sent < most
}

/// So many of anything a server does not have to bear.
const MANY: u32 = 200_000;

async fn rig() -> Rig {
    Rig::on(&Engine::Sqlite, Time::Machine).await
}

/// CVE-2023-44487.
#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_the_connection() {
    let rapid = |stream| {
        let whole = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/token"));
        [whole, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    assert!(ended_by(&rig().await, rapid, MANY).await);
}

/// Each is taken back when the server has begun with it, so that the library's own limit is never met.
async fn taken_back_one_by_one(rig: &Rig, request: impl Fn(u32) -> Vec<u8>, most: u32) -> (u32, Frames) {
    let mut connection = begun(rig, &[]).await;
    let (mut octets, mut taken_back) = (Vec::new(), 0);
    while taken_back < most {
        let stream = taken_back * 2 + 1;
        let back = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        let marked = (u64::MAX - u64::from(taken_back)).to_be_bytes();
        let sent = [request(stream), back, frame(PING, 0, 0, &marked)].concat();
        if connection.send_or_fail(&sent).await.is_err() {
            break;
        }
        while !octets.windows(marked.len()).any(|window| window == marked) {
            match connection.read_some().await.expect("an answer, or the end") {
                some if some.is_empty() => return (taken_back, Frames(octets)),
                some => octets.extend(some),
            }
        }
        taken_back += 1;
    }
    (taken_back, Frames(octets))
}

#[tokio::test]
async fn requests_with_trailers_that_are_taken_back_one_by_one_end_the_connection() {
    let rig = Rig::configured(&Engine::Sqlite, Time::Machine, |config| config.limits.http2_resets = 20).await;
    let with_trailers = |stream| {
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x00\x01x\x01y");
        [request(stream), trailers].concat()
    };
    // Twenty, and half of those that were opened.
    let (taken_back, frames) = taken_back_one_by_one(&rig, with_trailers, 1_000).await;
    assert_eq!(taken_back, 40);
    // It is told so: PROTOCOL_ERROR (RFC 9113 §6.8, §7).
    let told: Vec<_> = frames.each().into_iter().filter(|(kind, ..)| *kind == GOAWAY).collect();
    assert!(matches!(told[..], [(_, 0, [_, _, _, _, 0, 0, 0, 1, ..])]), "{told:?}");
    let whole = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/token"));
    let (taken_back, _) = taken_back_one_by_one(&rig, whole, 1_000).await;
    assert_eq!(taken_back, 40, "without trailers it is the same");
}

/// CVE-2025-8671: the peer sends what the server has to answer by a reset.
#[tokio::test]
async fn requests_that_the_server_is_made_to_take_back_end_the_connection() {
    let made_you = |stream| [request(stream), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat();
    assert!(ended_by(&rig().await, made_you, MANY).await);
}

/// CVE-2024-27316 and its kin.
#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let mut is_first = true;
    let endless = |_| {
        if std::mem::take(&mut is_first) {
            frame(HEADERS, END_STREAM, 1, &head("/token"))
        } else {
            frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y")
        }
    };
    assert!(ended_by(&rig().await, endless, MANY).await);
}

#[tokio::test]
async fn a_head_of_empty_pieces_ends_the_connection() {
    let mut is_first = true;
    let endless = |_| {
        if std::mem::take(&mut is_first) {
            frame(HEADERS, END_STREAM, 1, &head("/token"))
        } else {
            frame(CONTINUATION, 0, 1, &[])
        }
    };
    assert!(ended_by(&rig().await, endless, MANY).await);
}

/// CVE-2019-9515.
#[tokio::test]
async fn settings_without_end_end_the_connection() {
    assert!(ended_by(&rig().await, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), MANY).await);
}

/// CVE-2019-9512.
#[tokio::test]
async fn pings_without_end_end_the_connection() {
    assert!(ended_by(&rig().await, |_| frame(PING, 0, 0, &[7; 8]), MANY).await);
}

/// CVE-2019-9513.
#[tokio::test]
async fn priorities_without_end_end_the_connection() {
    assert!(ended_by(&rig().await, |stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]), MANY).await);
}

#[tokio::test]
async fn windows_without_end_end_the_connection() {
    assert!(ended_by(&rig().await, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), MANY).await);
}

#[tokio::test]
async fn frames_of_no_known_kind_without_end_end_the_connection() {
    assert!(ended_by(&rig().await, |_| frame(0xee, 0, 0, b"unheard of"), MANY).await);
}

/// CVE-2019-9518.
#[tokio::test]
async fn a_body_of_empty_pieces_ends_the_connection() {
    let mut is_first = true;
    let empty = |_| if std::mem::take(&mut is_first) { request(1) } else { frame(DATA, 0, 1, &[]) };
    assert!(ended_by(&rig().await, empty, MANY).await);
}

#[tokio::test]
async fn a_body_in_single_octets_ends_the_connection() {
    let mut is_first = true;
    let single = |_| if std::mem::take(&mut is_first) { request(1) } else { frame(DATA, 0, 1, b"x") };
    assert!(ended_by(&rig().await, single, MANY).await);
}

/// CVE-2019-9517: the peer takes nothing of the answers.
#[tokio::test]
async fn answers_that_are_not_taken_do_not_keep_a_connection_open() {
    let rig = Rig::configured(&Engine::Sqlite, Time::Machine, |config| {
        config.limits.idle = Duration::from_secs(1);
    })
    .await;
    // SETTINGS_INITIAL_WINDOW_SIZE of zero (RFC 9113 §6.5.2).
    let mut connection = begun(&rig, &[0, 4, 0, 0, 0, 0]).await;
    for at in 0..100 {
        connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, at * 2 + 1, &head("/jwks"))).await.unwrap();
    }
    let frames = Frames::to_the_end(&mut connection).await;
    assert_eq!(frames.count(HEADERS), 100, "all were answered");
    assert_eq!(frames.count(DATA), 0, "and none was taken");
}

/// One connection has only so much room for bodies that are not whole yet; what comes in time is served.
#[tokio::test]
async fn bodies_that_are_not_whole_are_bounded_in_all() {
    let rig = Rig::configured(&Engine::Sqlite, Time::Machine, |config| {
        config.limits.http2_body_bytes = 32 * 1024;
        config.limits.body = Duration::from_secs(60);
        config.limits.idle = Duration::from_secs(1);
    })
    .await;
    let mut connection = begun(&rig, &[]).await;
    let form = String::from_utf8(rig.world.a_dn.request().body).unwrap() + "&x=";
    let body = form.clone() + &"x".repeat(16_000 - form.len());
    for stream in [1, 3, 5] {
        connection.send(&request(stream)).await.unwrap();
        connection.send(&frame(DATA, 0, stream, body.as_bytes())).await.unwrap();
    }
    // The third has no room: it is refused, unfinished. Then the others are served.
    let mut octets = Vec::new();
    while !octets.windows(23).any(|window| window == b"temporarily_unavailable") {
        octets.extend(connection.read_some().await.unwrap());
    }
    for stream in [1, 3] {
        connection.send(&frame(DATA, END_STREAM, stream, b"y")).await.unwrap();
    }
    let rest = Frames::to_the_end(&mut connection).await;
    let frames = Frames([octets, rest.0].concat());
    let said = |stream: u32| {
        let each = frames.each();
        let pieces = each.iter().filter(|(kind, of, _)| *kind == DATA && *of == stream);
        String::from_utf8(pieces.flat_map(|(.., payload)| payload.to_vec()).collect()).unwrap()
    };
    assert!(said(1).contains("access_token") && said(3).contains("access_token"), "{} {}", said(1), said(3));
    assert!(said(5).contains("temporarily_unavailable"), "{}", said(5));
}

/// What one body held is there again for the next.
#[tokio::test]
async fn room_for_bodies_is_given_back() {
    let rig =
        Rig::configured(&Engine::Sqlite, Time::Machine, |config| config.limits.http2_body_bytes = 16 * 1024).await;
    let party = &rig.world.a_dn;
    let mut connection = rig.peer_with(&party.credential, Tls::V1_3, &[b"h2"]).connect_h2(rig.address).await.unwrap();
    let mut request = party.request();
    request.body.extend(b"&x=");
    request.body.resize(12_000, b'x');
    for _ in 0..20 {
        assert_eq!(connection.ask(&request).await.unwrap().status, 200);
    }
}
