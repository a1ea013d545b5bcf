//! A ClientHello written octet by octet, and the first thing that comes back.
//!
//! Takes the versions and cipher suites to offer, gives what the server chose, or its alert. It computes no key and finishes
//! no handshake, so that it can offer what no library speaks any more (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2).

use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Address;

/// How long a server may take to choose.
const CHOICE: Duration = Duration::from_secs(10);

/// The most that is read for a ServerHello, over however many records it comes.
const HELLO_BYTES: usize = 16 * 1_024;

/// What is offered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Offer {
    /// `1.0` to `1.3`.
    pub(crate) versions: Vec<String>,
    /// By IANA name or as `0x…`.
    pub(crate) ciphers: Vec<String>,
}

impl Offer {
    /// In words.
    pub(crate) fn told(&self) -> String {
        format!("TLS {} with {}", self.versions.join(", "), self.ciphers.join(", "))
    }
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A ServerHello: version and suite as they are on the wire.
    Chosen { version: u16, cipher: u16 },
    /// The description of an alert that ends the connection (RFC 8446 §6), or the connection's end before anything was said.
    Refused(String),
    /// What came was neither a ServerHello nor such an alert: no refusal, for the server may have gone on.
    Unfit(String),
}

impl Heard {
    /// `1.2` and the like.
    pub(crate) fn version(version: u16) -> String {
        match version {
            0x0300 => "SSL 3.0".to_owned(),
            0x0301..=0x0304 => format!("1.{}", version - 0x0301),
            other => format!("{other:#06x}"),
        }
    }

    /// The suite's IANA name, or its number.
    pub(crate) fn cipher(cipher: u16) -> String {
        CIPHERS
            .iter()
            .find(|(_, number)| *number == cipher)
            .map_or_else(|| format!("{cipher:#06x}"), |(name, _)| (*name).to_owned())
    }
}

/// The suites that cases name (the IANA registry of TLS cipher suites).
const CIPHERS: &[(&str, u16)] = &[
    ("TLS_RSA_WITH_NULL_SHA256", 0x003B),
    ("TLS_RSA_WITH_RC4_128_SHA", 0x0005),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", 0x000A),
    ("TLS_RSA_EXPORT_WITH_RC4_40_MD5", 0x0003),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", 0x002F),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", 0x0035),
    ("TLS_RSA_WITH_AES_128_CBC_SHA256", 0x003C),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", 0x009C),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", 0x009D),
    ("TLS_DH_anon_WITH_AES_128_GCM_SHA256", 0x00A6),
    ("TLS_DH_anon_WITH_AES_128_CBC_SHA", 0x0034),
    ("TLS_DHE_RSA_WITH_AES_128_CBC_SHA", 0x0033),
    ("TLS_DHE_RSA_WITH_AES_256_CBC_SHA", 0x0039),
    ("TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", 0x009E),
    ("TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", 0x009F),
    ("TLS_DH_RSA_WITH_AES_128_GCM_SHA256", 0x00A0),
    ("TLS_ECDH_ECDSA_WITH_AES_128_GCM_SHA256", 0xC02D),
    ("TLS_ECDH_RSA_WITH_AES_128_GCM_SHA256", 0xC031),
    ("TLS_ECDHE_ECDSA_WITH_NULL_SHA", 0xC006),
    ("TLS_ECDHE_RSA_WITH_NULL_SHA", 0xC010),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", 0xC007),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", 0xC011),
    ("TLS_ECDHE_ECDSA_WITH_3DES_EDE_CBC_SHA", 0xC008),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", 0xC012),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", 0xC009),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", 0xC00A),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", 0xC013),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", 0xC014),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", 0xC023),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", 0xC027),
    ("TLS_ECDH_anon_WITH_AES_128_CBC_SHA", 0xC018),
    ("TLS_PSK_WITH_AES_128_GCM_SHA256", 0x00A8),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xC02B),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xC02C),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xC02F),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xC030),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xCCA9),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xCCA8),
    ("TLS_AES_128_GCM_SHA256", 0x1301),
    ("TLS_AES_256_GCM_SHA384", 0x1302),
    ("TLS_CHACHA20_POLY1305_SHA256", 0x1303),
];

/// Sends the offer.
///
/// # Errors
/// In words, where nobody can be reached or the offer cannot be written.
pub(crate) async fn greet(address: &Address, offer: &Offer, random: [u8; 32]) -> Result<Heard, String> {
    greet_within(address, offer, random, CHOICE).await
}

