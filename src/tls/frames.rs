//! What comes on an HTTP/2 connection, frame by frame.
//!
//! Takes octets as they are read, says since when a frame or a header block has been waiting for its rest, and whether the
//! peer sends frames for their own sake: hyper answers or drops each of them, at no cost to whoever sends it. It reads no
//! more than frames' headers.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limits;

/// Frames are counted for so long.
const WINDOW: Duration = Duration::from_secs(10);

/// With each request so many may come that ask for nothing: windows and pings.
const BESIDE_A_REQUEST: u32 = 4;

/// Whether the window is over is looked at so often.
const LOOKED_AT_EVERY: u32 = 256;

/// A piece of a body that is smaller than this and not its last is no way to send one.
const SMALL_DATA: usize = 64;

/// Where in the sequence of HTTP/2 frames the stream stands (RFC 9113 §4.1).
#[derive(Debug)]
pub(super) struct Frames {
    header: [u8; 9],
    header_len: usize,
    payload_left: usize,
    /// A HEADERS frame without END_HEADERS came, and its last CONTINUATION did not (RFC 9113 §4.3).
    in_header_block: bool,
    /// Since when a frame or a header block has been waiting for its rest.
    unfinished_since: Option<Instant>,
    counted: Counted,
}

/// What came in the window.
#[derive(Debug)]
struct Counted {
    most: Most,
    since: Instant,
    frames: u32,
    requests: u32,
    idle: u32,
    resets: u32,
    /// Requests, of this window or before, whose body has not ended yet.
    unended: u32,
    /// The highest stream that HEADERS came on, in this window or before: a stream is opened once (RFC 9113 §5.1.1).
    newest: u32,
}

/// How many frames of which kind one connection may send in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    idle: u32,
    resets: u32,
}

impl Most {
    pub(super) const fn of(limits: &Limits) -> Self {
        Self { idle: limits.http2_frames, resets: limits.http2_resets }
    }
}

/// The peer sends more for its own sake than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flood {
    /// Where in what was read a frame ends, the first that is too many or the one before it; none where both ends are elsewhere.
    pub(super) boundary: Option<usize>,
}

/// DATA on stream zero, which whoever reads it has to answer by a GOAWAY (RFC 9113 §6.1).
pub(super) const ILLEGAL: [u8; 9] = [0; 9];

impl Frames {
    const DATA: u8 = 0x0;
    const HEADERS: u8 = 0x1;
    const RST_STREAM: u8 = 0x3;
    const CONTINUATION: u8 = 0x9;
    const END_STREAM: u8 = 0x1;
    const END_HEADERS: u8 = 0x4;

    pub(super) fn new(most: Most, now: Instant) -> Self {
        let counted = Counted { most, since: now, frames: 0, requests: 0, idle: 0, resets: 0, unended: 0, newest: 0 };
        Self { header: [0; 9], header_len: 0, payload_left: 0, in_header_block: false, unfinished_since: None, counted }
    }

    /// Since when a frame or a header block has been waiting for its rest.
    pub(super) const fn unfinished_since(&self) -> Option<Instant> {
        self.unfinished_since
    }

