//! What all handlers share.

use std::sync::{Arc, Mutex, PoisonError};

use basalt_controller::Controller;
use basalt_seam::Row;
use tokio::sync::watch;

use super::created::Created;
use super::refusal::Refusal;
use crate::Hooks;

/// What all handlers share.
#[derive(Clone)]
pub(super) struct App {
    pub controller: Controller,
    pub hooks: Hooks,
    /// When releases were recorded.
    pub created: Arc<Mutex<Created>>,
    /// Whether the server is ending: streams end with it.
    pub stopping: watch::Receiver<bool>,
}

impl App {
    pub fn new(controller: Controller, hooks: Hooks, stopping: watch::Receiver<bool>) -> Self {
        Self { controller, hooks, created: Arc::default(), stopping }
    }

    /// Reads the journal where blocking is allowed.
    pub async fn rows(&self, after: u64, limit: usize) -> Result<Vec<Row>, Refusal> {
        let controller = self.controller.clone();
        blocking(move || Ok(controller.rows(after, limit)?)).await
    }

    /// Brings what is known of the age of releases up to now, and returns it.
    pub async fn created(&self) -> Result<Created, Refusal> {
        let (controller, created) = (self.controller.clone(), self.created.clone());
        blocking(move || {
            let mut created = created.lock().unwrap_or_else(PoisonError::into_inner);
            created.follow(|after, limit| controller.rows(after, limit))?;
            Ok(created.clone())
        })
        .await
    }
}

/// Runs something that blocks, beside the tasks that must not.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::stopping()),
    }
}
