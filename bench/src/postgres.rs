//! Two nodes on one PostgreSQL beside one node on SQLite, in turn.
//!
//! Takes the stage and a server's URL, makes a database of its own there and drops it again, gives tokens per CPU second of both
//! nodes together as a share of the SQLite node's, and the database's own CPU time for a thousand tokens.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::Failure;
use crate::load::{Load, Manner, Pace, Target};
use crate::machine::Process;
use crate::programme::Stage;
use crate::report::{Goal, Report, Unit, median};
use crate::tokens::{AT_ONCE, Round, SMALL, round};

/// Measures it, where there is a database.
pub(crate) fn measure(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let Some(url) = &stage.postgres else {
        report.remarks.push("PostgreSQL is left out: --postgres or COUNTERSIGN_TEST_POSTGRES names none".to_owned());
        return Ok(());
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let name = format!("countersign_bench_{}", std::process::id());
    let store = of_database(url, &name)?;
    let postmaster = runtime.block_on(create(url, &name))?;
    let measured = compare(stage, report, &store, postmaster);
    runtime.block_on(drop_database(url, &name))?;
    measured
}

fn compare(stage: &Stage, report: &mut Report, store: &str, postmaster: Option<Process>) -> Result<(), Failure> {
    let sqlite = stage.site(SMALL)?;
    let sqlite_server = sqlite.serve()?;
    let (first, second) = stage.nodes(SMALL, store)?;
    let (first_server, second_server) = (first.serve()?, second.serve()?);
    let one = sqlite.target(&sqlite_server);
    let two = Target {
        name: "two nodes on PostgreSQL",
        addresses: vec![first.address, second.address],
        processes: vec![first_server.process(), second_server.process()],
        beside: postmaster,
        ..first.target(&first_server)
    };
    if postmaster.is_none() {
        report.remarks.push("the database's CPU time is left out: its processes are not on this machine".to_owned());
    }
    let load =
        Load { manner: Manner::Kept, pace: Pace::Saturated, at_once: AT_ONCE, clients: AT_ONCE, length: stage.length };
    let (mut on_one, mut on_two, mut database): (Vec<Round>, Vec<Round>, Vec<f64>) = Default::default();
    for number in 1..=stage.rounds {
        stage.say(&format!("one node on SQLite, {number} of {}", stage.rounds));
        on_one.push(round(stage, report, "postgres", &one, &load)?);
        stage.say(&format!("two nodes on PostgreSQL, {number} of {}", stage.rounds));
        let measured = round(stage, report, "postgres", &two, &load)?;
        database.push(measured.measured.cpu_beside.as_secs_f64() / measured.measured.tokens() as f64);
        on_two.push(measured);
    }
    let of = |rounds: &[Round]| median(rounds.iter().map(Round::per_cpu_second).collect()).unwrap_or_default();
    report.figure(
        "postgres.one",
        "one node on SQLite: tokens per server CPU second",
        of(&on_one),
        Unit::PerSecond,
        None,
    );
    let name = "two nodes on PostgreSQL: tokens per server CPU second";
    report.figure("postgres.two", name, of(&on_two), Unit::PerSecond, None);
    let shares = on_two.iter().zip(&on_one).map(|(two, one)| two.per_cpu_second() / one.per_cpu_second());
    report.figure(
        "postgres.share",
        "two nodes on PostgreSQL over one on SQLite",
        median(shares.collect()).unwrap_or_default(),
        Unit::Ratio,
        Some(Goal::AtLeast(0.8)),
    );
    if postmaster.is_some() {
        let each = median(database).unwrap_or_default() * 1e6;
        report.figure("postgres.database_us", "the database's own CPU a token", each, Unit::Microseconds, None);
    }
    first_server.stop()?;
    second_server.stop()?;
    sqlite_server.stop()
}

/// A new database, and the server's first process where it runs on this machine.
async fn create(url: &str, name: &str) -> Result<Option<Process>, Failure> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
    let (backend,): (i32,) = sqlx::query_as("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
    let backend = Process(u32::try_from(backend)?);
    let postmaster = backend.parent().ok().filter(|_| backend.name().is_ok_and(|name| name == "postgres"));
    connection.close().await?;
    Ok(postmaster)
}

async fn drop_database(url: &str, name: &str) -> Result<(), Failure> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
    Ok(connection.close().await?)
}

/// The URL of another database of the same server.
fn of_database(url: &str, name: &str) -> Result<String, Failure> {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let named = base.rsplit_once('/').filter(|(server, _)| !server.ends_with(":/"));
    let (server, _) = named.ok_or("a PostgreSQL URL without a database")?;
    let made = format!("{server}/{name}{query}");
    // What the query says of it goes before the path, in any spelling: everything would be written into that one.
    if made.parse::<PgConnectOptions>()?.get_database() != Some(name) {
        return Err("a PostgreSQL URL has to name its database in its path here, not by dbname".into());
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_server_or_none() {
        let of = |url| of_database(url, "own").ok();
        assert_eq!(of("postgres://u@h:1/db?sslmode=disable").as_deref(), Some("postgres://u@h:1/own?sslmode=disable"));
        assert_eq!(of("postgres:///db?host=/run/pg").as_deref(), Some("postgres:///own?host=/run/pg"));
        for url in ["postgres://h", "postgres://h/db?dbname=theirs", "postgres://h/db?db%6Eame=theirs", "nothing"] {
            assert_eq!(of(url), None, "{url}");
        }
    }
}