    /// Goes on with what was read by `now`.
    ///
    /// # Errors
    /// [`Flood`].
    pub(super) fn take(&mut self, read: &[u8], now: Instant) -> Result<(), Flood> {
        let mut bytes = read;
        let mut finished_one = false;
        let mut flood: Option<Flood> = None;
        let mut begins_at = None;
        while !bytes.is_empty() {
            if self.payload_left == 0 {
                if self.header_len == 0 {
                    begins_at = Some(read.len() - bytes.len());
                }
                let wanted = (self.header.len() - self.header_len).min(bytes.len());
                self.header[self.header_len..self.header_len + wanted].copy_from_slice(&bytes[..wanted]);
                self.header_len += wanted;
                bytes = &bytes[wanted..];
                if self.header_len < self.header.len() {
                    break;
                }
                let [a, b, c, kind, flags, stream @ ..] = self.header;
                self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if matches!(kind, Self::HEADERS | Self::CONTINUATION) {
                    self.in_header_block = flags & Self::END_HEADERS == 0;
                }
                // Without the reserved bit (RFC 9113 §4.1).
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                if self.counted.add(kind, flags, stream, self.payload_left, now) {
                    flood.get_or_insert(Flood { boundary: begins_at });
                }
            }
            let taken = self.payload_left.min(bytes.len());
            self.payload_left -= taken;
            bytes = &bytes[taken..];
            if self.payload_left == 0 {
                self.header_len = 0;
                finished_one |= !self.in_header_block;
                if let Some(Flood { boundary }) = &mut flood {
                    boundary.get_or_insert(read.len() - bytes.len());
                }
            }
        }
        let unfinished = self.header_len > 0 || self.in_header_block;
        if !unfinished {
            self.unfinished_since = None;
        } else if finished_one || self.unfinished_since.is_none() {
            self.unfinished_since = Some(now);
        }
        flood.map_or(Ok(()), Err)
    }
}

