//! A large ecosystem lives on, in simulated time: the revocation list and what the server remembers stay as they are
//! (issue 5, "a year").
//!
//! `COUNTERSIGN_TEST_DAYS` is how many days, `COUNTERSIGN_TEST_PARTICIPANTS` how many participants there are: 365 and 10,000 are the
//! promise, a few are run where nothing else is asked for. A year is to be run alone: then this process's memory is
//! looked at too.

use std::time::Duration;

use countersign::registry::participant::ParticipantState;
use countersign::registry::{ParticipantId, RegistryVersion};
use sqlx::{AnyConnection, Connection};

use crate::rig::{Engine, Enrolling, Rig, Time, explanation};

/// Of these some are suspended, and as many reinstated.
const REVOCATIONS_A_DAY: usize = 100;

/// A mark lives for the longest life of a token, and what clocks may differ by.
const MARK_LIFETIME: Duration = Duration::from_secs(3_660);

/// How far ahead a node notes that it issues tokens: marks last from there.
const LEASE: Duration = Duration::from_secs(30);

const DAY: Duration = Duration::from_secs(86_400);

fn asked(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |number| number.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_and_the_memory_stay_as_they_are() {
    let (days, participants) = (asked("COUNTERSIGN_TEST_DAYS", 3), asked("COUNTERSIGN_TEST_PARTICIPANTS", 60));
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let enrolling = Enrolling { registry: &rig.app.registry, world: &rig.world };
        for number in 0..participants {
            enrolling.participant(&name(number), ParticipantState::Active).await;
        }
        sqlx::any::install_default_drivers();
        let mut store = AnyConnection::connect(rig.store.as_str()).await.unwrap();
        let step = DAY / u32::try_from(REVOCATIONS_A_DAY).unwrap();
        // What may be alive at one moment, and the one that was made just now.
        let most_marks = usize::try_from(MARK_LIFETIME.as_secs() / step.as_secs()).unwrap() + 1;
        // What was revoked to make the world of these tests is forgotten.
        rig.clock.advance(MARK_LIFETIME + LEASE);
        let (mut longest, mut most_rows, mut memory) = (0, 0, Vec::new());
        for day in 0..days {
            for nth in 0..REVOCATIONS_A_DAY {
                let id = || ParticipantId::parse(&name((day * REVOCATIONS_A_DAY + nth) % participants)).unwrap();
                // The node writes something every now and then, and so says how far its clock has come.
                rig.app.audit.flush().await;
                set(&rig, id(), ParticipantState::Suspended).await;
                rig.app.status.renew().await.unwrap();
                let marks = rig.app.registry.marks(rig.app.clock.now()).await.unwrap().marks;
                assert!((1..=most_marks).contains(&marks.len()), "day {day}: {} marks", marks.len());
                longest = longest.max(rig.app.status.current().compact.len());
                set(&rig, id(), ParticipantState::Active).await;
                rig.clock.advance(step);
            }
            let rows: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM revocation_mark").fetch_one(&mut store).await.unwrap();
            most_rows = most_rows.max(rows);
            memory.push(resident());
        }
        // A day's worth is kept longer, for clocks that are wrong; with what is alive, and of today.
        let most = i64::try_from(REVOCATIONS_A_DAY + 2 * most_marks).unwrap();
        assert!(most_rows <= most, "{most_rows} marks in the store");
        // A mark is 22 letters and a number, signed text is a third longer: a few of them, and the frame.
        assert!(longest < 1_000 + most_marks * 64, "a list of {longest} octets");
        // An hour later nothing is left of any of it.
        rig.clock.advance(MARK_LIFETIME + LEASE);
        assert_eq!(rig.app.registry.marks(rig.app.clock.now()).await.unwrap().marks, []);
        println!(
            "{engine:?}: {days} days, {participants} participants: the list had {longest} octets at most, the store {most_rows} marks; \
             memory after day 1, in the middle, at the end: {:?} MB",
            [0, days / 2, days - 1].map(|day| memory[day] / 1_000)
        );
        if days >= 365 {
            let (early, late) = (memory[30], memory[days - 1]);
            assert!(late < early + early / 4, "memory grew from {early} to {late} kB");
        }
        store.close().await.unwrap();
        rig.stop().await;
    }
}

fn name(number: usize) -> String {
    format!("ecosystem-{number}")
}

async fn set(rig: &Rig, id: ParticipantId, to: ParticipantState) -> RegistryVersion {
    rig.app.registry.set_participant_state(id, to, explanation(rig.app.clock.now())).await.unwrap()
}

/// In kB; this process has both the server and the test in it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
