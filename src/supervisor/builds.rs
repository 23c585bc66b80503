//! Placeholder with the contract's signatures: a build that only says what it was given. Replaced at the merge.
#![forbid(unsafe_code)]

use crate::domain::actor::Actor;
use crate::domain::app::App;
use crate::domain::build::{Build, BuildId, BuildStatus};
use crate::logs::{OutputReader, OutputWriter, Outputs};
use crate::store::{self, Store, StoreError};
use jiff::Timestamp;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use uuid::Uuid;

#[derive(Clone, Debug)]
pub enum Source {
    Archive(PathBuf),
    Last,
}

#[derive(Clone, Debug)]
pub struct BuildRequest {
    pub app: App,
    pub actor: Actor,
    pub source: Source,
    pub version: Option<String>,
    pub buildpacks: Vec<String>,
    pub commit: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("there is no source yet to build again; push or deploy first")]
    NoSource,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("can't keep the source")]
    Io(#[from] std::io::Error),
}

#[derive(Clone, Debug)]
pub struct Builder {
    store: Store,
    outputs: Outputs,
    running: Arc<Mutex<HashMap<BuildId, OutputWriter>>>,
}

impl Builder {
    pub(super) fn placeholder(store: Store, outputs: Outputs) -> Self {
        Self { store, outputs, running: Arc::default() }
    }

    pub async fn submit(&self, request: BuildRequest) -> Result<Build, BuildError> {
        let Source::Archive(path) = &request.source else { return Err(BuildError::NoSource) };
        let bytes = std::fs::read(path)?;
        std::fs::remove_file(path)?;
        let now = Timestamp::now();
        let build = Build {
            id: BuildId(Uuid::new_v4()),
            app: request.app.id,
            actor: request.actor,
            status: BuildStatus::Pending,
            source_version: request.version,
            buildpacks: request.buildpacks,
            stack: request.app.stack,
            created_at: now,
            updated_at: now,
        };
        let row = build.clone();
        self.store.write(move |tx| store::builds::insert(tx, &row)).await?;
        let output = self.outputs.create(build.id.0)?;
        output.write(format!("-----> Got {} bytes\n", bytes.len()).as_bytes());
        self.running.lock().unwrap().insert(build.id, output);
        Ok(build)
    }

    pub fn cancel(&self, id: BuildId) -> bool {
        let Some(output) = self.running.lock().unwrap().remove(&id) else { return false };
        output.write(b" !     Build canceled\n");
        output.finish();
        let store = self.store.clone();
        tokio::spawn(async move {
            let status = BuildStatus::Failed { reason: "canceled".into() };
            let settled: Result<bool, StoreError> =
                store.write(move |tx| store::builds::settle(tx, id, &status, Timestamp::now())).await;
            settled.unwrap();
        });
        true
    }

    pub fn output(&self, id: BuildId) -> Option<OutputReader> {
        self.outputs.follow(id.0)
    }
}
