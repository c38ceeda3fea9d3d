//! From the machine's actions to complete actions for the backend.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use basalt_model::{Exit, Generation, InstanceId, Millis, Release, State};
use basalt_rollout::{Action, Life};
use basalt_seam::{Backend, Depot, InstanceAction, MountPoints, Secrets, StartInstance, StartSecret};

use crate::observe::release_of;

/// Starts that failed before the backend had a part in them, by instance, as the life they amount to.
pub(crate) type FailedStarts = BTreeMap<InstanceId, (Generation, Life)>;

/// Carries out actions.
pub(crate) struct Performer {
    pub backend: Arc<dyn Backend>,
    pub depot: Arc<dyn Depot>,
    pub secrets: Arc<dyn Secrets>,
    pub address: Box<dyn Fn(u16) -> Ipv4Addr + Send + Sync>,
    pub failed: FailedStarts,
}

impl Performer {
    /// Carries out one action. A start that can't even be handed over is seen as an ended instance from now on.
    pub fn perform(&mut self, state: &State, at: Millis, action: Action) {
        match action {
            Action::Start { instance, generation } => {
                let Some(release) = release_of(state, &instance) else { return };
                match self.complete(state, &instance, generation, release) {
                    Ok(start) => {
                        self.failed.remove(&instance);
                        self.backend.perform(InstanceAction::Start(Box::new(start)));
                    }
                    Err(why) => {
                        let life = Life::Ended { exit: Exit::CouldNotStart(why), at, last_lines: Vec::new() };
                        self.failed.insert(instance, (generation, life));
                    }
                }
            }
            Action::Stop { instance, generation, within } => {
                self.failed.remove(&instance);
                self.backend.perform(InstanceAction::Stop { id: instance, generation, within });
            }
            Action::Forget { instance, generation } => {
                self.failed.remove(&instance);
                self.backend.perform(InstanceAction::Forget { id: instance, generation });
            }
        }
    }

    fn complete(
        &self,
        state: &State,
        id: &InstanceId,
        generation: Generation,
        release: &Arc<Release>,
    ) -> Result<StartInstance, String> {
        let mounts = MountPoints {
            dirs: release.scratch.iter().chain(release.volumes.keys()).cloned().collect(),
            files: release.configs.keys().chain(release.secrets.keys()).cloned().collect(),
        };
        let image = self.depot.image(&release.image, &mounts).map_err(|error| chain(&error))?;
        let secrets = release
            .secrets
            .iter()
            .map(|(path, file)| {
                let content = self.secrets.reveal(&file.name, file.version).map_err(|error| chain(&error))?;
                Ok(StartSecret { path: path.clone(), content, mode: file.mode })
            })
            .collect::<Result<_, String>>()?;
        let secret_env = release
            .env_secrets
            .iter()
            .map(|(variable, secret)| {
                let value = self.secrets.reveal(&secret.name, secret.version).map_err(|error| chain(&error))?;
                Ok((variable.clone(), value))
            })
            .collect::<Result<_, String>>()?;
        let connected = || release.connects_to.iter().filter_map(|name| Some((name, state.services.get(name)?.slot)));
        let hosts = connected()
            .flat_map(|(name, slot)| {
                let address = (self.address)(slot);
                [(name.to_string(), address), (format!("{name}.internal"), address)]
            })
            .collect();
        let reaches = connected().map(|(_, slot)| (self.address)(slot)).collect();
        let (id, release) = (id.clone(), release.clone());
        Ok(StartInstance { id, generation, release, image, secrets, secret_env, hosts, reaches })
    }
}

/// Returns an error with all its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
