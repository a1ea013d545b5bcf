//! An operator who changes the registry all the time by commands, and writes down what was acknowledged.
//!
//! Takes the command line of both nodes, gives the changes. It touches no client that asks for tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::Failure;
use crate::clients::LOAD;
use crate::ledger::Change;
use crate::nodes::{CLIENTS, Node, Site};
use crate::population::identity;

/// How long after one command the next is given.
const PAUSE: Duration = Duration::from_millis(150);

/// The longest a command may take.
const LONGEST: Duration = Duration::from_secs(20);

/// An operator at work.
pub(crate) struct Operator {
    over: Arc<AtomicBool>,
    work: JoinHandle<Done>,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) acknowledged: Vec<Change>,
    pub(crate) failed: usize,
}

impl Operator {
    /// Sets one to work.
    pub(crate) fn begin(site: &Site) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let lines = site.nodes.each_ref().map(Node::command_line);
        let whether = Arc::clone(&over);
        let work = tokio::spawn(async move {
            let mut done = Done::default();
            // Two commands on one node, then two on the other: each node suspends, and each reinstates.
            for (step, line) in (0_u32..).zip(lines.iter().flat_map(|line| [line; 2]).cycle()) {
                if whether.load(Ordering::Relaxed) {
                    break;
                }
                let id = identity(LOAD + step / 2 % (CLIENTS - LOAD)).id;
                let (verb, why) = (if step % 2 == 0 { "suspend" } else { "reinstate" }, format!("step {step}"));
                match timeout(LONGEST, line.command(&["client", verb, &id, "--why", &why]).output()).await {
                    Ok(Ok(output)) => match acknowledged(&String::from_utf8_lossy(&output.stdout)) {
                        Some(version) => done.acknowledged.push(Change { version, why }),
                        None => done.failed += 1,
                    },
                    Ok(Err(_)) | Err(_) => done.failed += 1,
                }
                sleep(PAUSE).await;
            }
            done
        });
        Self { over, work }
    }

    /// No more commands are given.
    pub(crate) async fn end(self) -> Result<Done, Failure> {
        self.over.store(true, Ordering::Relaxed);
        Ok(self.work.await?)
    }
}

/// Which version a command said it made.
fn acknowledged(said: &str) -> Option<i64> {
    // What died with it is told after that.
    said.lines().next()?.trim().rsplit_once("registry version ")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::acknowledged;

    #[test]
    fn the_version_that_the_first_line_ends_with() {
        assert_eq!(acknowledged("client a: suspended, registry version 17\n2 tokens of it were revoked\n"), Some(17));
        assert_eq!(acknowledged("client a: suspended, registry version 17"), Some(17));
        for said in ["", "\nregistry version 17", "no such client", "registry version", "registry version 17 or so"] {
            assert_eq!(acknowledged(said), None, "{said:?}");
        }
    }
}
