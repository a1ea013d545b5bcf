//! The server in process, real TLS, certificates made in memory.

mod negative;

mod wire;

mod world;

use countersign_resource_server::time::{Clock, SystemClock};

#[test]
fn there_are_at_least_five_hundred_distinct_negative_requests() {
    let cases = negative::cases(&world::World::new(SystemClock::new().now().as_seconds()));
    assert!(cases.len() >= 500, "{}", cases.len());
    println!("{} cases", cases.len());
}
