//! Measures what a certificate revocation list costs: loading it (reading, verifying, indexing), the memory that takes at its
//! peak, and asking it on a request.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

#[path = "../machine.rs"]
#[expect(dead_code, reason = "the programme uses the rest of it")]
mod machine;

use std::error::Error;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, Subcommand};
use countersign::pki::crl::{HeldLists, Serial, hold};
use countersign_conformance::crl::{RevocationList, Revoked};
use countersign_conformance::pki::Authority;
use countersign_resource_server::time::UnixTime;
use machine::{PEAK, Process};

type Failure = Box<dyn Error + Send + Sync>;

/// The instant everything is made and judged at.
const NOW: i64 = 1_800_000_000;

/// Makes a list, or measures one: in two processes, so that making it takes none of the memory that is measured.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a list and its issuer's certificate.
    Make {
        /// The directory they go to.
        directory: PathBuf,
        /// How many certificates it revokes.
        #[arg(long, default_value_t = 1_000_000)]
        entries: u64,
    },
    /// Load it and ask it.
    Measure {
        /// The directory they are in.
        directory: PathBuf,
        /// How often it is asked.
        #[arg(long, default_value_t = 1_000_000)]
        lookups: u64,
    },
}

fn main() -> Result<(), Failure> {
    match Arguments::parse().command {
        Command::Make { directory, entries } => make(&directory, entries),
        Command::Measure { directory, lookups } => measure(&directory, lookups),
    }
}

/// Serial numbers as authorities give them: sixteen octets that look random, in no order.
fn serial(number: u64) -> Vec<u8> {
    let mixed = u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes();
    let mut octets = mixed.to_vec();
    if let Some(first) = octets.first_mut() {
        *first = *first & 0x3F | 0x40;
    }
    octets
}

fn make(directory: &std::path::Path, entries: u64) -> Result<(), Failure> {
    let root = Authority::root("Bench Root", NOW);
    let mut list = RevocationList::new(1, NOW);
    list.entries = (0..entries)
        .map(|number| Revoked { serial: serial(number), at: NOW - 60, reason: Some(4), extensions: Vec::new() })
        .collect();
    let der = list.signed_by(&root);
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("list.crl"), &der)?;
    std::fs::write(directory.join("issuer.der"), &root.certificate)?;
    println!("{entries} entries, {} MB", der.len() / 1_000_000);
    Ok(())
}

fn measure(directory: &std::path::Path, lookups: u64) -> Result<(), Failure> {
    let issuer = std::fs::read(directory.join("issuer.der"))?;
    let now = UnixTime::from_seconds(NOW);
    let lists = HeldLists::default();
    let before = peak_kilobytes()?;
    let begun = Instant::now();
    let der = std::fs::read(directory.join("list.crl"))?;
    let key = hold(&lists, &issuer, &der, now)?;
    let loaded = begun.elapsed();
    let peak = peak_kilobytes()?;
    println!("load: {:.2} s, peak memory {} MB ({} MB before)", loaded.as_secs_f64(), peak / 1_000, before / 1_000);
    drop(der);
    for (what, offset) in [("on the list", 0), ("not on the list", 1 << 40)] {
        let serials: Vec<Serial> = (0..lookups).filter_map(|number| Serial::of(&serial(number * 7 + offset))).collect();
        let begun = Instant::now();
        let found = serials.iter().filter(|&&serial| black_box(lists.revokes(&key, serial, now))).count();
        let each = begun.elapsed().as_secs_f64() * 1e6 / lookups.max(1) as f64;
        println!("lookup, {what}: {each:.3} µs each ({found} of {lookups} found)");
    }
    Ok(())
}

/// The most memory this process has held at one time.
fn peak_kilobytes() -> Result<u64, Failure> {
    Ok(Process(std::process::id()).memory(PEAK)? / 1_024)
}
