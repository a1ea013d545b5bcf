//! The disk is full: 503 and no token, memory within bounds; serving again once there is room, by itself.
//!
//! The disk is a tmpfs in a mount namespace of its own, which a user may make as well: the test runs itself again in there,
//! and when that process ends nothing of it is left. A ballast file fills it, and frees it when it is removed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::Clock;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::load::Load;
use super::site::{PATIENCE, Site, readiness};
use super::{eventually, judge, reading};

/// Where the small disk is, for the process that runs on it.
const SMALL_DISK: &str = "COUNTERSIGN_TEST_SMALL_DISK";

/// How long the disk stays full after the first request that was refused for it.
const FULL: Duration = Duration::from_secs(6);

/// Issue 4: serving again within ten seconds.
const AGAIN: Duration = Duration::from_secs(10);

/// How much memory may be taken while nothing can be written: far more than is, far less than piling up would take.
const GROWTH_BYTES: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_tokens_and_room_brings_them_back() {
    if let Ok(disk) = std::env::var(SMALL_DISK) {
        return on_a_small_disk(Path::new(&disk)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let Some(unshare) = unshare(directory.path()).await else { return };
    let itself = std::env::current_exe().unwrap();
    let name = "crash::disk_full::a_full_disk_stops_tokens_and_room_brings_them_back";
    let output = Command::new(unshare[0])
        .args(&unshare[1..])
        .args(["sh", "-c", "mount -t tmpfs -o size=32m,mode=700 tmpfs \"$0\" && exec \"$@\""])
        .args([directory.path(), itself.as_path()])
        .args([name, "--exact", "--nocapture"])
        .env(SMALL_DISK, directory.path())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{}: {complained}", output.status);
    assert!(said.contains("1 passed"), "it was not run");
}

/// How a file system can be mounted here that nobody else sees. Says why, where it cannot.
async fn unshare(directory: &Path) -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["unshare", "--mount"], &["unshare", "--user", "--map-root-user", "--mount"]];
    let mut complaints = Vec::new();
    for way in ways {
        let tried = Command::new(way[0])
            .args(&way[1..])
            .args(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(directory)
            .stdin(Stdio::null())
            .output()
            .await;
        match tried {
            Ok(output) if output.status.success() => return Some(way),
            Ok(output) => complaints.push(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => complaints.push(error.to_string()),
        }
    }
    println!("SKIPPED, no small disk can be mounted here: {}", complaints.join("; "));
    None
}

/// A file that takes all the room there is.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(disk: &Path) -> Self {
        let path = disk.join("ballast");
        let mut file = std::fs::File::create_new(&path).unwrap();
        // The last octet as well.
        for piece in [1 << 20, 1 << 12, 1] {
            let piece = vec![0; piece];
            while file.write_all(&piece).is_ok() {}
        }
        Self(path)
    }

    fn remove(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}

async fn on_a_small_disk(disk: &Path) {
    let site = Arc::new(Site::at(disk, "sqlite:countersign.db").await);
    let mut server = site.serve();
    server.ready(&site.clock).await;
    let operations = site.addresses().borrow().unwrap().operations;
    let load = Load::begin(&site);
    let refused = || load.told().counted("503 temporarily_unavailable");
    eventually("tokens while there is room", || load.told().counted("200") >= 200).await;
    assert_eq!(refused(), 0, "nothing is refused while there is room");

    let before = server.memory();
    let ballast = Ballast::fill(disk);
    eventually("no token once the disk is full", || refused() > 0).await;
    let (tokens, full_since) = (load.told().counted("200"), site.clock.monotonic());
    let (mut most, mut unready) = (0, false);
    while site.clock.monotonic() - full_since < FULL {
        sleep(Duration::from_millis(100)).await;
        most = most.max(server.memory());
        unready |= readiness(operations).await == Some(503);
    }
    println!(
        "full for {FULL:?}: {} answers 503 and {} tokens; memory {} KiB before, {} KiB at most",
        refused(),
        load.told().counted("200") - tokens,
        before >> 10,
        most >> 10
    );
    assert!(unready, "ready, and nothing could be written");
    assert!(most < before + GROWTH_BYTES, "memory is not bounded: {before} before, {most} at most");

    let (freed, at) = (site.clock.now(), site.clock.monotonic());
    ballast.remove();
    let again = timeout(PATIENCE, async {
        while load.told().served_since(freed).is_empty() || readiness(operations).await != Some(200) {
            sleep(Duration::from_millis(5)).await;
        }
        site.clock.monotonic() - at
    });
    let again =
        again.await.unwrap_or_else(|_| panic!("not serving again: {:?}: {}", load.told().counts(), server.said()));
    println!("serving and ready again {again:.0?} after there was room");
    assert!(again <= AGAIN, "not within {AGAIN:?}");
    eventually("everybody is served", || load.told().served_since(freed).len() == 7).await;
    assert!(load.told().counted("connection lost") == 0, "a connection was lost");

    let journal = load.end().await;
    reading::settled(site.store()).await;
    server.stop().await;
    judge(&site, &journal).await;
}
