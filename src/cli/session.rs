//! One command's view of the registry: opened as the configuration names it, with who acts and why.

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use countersign_resource_server::time::{Clock, SystemClock, UnixTime};

use super::output::Output;
use crate::backup::{BackupStore, Standing};
use crate::config::Config;
use crate::expiry::Survey;
use crate::registry::history::{Actor, Explanation};
use crate::registry::{MemorySize, Registry};
use crate::store::{self, Durability, Migrate, Standby, Store};

/// What a command fails with: a sentence for a person.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The registry, opened for one command.
pub(super) struct Session {
    /// The registry.
    pub registry: Arc<Registry>,
    /// What the server is configured to be: the sheets for partners name its URLs.
    pub config: Config,
    /// Where the answer goes.
    pub output: Output,
    /// When the command was given.
    pub now: UnixTime,
    store: Store,
    actor: Actor,
}

impl Session {
    /// Opens the store that `config` names; never creates or migrates it.
    ///
    /// # Errors
    /// The store cannot be opened, or has another schema.
    pub(super) async fn open(config: Config, operator: Option<String>, output: Output) -> Result<Self, Failure> {
        let store = store::open_with(config.store.as_str(), Migrate::Check, config.standby()).await?;
        if let (Standby::Required, Durability::Primary(weakness)) = (config.standby(), store.durability().await?) {
            // There is nothing to wait for, and an emergency goes on: whoever acts in one has to know.
            output.note(&format!(
                "Nobody is served, and a fail-over can lose what this changes: {weakness} (require_synchronous)."
            ))?;
        }
        if store.standing().await? == Standing::Loading {
            return Err(Standing::HALF_FILLED.into());
        }
        let registry = Registry::new(Arc::new(store.clone()), MemorySize::default(), config.node.as_str()).await?;
        let actor = Actor::Operator { system_user: system_user(), stated_name: operator };
        Ok(Self { registry, config, output, now: SystemClock::new().now(), store, actor })
    }

    /// Who, when and why, for the history.
    pub(super) fn explain(&self, why: Option<String>) -> Explanation {
        Explanation { actor: self.actor.clone(), at: self.now, why }
    }

    /// Where everything is.
    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    /// Who gives the command.
    pub(super) const fn actor(&self) -> &Actor {
        &self.actor
    }

    /// What of the registry runs out.
    pub(super) fn survey(&self) -> Survey {
        Survey::new(Arc::clone(&self.registry), Arc::new(self.store.clone()))
    }

    /// Closes the store.
    pub(super) async fn close(self) {
        self.store.close().await;
    }
}

/// The user this process runs as: observed, by its id, which no environment variable can change.
pub fn system_user() -> String {
    let Ok(own) = std::fs::metadata("/proc/self") else { return "unknown".to_owned() };
    let uid = own.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or(uid)
}