async fn greet_within(address: &Address, offer: &Offer, random: [u8; 32], choice: Duration) -> Result<Heard, String> {
    let record = client_hello(&address.host, offer, random)?;
    let mut stream = address.connect().await?;
    let mut read = Vec::new();
    let heard = tokio::time::timeout(choice, listen(&mut stream, &record, &mut read)).await;
    match heard {
        Ok(heard) => Ok(heard),
        Err(_) if read.is_empty() => Err(format!("no ServerHello and no alert within {choice:?}")),
        Err(_) => Ok(Heard::Unfit(format!("neither ServerHello nor refusal within {choice:?}"))),
    }
}

/// Sends the record and reads until something is said.
async fn listen(stream: &mut TcpStream, record: &[u8], read: &mut Vec<u8>) -> Heard {
    if let Err(error) = stream.write_all(record).await {
        return Heard::Refused(error.to_string());
    }
    let mut part = [0; 2_048];
    loop {
        if let Some(heard) = parse(read) {
            return heard;
        }
        let ended = match stream.read(&mut part).await {
            Ok(0) => "the connection was closed".to_owned(),
            Ok(count) => {
                read.extend_from_slice(part.get(..count).unwrap_or_default());
                if read.len() > HELLO_BYTES {
                    return Heard::Unfit("what came was neither ServerHello nor refusal".to_owned());
                }
                continue;
            }
            Err(error) => error.to_string(),
        };
        return if read.is_empty() {
            Heard::Refused(ended)
        } else {
            Heard::Unfit(format!("neither ServerHello nor refusal: {ended}"))
        };
    }
}

/// A TLSPlaintext record with the ClientHello (RFC 8446 §4.1.2, §5.1).
fn client_hello(host: &str, offer: &Offer, random: [u8; 32]) -> Result<Vec<u8>, String> {
    let versions = offer.versions.iter().map(|name| match name.as_str() {
        "1.0" => Ok(0x0301_u16),
        "1.1" => Ok(0x0302),
        "1.2" => Ok(0x0303),
        "1.3" => Ok(0x0304),
        other => Err(format!("no TLS version {other:?}")),
    });
    let mut versions: Vec<u16> = versions.collect::<Result<_, _>>()?;
    versions.sort_unstable_by(|one, other| other.cmp(one));
    let highest = *versions.first().ok_or("a ClientHello without a version")?;
    let ciphers = offer.ciphers.iter().map(|name| {
        let number = name.strip_prefix("0x").and_then(|hex| u16::from_str_radix(hex, 16).ok());
        let named = || CIPHERS.iter().find(|(own, _)| own == name).map(|(_, number)| *number);
        number.or_else(named).ok_or_else(|| format!("no cipher suite {name:?}"))
    });
    let ciphers: Vec<u16> = ciphers.collect::<Result<_, _>>()?;

    let mut extensions = Vec::new();
    let mut extension = |number: u16, content: &[u8]| {
        extensions.extend_from_slice(&number.to_be_bytes());
        extensions.extend(vector(content));
    };
    // RFC 6066 §3: a host name, never an address.
    if host.parse::<std::net::IpAddr>().is_err() && !host.starts_with('[') {
        extension(0, &vector(&[&[0][..], &vector(host.as_bytes())].concat()));
    }
    // RFC 8422 §5.1: x25519, secp256r1, secp384r1; and for the suites of RFC 7919, ffdhe2048 and ffdhe3072.
    extension(10, &vector(&numbers(&[0x001D, 0x0017, 0x0018, 0x0100, 0x0101])));
    extension(11, &[1, 0]);
    // RFC 8446 §4.2.3: ECDSA, Ed25519, PSS, PKCS #1, and SHA-1 for what is old.
    let schemes = [0x0403, 0x0503, 0x0603, 0x0807, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203, 0x0201];
    extension(13, &vector(&numbers(&schemes)));
    // RFC 7627 §5.1: what a server of TLS 1.2 may insist on.
    extension(23, &[]);
    extension(0xFF01, &[0]);
    if highest >= 0x0304 {
        let list = numbers(&versions);
        extension(43, &[&[list.len() as u8][..], &list].concat());
        // RFC 8446 §4.2.8: the base point 9 is a public key of X25519 that any server can go on with.
        let mut share = vec![0x00, 0x1D, 0x00, 0x20, 9];
        share.resize(36, 0);
        extension(51, &vector(&share));
    }

    let mut hello = Vec::new();
    hello.extend_from_slice(&highest.min(0x0303).to_be_bytes());
    hello.extend_from_slice(&random);
    // RFC 8446 §D.4: a session id, as boxes in the middle expect one.
    hello.push(32);
    hello.extend_from_slice(&random);
    hello.extend(vector(&numbers(&ciphers)));
    hello.extend_from_slice(&[1, 0]);
    hello.extend(vector(&extensions));

    let length = u32::try_from(hello.len()).unwrap_or(u32::MAX).to_be_bytes();
    let message = [&[1][..], &length[1..], &hello].concat();
    Ok([&[22, 3, 1][..], &vector(&message)].concat())
}