impl Counted {
    /// Whether that was one too many.
    fn add(&mut self, kind: u8, flags: u8, stream: u32, length: usize, now: Instant) -> bool {
        let ends = matches!(kind, Frames::DATA | Frames::HEADERS) && flags & Frames::END_STREAM != 0;
        match kind {
            // On a stream that was there before they are trailers, which ask for nothing.
            Frames::HEADERS if stream > self.newest => {
                self.requests += 1;
                self.unended = self.unended.saturating_add(1);
                self.newest = stream;
            }
            Frames::DATA if length >= SMALL_DATA => {}
            // A body ends once. More of them are dropped on a stream that was reset, and nobody else counts them.
            Frames::DATA if ends && self.unended > 0 => {}
            Frames::RST_STREAM => {
                self.resets += 1;
                self.idle += 1;
            }
            // SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, trailers, what is small, and whatever else there may be.
            _ => self.idle += 1,
        }
        if ends {
            self.unended = self.unended.saturating_sub(1);
        }
        self.frames += 1;
        // Half of the requests may be taken back: a client that does not wait any longer does so.
        let is_flood = self.idle > self.most.idle.saturating_add(self.requests.saturating_mul(BESIDE_A_REQUEST))
            || self.resets > self.most.resets.saturating_add(self.requests / 2);
        if !is_flood && self.frames < LOOKED_AT_EVERY {
            return false;
        }
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self { since: now, frames: 0, requests: 0, idle: 0, resets: 0, ..*self };
            return false;
        }
        self.frames = 0;
        is_flood
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    const DATA: u8 = 0x0;
    const HEADERS: u8 = 0x1;
    const RST_STREAM: u8 = 0x3;
    const SETTINGS: u8 = 0x4;
    const PING: u8 = 0x6;
    const WINDOW_UPDATE: u8 = 0x8;
    const CONTINUATION: u8 = 0x9;
    const END_HEADERS: u8 = 0x4;
    const END_STREAM: u8 = 0x1;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    fn frames() -> Frames {
        Frames::new(Most { idle: 100, resets: 10 }, *START)
    }

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        frame.resize(9 + length, 0);
        frame
    }

    /// HEADERS of a stream that was opened before.
    fn trailers() -> Vec<u8> {
        let mut frame = frame(HEADERS, END_HEADERS | END_STREAM, 10);
        frame[8] = 0;
        frame
    }

    /// These frames with all that is on stream 1 on new ones: each HEADERS opens the next.
    fn on_new_streams(frames: &Frames, sent: &[u8]) -> Vec<u8> {
        let (mut sent, mut at, mut stream) = (sent.to_vec(), 0, frames.counted.newest);
        while at < sent.len() {
            let length = usize::from(sent[at + 2]);
            if sent[at + 3] == HEADERS && sent[at + 8] == 1 {
                stream = (stream + 1) | 1;
            }
            sent[at + 5..at + 9].copy_from_slice(&stream.to_be_bytes());
            at += 9 + length;
        }
        sent
    }

    /// How many of these come before there is one too many.
    fn tolerated(frames: &mut Frames, sent: &[u8], now: Instant) -> usize {
        (0..10_000).take_while(|_| frames.take(&on_new_streams(frames, sent), now).is_ok()).count()
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let sent: &[&[u8]] = &[
            &[0, 0, 0, 4, 0, 0, 0, 0, 0],             // SETTINGS
            &[0, 0, 2, 1, 4, 0, 0, 0, 1, 0x82, 0x86], // HEADERS, END_HEADERS
            &[0, 0, 1, 1, 0, 0, 0, 0, 3, 0x82],       // HEADERS
            &[0, 0, 1, 9, 4, 0, 0, 0, 3, 0x86],       // CONTINUATION, END_HEADERS
            &[0, 0, 3, 0, 1, 0, 0, 0, 1, 1, 2, 3],    // DATA
        ];
        let bytes = sent.concat();
        let ends: Vec<usize> = sent
            .iter()
            .scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            })
            .collect();
        for cut in 0..=bytes.len() {
            let mut state = frames();
            state.take(&bytes[..cut], *START).unwrap();
            let whole = cut == 0 || (ends.contains(&cut) && cut != ends[2]);
            assert_eq!(state.unfinished_since.is_none(), whole, "{cut}");
            state.take(&bytes[cut..], *START).unwrap();
            assert!(state.unfinished_since.is_none(), "{cut}");
        }
    }

    #[test]
    fn frames_that_ask_for_nothing_are_counted_whatever_they_are() {
        for (kind, flags, length) in [
            (SETTINGS, 0, 0),
            (SETTINGS, 1, 0),
            (PING, 0, 8),
            (WINDOW_UPDATE, 0, 4),
            (DATA, 0, 0),
            (DATA, 0, SMALL_DATA - 1),
            (DATA, END_STREAM, 0),
            (DATA, END_STREAM, SMALL_DATA - 1),
            (CONTINUATION, END_HEADERS, 0),
            (CONTINUATION, 0, 16),
            (0x2, 0, 5),
            (0x10, 0, 5),
            (0xff, 0xff, 0),
        ] {
            assert_eq!(tolerated(&mut frames(), &frame(kind, flags, length), *START), 100, "{kind:#x}");
        }
    }

    #[test]
    fn requests_and_their_bodies_are_never_too_many() {
        let mut frames = frames();
        let request = [
            frame(HEADERS, END_HEADERS, 100),
            frame(DATA, 0, SMALL_DATA),
            frame(DATA, END_STREAM, 0),
            frame(WINDOW_UPDATE, 0, 4),
            frame(WINDOW_UPDATE, 0, 4),
            frame(PING, 0, 8),
            frame(SETTINGS, 1, 0),
        ]
        .concat();
        assert_eq!(tolerated(&mut frames, &request, *START), 10_000);
    }

    #[test]
    fn a_body_ends_once_also_where_it_began_in_an_earlier_window() {
        let begun = frame(HEADERS, END_HEADERS, 100);
        let end = frame(DATA, END_STREAM, 0);
        let mut frames = frames();
        for _ in 0..500 {
            frames.take(&on_new_streams(&frames, &begun), *START).unwrap();
        }
        let later = *START + WINDOW;
        // It is looked whether the window is over.
        for _ in 0..LOOKED_AT_EVERY {
            frames.take(&frame(DATA, 0, SMALL_DATA), later).unwrap();
        }
        assert_eq!(frames.counted.requests, 0, "another window");
        assert_eq!(tolerated(&mut frames, &end, later), 500 + 100);
    }

    #[test]
    fn half_of_the_requests_may_be_taken_back() {
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 100);
        let back = frame(RST_STREAM, 0, 4);
        let half = [request.clone(), request.clone(), back.clone()].concat();
        assert_eq!(tolerated(&mut frames(), &half, *START), 10_000);
        let all = [request, back.clone()].concat();
        assert_eq!(tolerated(&mut frames(), &all, *START), 20, "and ten more");
        assert_eq!(tolerated(&mut frames(), &back, *START), 10);
    }

    #[test]
    fn trailers_ask_for_nothing() {
        assert_eq!(tolerated(&mut frames(), &trailers(), *START), 100);
        // A request may have some.
        let request = [frame(HEADERS, END_HEADERS, 100), trailers()].concat();
        assert_eq!(tolerated(&mut frames(), &request, *START), 10_000);
        // But they allow no more of them to be taken back.
        let back = [request, frame(RST_STREAM, 0, 4)].concat();
        assert_eq!(tolerated(&mut frames(), &back, *START), 20);
    }

    #[test]
    fn trailers_of_a_stream_of_an_earlier_window_ask_for_nothing_either() {
        let mut frames = frames();
        frames.take(&on_new_streams(&frames, &frame(HEADERS, END_HEADERS, 100)), *START).unwrap();
        assert_eq!(frames.counted.newest, 1);
        assert!(tolerated(&mut frames, &trailers(), *START) >= 100);
        // The first of the next window is not counted.
        assert_eq!(tolerated(&mut frames, &trailers(), *START + WINDOW), 101);
        // What is said with the reserved bit is no higher stream.
        let mut reserved = trailers();
        (reserved[5], reserved[8]) = (0x80, 1);
        frames.take(&reserved, *START + WINDOW).unwrap_err();
    }

    #[test]
    fn a_window_is_ten_seconds() {
        let ping = frame(PING, 0, 8);
        let mut frames = frames();
        for _ in 0..100 {
            frames.take(&ping, *START).unwrap();
        }
        frames.take(&ping, *START + WINDOW - Duration::from_nanos(1)).unwrap_err();
        frames.take(&ping, *START + WINDOW).expect("counted anew");
        assert_eq!(tolerated(&mut frames, &ping, *START + WINDOW), 100);
    }

    /// What requests allow beside them is not saved up.
    #[test]
    fn an_hour_of_requests_allows_no_more_than_the_last_window() {
        let (mut frames, request) = (frames(), frame(HEADERS, END_HEADERS | END_STREAM, 10));
        for second in 0..3_600 {
            for _ in 0..30 {
                frames.take(&on_new_streams(&frames, &request), *START + Duration::from_secs(second)).unwrap();
            }
        }
        let end = *START + Duration::from_secs(3_600);
        assert!(tolerated(&mut frames, &frame(PING, 0, 8), end) <= 100 + 4 * 30 * 20);
    }

    #[test]
    fn they_are_counted_however_they_are_cut() {
        let flood: Vec<u8> = (0..200).flat_map(|_| frame(PING, 0, 8)).collect();
        for size in [1, 2, 3, 8, 9, 10, 17, 100, 3_399, 3_400] {
            let mut frames = frames();
            let pieces = flood.chunks(size).take_while(|piece| frames.take(piece, *START).is_ok());
            let read: usize = pieces.map(<[u8]>::len).sum();
            assert!(read <= 101 * 17, "{read} octets in pieces of {size}");
            assert!(read + size >= 100 * 17 + 9, "{read} octets in pieces of {size}");
        }
    }

    #[test]
    fn a_flood_can_be_ended_where_a_frame_ends() {
        let flood: Vec<u8> = (0..102).flat_map(|_| frame(PING, 0, 8)).collect();
        let last = 100 * 17; // where the first begins that is too many
        for cut in 0..=flood.len() {
            let mut frames = frames();
            let found = match frames.take(&flood[..cut], *START) {
                Err(Flood { boundary }) => boundary,
                Ok(()) => frames.take(&flood[cut..], *START).unwrap_err().boundary.map(|boundary| cut + boundary),
            };
            // Where its header is cut, behind it.
            let is_cut = (last + 1..last + 9).contains(&cut);
            assert_eq!(found, Some(if is_cut { last + 17 } else { last }), "{cut}");
        }
        let mut frames = frames();
        frames.take(&flood[..last + 8], *START).unwrap();
        assert_eq!(frames.take(&flood[last + 8..last + 16], *START), Err(Flood { boundary: None }));
    }
}
