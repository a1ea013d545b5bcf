//! Standbys: what a fail-over may lose, and who may not be asked.

use std::sync::Arc;
use std::time::Duration;

use countersign::app::{App, AppError};
use countersign::config::{Config, StoreUrl};
use countersign::store::{self, Migrate, OpenError, Weakness};
use countersign_resource_server::time::SystemClock;
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;
use crate::crash::site::{PATIENCE, Site, readiness};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_requires_a_synchronous_standby_serves_only_while_there_is_one() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut primary = match Cluster::make(directories[0].path()).await {
        Ok(cluster) => cluster,
        Err(why) => return println!("SKIPPED, no PostgreSQL can be started here: {why}"),
    };
    primary.start().await;
    let place = tempfile::tempdir().unwrap();
    // Without being asked to it serves, and warns.
    let site = Site::at(place.path(), &primary.url()).await;
    assert!(matches!(requiring(&site.config).await, Some(AppError::NotSynchronous(Weakness::NoStandby))));

    let mut standby = primary.standby(directories[1].path(), "standby").await;
    standby.start().await;
    for migrate in [Migrate::Apply, Migrate::Check] {
        let refused = store::open(&standby.url(), migrate).await.err();
        assert!(matches!(refused, Some(OpenError::Standby { .. })), "{refused:?}");
    }
    assert!(matches!(requiring(&site.config).await, Some(AppError::NotSynchronous(Weakness::NoStandby))));
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'").await;
    primary.execute("SELECT pg_reload_conf()").await;
    said(&primary, "synchronous_standby_names", "standby").await;
    let site = site.with("COUNTERSIGN_REQUIRE_SYNCHRONOUS", "true");
    let mut server = site.serve();
    server.ready(&site.clock).await;
    let operations = site.addresses().borrow().unwrap().operations;

    // What is noticed by whoever keeps a lease, while nothing fails.
    primary.execute("ALTER SYSTEM RESET synchronous_standby_names").await;
    primary.execute("SELECT pg_reload_conf()").await;
    becomes(operations, 503).await;
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'").await;
    primary.execute("SELECT pg_reload_conf()").await;
    becomes(operations, 200).await;
    assert!(server.said().contains("require_synchronous: synchronous_standby_names is empty"), "{}", server.said());
    server.stop().await;
    standby.stop().await;
    primary.stop().await;
}

/// Why a server that requires it would not start.
async fn requiring(config: &Config) -> Option<AppError> {
    let config = Config { require_synchronous: true, ..config.clone() };
    App::open(config, Arc::new(SystemClock::new())).await.err()
}

/// A connection asks what the server has loaded by now.
async fn said(cluster: &Cluster, setting: &'static str, expected: &str) {
    let waited = timeout(PATIENCE, async {
        while cluster.shows(setting).await != expected {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{setting} is not {expected}");
}

async fn becomes(operations: std::net::SocketAddr, status: u16) {
    let waited = timeout(PATIENCE, async {
        while readiness(operations).await != Some(status) {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "/readyz does not become {status}");
}

#[tokio::test]
async fn the_embedded_store_has_no_standby_to_require() {
    let directory = tempfile::tempdir().unwrap();
    let mistakes = Config::read("require_synchronous = true", directory.path(), []).unwrap_err();
    assert_eq!(mistakes.0[0].place, "require_synchronous");
    let environment = [
        ("COUNTERSIGN_REQUIRE_SYNCHRONOUS".to_owned(), "true".to_owned()),
        ("COUNTERSIGN_STORE".to_owned(), "postgres://a@localhost/b".to_owned()),
    ];
    let config = Config::read("", directory.path(), environment).unwrap();
    assert!(config.require_synchronous && config.store == StoreUrl::parse("postgres://a@localhost/b").unwrap());
    for (text, good) in [("\"true\"", false), ("1", false), ("false", true)] {
        let read = Config::read(&format!("require_synchronous = {text}"), directory.path(), []);
        assert_eq!(read.is_ok(), good, "{text}");
    }
}