fn numbers(all: &[u16]) -> Vec<u8> {
    all.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Content behind its length in two octets. Nothing here is longer.
fn vector(content: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    out.extend_from_slice(content);
    out
}

/// What the octets so far say; nothing where more is needed.
fn parse(mut read: &[u8]) -> Option<Heard> {
    let unfit = |why: &str| Some(Heard::Unfit(why.to_owned()));
    // RFC 8446 §5.1: a message may come over several records, or with others in one.
    let mut message = Vec::new();
    loop {
        if !matches!(read.first()?, 21 | 22) || read.get(1).is_some_and(|major| *major != 3) {
            return unfit("what came was not TLS");
        }
        let (head, rest) = read.split_at_checked(5)?;
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        let content = rest.get(..length).unwrap_or(rest);
        match (head[0], content) {
            (21, _) if content.len() < length => return None,
            // RFC 5246 §7.2: after a warning the sender may go on, as after unrecognized_name (RFC 6066 §3); only
            // close_notify (§7.2.1) says that nothing follows.
            (21, [1, description]) if *description != 0 => {}
            // RFC 8446 §6: level and description.
            (21, [_, description]) => return Some(Heard::Refused(described(*description))),
            (21, _) => return unfit("an alert that is none"),
            _ => message.extend_from_slice(content),
        }
        if message.first().is_some_and(|kind| *kind != 2) {
            return unfit("a handshake message that is no ServerHello");
        }
        if let [_, high, middle, low, body @ ..] = message.as_slice() {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            if let Some(body) = body.get(..length) {
                return server_hello(body).or_else(|| unfit("a ServerHello that is none"));
            }
        }
        read = rest.get(length..)?;
    }
}

/// RFC 8446 §4.1.3, RFC 5246 §7.4.1.3.
fn server_hello(body: &[u8]) -> Option<Heard> {
    let mut version = u16::from_be_bytes([*body.first()?, *body.get(1)?]);
    let session = usize::from(*body.get(34)?);
    let rest = body.get(35 + session..)?;
    let cipher = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
    let mut extensions = rest.get(5..).unwrap_or_default();
    while let [one, two, high, low, more @ ..] = extensions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let content = more.get(..length)?;
        // RFC 8446 §4.2.1: what TLS 1.3 chose stands here alone.
        if let ([0, 43], [high, low]) = ([*one, *two], content) {
            version = u16::from_be_bytes([*high, *low]);
        }
        extensions = more.get(length..)?;
    }
    Some(Heard::Chosen { version, cipher })
}

