//! The commands.

mod anchor;

mod certificate;

mod client;

mod entitlement;

mod history;

mod output;

mod participant;

mod resource_server;

mod session;

pub use session::{Failure, system_user};

use crate::registry::{Page, StoreUnavailable};

/// How many records a command reads at a time.
const PAGE: u32 = 500;

/// All records of a list, page by page.
async fn every<R>(
    mut list: impl AsyncFnMut(Page) -> Result<Vec<R>, StoreUnavailable>,
    id: impl Fn(&R) -> String,
) -> Result<Vec<R>, Failure> {
    let mut all: Vec<R> = Vec::new();
    loop {
        let page = match all.last() {
            Some(last) => Page::after(id(last), PAGE),
            None => Page::first(PAGE),
        };
        let read = list(page).await?;
        if read.is_empty() {
            return Ok(all);
        }
        all.extend(read);
    }
}

fn found<R>(record: Option<R>, kind: &str, id: &impl std::fmt::Display) -> Result<R, Failure> {
    record.ok_or_else(|| format!("there is no {kind} {id}").into())
}
