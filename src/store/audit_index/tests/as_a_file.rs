//! The index as a file beside the store, as a file can be found: damaged, another log's, of an earlier format.

use std::path::PathBuf;

use super::*;

/// The file that is current, and where it is.
fn file(bench: &Bench) -> PathBuf {
    let Engine::Sqlite { path, .. } = &bench.store.engine else { panic!("PostgreSQL has none") };
    let directory = path.parent().unwrap();
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| name.contains("-audit-index-") && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    directory.join(names.remove(0))
}

/// A store that was filled, indexed and closed.
async fn closed() -> Bench {
    let bench = Bench::sqlite().await;
    written(&bench, 130).await;
    indexed(&bench.store).await;
    bench.store.close().await;
    bench
}

/// What a program that is started then finds, at once and when it has indexed.
async fn finds_all(bench: &Bench) {
    let store = open(&bench.url, Migrate::Check).await.unwrap();
    agrees_on_all(&store).await;
    indexed(&store).await;
    agrees_on_all(&store).await;
    assert_eq!(places(&store).await, expected_places(&store).await);
    store.close().await;
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::sqlite().await;
    written(&bench, 10).await;
    indexed(&bench.store).await;
    for companion in ["", "-wal", "-shm"] {
        let mut path = file(&bench).into_os_string();
        path.push(companion);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn a_file_that_was_removed_is_made_again() {
    let bench = closed().await;
    std::fs::remove_file(file(&bench)).unwrap();
    finds_all(&bench).await;
}

#[tokio::test]
async fn a_file_that_was_removed_while_it_was_open_is_made_again() {
    let bench = Bench::sqlite().await;
    written(&bench, 130).await;
    indexed(&bench.store).await;
    std::fs::remove_file(file(&bench)).unwrap();
    agrees_on_all(&bench.store).await;
    indexed(&bench.store).await;
    agrees_on_all(&bench.store).await;
    assert!(file(&bench).exists());
    assert_eq!(places(&bench.store).await, expected_places(&bench.store).await);
}

#[tokio::test]
async fn a_damaged_file_is_replaced() {
    let octets = |bench: &Bench| std::fs::read(file(bench)).unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 6] = [
        ("empty", |octets| octets.clear()),
        ("no database", |octets| octets.fill(b'x')),
        ("cut short", |octets| octets.truncate(octets.len() / 2)),
        ("cut within its first page", |octets| octets.truncate(1_000)),
        ("written over in the middle", |octets| {
            let length = octets.len();
            octets[4_096..length].fill(0xA5);
        }),
        ("zeroes after the first page", |octets| octets[4_096..].fill(0)),
    ];
    for (name, damage) in damages {
        println!("{name}");
        let bench = closed().await;
        let mut damaged = octets(&bench);
        assert!(damaged.len() > 8_192);
        damage(&mut damaged);
        std::fs::write(file(&bench), damaged).unwrap();
        finds_all(&bench).await;
        assert!(octets(&bench).starts_with(b"SQLite format 3\0"));
    }
}

#[tokio::test]
async fn a_file_with_other_tables_is_replaced() {
    let bench = closed().await;
    let path = file(&bench);
    std::fs::remove_file(&path).unwrap();
    let store = open(&bench.url, Migrate::Check).await.unwrap();
    store.standing().await.unwrap();
    on_index(&store, "DROP TABLE audit_index_progress".to_owned()).await;
    on_index(&store, "CREATE TABLE audit_index_progress (number INTEGER)".to_owned()).await;
    store.close().await;
    finds_all(&bench).await;
}

#[tokio::test]
async fn a_file_of_another_log_begins_anew() {
    let (bench, other) = (closed().await, closed().await);
    std::fs::copy(file(&other), file(&bench)).unwrap();
    finds_all(&bench).await;
}

#[tokio::test]
async fn files_of_an_earlier_format_are_removed() {
    let bench = closed().await;
    let old = |companion: &str| PathBuf::from(file(&bench).to_str().unwrap().replace("-3-1", "-2-3") + companion);
    let all = ["", "-wal", "-shm"].map(old);
    for path in &all {
        std::fs::write(path, "of an earlier release").unwrap();
    }
    let store = open(&bench.url, Migrate::Check).await.unwrap();
    store.standing().await.unwrap();
    assert!(!all.iter().any(|path| path.exists()));
    assert_eq!(store.standing().await.unwrap().behind(), 0, "and the current one stays");
    store.close().await;
}

#[tokio::test]
async fn an_older_file_put_back_goes_on_from_there() {
    let bench = closed().await;
    let older = std::fs::read(file(&bench)).unwrap();
    let store = open(&bench.url, Migrate::Check).await.unwrap();
    written_to(&store, 60).await;
    indexed(&store).await;
    store.close().await;
    std::fs::write(file(&bench), older).unwrap();
    finds_all(&bench).await;
}

#[tokio::test]
async fn one_that_is_replaced_is_given_up_by_whoever_has_it_open() {
    let bench = Bench::sqlite().await;
    written(&bench, 60).await;
    indexed(&bench.store).await;
    let another = open(&bench.url, Migrate::Check).await.unwrap();
    let before = another.standing().await.unwrap();
    let Engine::Sqlite { index, .. } = &bench.store.engine else { panic!("SQLite it is") };
    index.replace_damaged().await.unwrap();
    // Both work on the new one now, and the old one is gone.
    assert_eq!(another.standing().await.unwrap().behind(), 60);
    assert_ne!(another.standing().await.unwrap().index, before.index);
    indexed(&another).await;
    assert_eq!(bench.store.standing().await.unwrap().behind(), 0);
    agrees_on_all(&bench.store).await;
    assert!(file(&bench).to_str().unwrap().ends_with("-2"));
    another.close().await;
}