fn described(description: u8) -> String {
    let name = match description {
        0 => "close_notify",
        40 => "handshake_failure",
        47 => "illegal_parameter",
        50 => "decode_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        other => return format!("alert {other}"),
    };
    format!("alert {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(versions: &[&str], ciphers: &[&str]) -> Offer {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Offer { versions: owned(versions), ciphers: owned(ciphers) }
    }

    #[test]
    fn a_hello_is_a_record_of_the_length_it_says() {
        let record = client_hello("as.example", &offer(&["1.3", "1.2"], &["0x1301"]), [7; 32]).unwrap();
        assert_eq!(record[..3], [22, 3, 1]);
        assert_eq!(usize::from(u16::from_be_bytes([record[3], record[4]])), record.len() - 5);
        assert_eq!(record[9..11], [3, 3]);
        let old = client_hello("127.0.0.1", &offer(&["1.0"], &["TLS_RSA_WITH_AES_128_CBC_SHA"]), [7; 32]).unwrap();
        assert_eq!(old[9..11], [3, 1]);
        assert!(client_hello("a", &offer(&["2.0"], &[]), [0; 32]).is_err());
        assert!(client_hello("a", &offer(&["1.2"], &["TLS_NOTHING"]), [0; 32]).is_err());
    }

    /// A ServerHello that chose TLS 1.3, as a message.
    fn hello() -> Vec<u8> {
        let mut hello = vec![2, 0, 0, 46, 3, 3];
        hello.extend([0; 32]);
        hello.extend([0, 0x13, 0x01, 0, 0, 6, 0, 43, 0, 2, 3, 4]);
        hello
    }

    fn record(content: &[u8]) -> Vec<u8> {
        [&[22, 3, 3][..], &vector(content)].concat()
    }

    const CHOSEN: Option<Heard> = Some(Heard::Chosen { version: 0x0304, cipher: 0x1301 });

    #[test]
    fn answers_are_read() {
        let refused = |name: &str| Some(Heard::Refused(format!("alert {name}")));
        assert_eq!(parse(&[21, 3, 3, 0, 2, 2, 70]), refused("protocol_version"));
        assert_eq!(parse(&[21, 3, 3, 0, 2, 2, 40]), refused("handshake_failure"));
        assert_eq!(parse(&[21, 3, 3, 0, 2, 1, 0]), refused("close_notify"));
        let hello = record(&hello());
        assert_eq!(parse(&hello), CHOSEN);
        for octets in [&[][..], &[21], &[21, 3, 3, 0, 2, 2], &[22, 3, 3, 0, 0], &hello[..8], &hello[..20]] {
            assert_eq!(parse(octets), None, "{octets:?}");
        }
    }

    #[test]
    fn a_server_hello_may_share_its_record_be_split_and_follow_a_warning() {
        let hello = hello();
        let certificate = [11, 0, 0, 3, 0, 0, 0];
        assert_eq!(parse(&record(&[&hello[..], &certificate].concat())), CHOSEN);
        for at in 1..hello.len() {
            let (one, other) = hello.split_at(at);
            assert_eq!(parse(&record(one)), None, "{at}");
            assert_eq!(parse(&[record(one), record(other)].concat()), CHOSEN, "{at}");
        }
        // handshake_failure is always fatal (RFC 5246 §7.2.2): one that says it is a warning is believed in that.
        for description in [1, 40, 90, 100, 112, 255] {
            let warning = [21, 3, 3, 0, 2, 1, description];
            assert_eq!(parse(&warning), None, "{description}");
            assert_eq!(parse(&[&warning[..], &warning, &record(&hello)].concat()), CHOSEN, "{description}");
        }
    }

    #[test]
    fn a_warning_is_no_refusal_and_what_follows_it_may_be_one() {
        for end in [[2, 70], [2, 40], [1, 0]] {
            let alerts = [&[21, 3, 1, 0, 2, 1, 40, 21, 3, 1, 0, 2][..], &end].concat();
            assert!(matches!(parse(&alerts), Some(Heard::Refused(_))), "{end:?}");
        }
        let nonsense = [&[21, 3, 1, 0, 2, 1, 40][..], b"HTTP/1.1 400"].concat();
        assert!(matches!(parse(&nonsense), Some(Heard::Unfit(_))));
    }

    #[test]
    fn nonsense_is_no_refusal() {
        let mut cut = hello();
        cut[3] = 20;
        for octets in [
            b"HTTP/1.1 400",
            &[21, 3, 3, 0, 1, 2][..],
            &[21, 3, 3, 0, 3, 2, 70, 0],
            &[22, 2, 0],
            &[22, 3, 3, 0, 1, 9],
            &record(&cut),
        ] {
            assert!(matches!(parse(octets), Some(Heard::Unfit(_))), "{octets:?}");
        }
    }

    /// What is heard, within this time, of a server that writes these octets for any ClientHello, keeps still for so long and
    /// closes.
    async fn heard_within(choice: Duration, octets: &'static [u8], still: Duration) -> Result<Heard, String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _asked = stream.read(&mut [0; 4_096]).await;
            let _gone = stream.write_all(octets).await;
            tokio::time::sleep(still).await;
        });
        let address = Address { host: "localhost".to_owned(), port, path: "/".to_owned() };
        let offer = offer(&["1.0"], &["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        greet_within(&address, &offer, [7; 32], choice).await
    }

    async fn heard_of(octets: &'static [u8]) -> Heard {
        heard_within(CHOICE, octets, Duration::ZERO).await.unwrap()
    }

    #[tokio::test]
    async fn silence_is_no_refusal_whatever_came_before() {
        let silent = async |octets| heard_within(Duration::from_millis(300), octets, CHOICE).await;
        assert!(silent(b"").await.is_err());
        for octets in [&[21, 3, 1, 0, 2, 1, 40][..], &[22, 3, 1, 0, 50, 2, 0]] {
            assert!(matches!(silent(octets).await, Ok(Heard::Unfit(_))), "{octets:?}");
        }
    }

    #[tokio::test]
    async fn an_end_is_a_refusal_only_where_nothing_came_before() {
        assert!(matches!(heard_of(b"").await, Heard::Refused(_)));
        assert!(matches!(heard_of(&[21, 3, 1, 0, 2, 2, 70]).await, Heard::Refused(_)));
        let warning = &[21, 3, 1, 0, 2, 1, 40];
        for octets in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[22, 3, 1, 0, 50, 2, 0], &[22, 3, 1, 0, 0], warning] {
            assert!(matches!(heard_of(octets).await, Heard::Unfit(_)), "{octets:?}");
        }
        // Records without content and without end.
        assert!(matches!(heard_of([[22, 3, 1, 0, 0]; 4_096].as_flattened()).await, Heard::Unfit(_)));
    }
}
