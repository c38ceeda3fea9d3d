//! The handle on a running control loop.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use basalt_model::{Digest, Name};
use basalt_plan::{Desired, Plan};
use basalt_rollout::Command;
use basalt_seam::{Backend, Clock, Depot, Journal, Router, Row, Secrets};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::heart::{Heart, Request};
use crate::{ControllerError, View};

/// What a controller is made of.
pub struct Parts {
    /// Where events are appended.
    pub journal: Box<dyn Journal>,
    /// The same journal, for reading beside the loop.
    pub reader: Box<dyn Journal>,
    /// Where instances live.
    pub backend: Arc<dyn Backend>,
    /// What carries requests.
    pub router: Arc<dyn Router>,
    /// Where images are.
    pub depot: Arc<dyn Depot>,
    /// Where secrets are.
    pub secrets: Arc<dyn Secrets>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The virtual address of the service in a slot.
    pub address: Box<dyn Fn(u16) -> Ipv4Addr + Send + Sync>,
    /// Notified by the adapters when what they see has changed.
    pub wake: Arc<Notify>,
}

/// The handle on a running control loop. Clones are handles on the same loop.
#[derive(Clone)]
pub struct Controller {
    requests: mpsc::Sender<Request>,
    view: watch::Receiver<Arc<View>>,
    reader: Arc<Mutex<Box<dyn Journal>>>,
}

/// Requests waiting for the loop: more than people send at once, and a bound all the same.
const REQUESTS: usize = 64;

impl Controller {
    /// Folds the journal and starts the loop on the current tokio runtime.
    ///
    /// # Errors
    /// If the journal can't be read or does not fit itself.
    pub fn start(parts: Parts) -> Result<Self, ControllerError> {
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (publish, view) = watch::channel(Arc::new(View::default()));
        let Parts { journal, reader, backend, router, depot, secrets, clock, address, wake } = parts;
        let heart = Heart::recover(journal, backend, router, depot, secrets, clock, address, publish)?;
        tokio::spawn(heart.run(inbox, wake));
        Ok(Self { requests, view, reader: Arc::new(Mutex::new(reader)) })
    }

    /// Returns what is recorded and seen now.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Returns a receiver that is told of every new view.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Returns rows of the journal after a number, at most `limit`.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn rows(&self, after: u64, limit: usize) -> Result<Vec<Row>, ControllerError> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(reader.read(after, limit)?)
    }

    /// Compares a desired stack with what is recorded.
    ///
    /// # Errors
    /// If they can't be compared.
    pub async fn plan(&self, desired: Desired) -> Result<Plan, ControllerError> {
        self.ask(|reply| Request::Plan { desired, reply }).await
    }

    /// Makes a desired stack the recorded one and returns what that changes. With `base`, only if what is recorded
    /// still has that digest. If nothing changes, nothing is written.
    ///
    /// # Errors
    /// If they can't be compared, the base has moved, or the journal can't be written.
    pub async fn apply(&self, desired: Desired, base: Option<Digest>) -> Result<Plan, ControllerError> {
        self.ask(|reply| Request::Apply { desired, base, reply }).await
    }

    /// Removes all services and jobs.
    ///
    /// # Errors
    /// If nothing is applied, or the journal can't be written.
    pub async fn down(&self) -> Result<Plan, ControllerError> {
        self.ask(|reply| Request::Down { reply }).await
    }

    /// Gives a command to a service.
    ///
    /// # Errors
    /// If there is no such service, the command does not fit, or the journal can't be written.
    pub async fn command(&self, service: Name, command: Command) -> Result<(), ControllerError> {
        self.ask(|reply| Request::Command { service, command, reply }).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, ControllerError>>) -> Request,
    ) -> Result<T, ControllerError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| ControllerError::Stopping)?;
        answer.await.map_err(|_| ControllerError::Stopping)?
    }
}
