//! Talking to the controller.

use std::time::Duration;

use basalt_api::{Client, ClientError, Feed, Status};

use crate::error::{CliError, Kind, Result};

/// Turns an answer of the controller into a verb's result.
///
/// # Errors
/// If it is one: unreachable ends with 5, refused with 4.
pub fn asked<T>(answer: Result<T, ClientError>) -> Result<T> {
    answer.map_err(|error| {
        let kind = match &error {
            error if error.is_unreachable() => Kind::Unreachable,
            ClientError::Refused { status: 400..=499, .. } => Kind::Invalid,
            _ => Kind::Internal,
        };
        let mut failure = CliError::of(kind, &error);
        failure.help = error.help().map(str::to_owned);
        failure
    })
}

/// How long a controller that was lost may take to come back; it is restarted within a second or two.
const LOST: Duration = Duration::from_secs(15);

/// Pause between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(100);

/// The status at every change, across restarts of the controller.
pub struct Statuses {
    client: Client,
    feed: Option<Feed<Status>>,
}

impl Statuses {
    /// Begins with the status of now.
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), feed: None }
    }

    /// Waits for the next status.
    ///
    /// # Errors
    /// If the controller is lost and does not come back.
    pub async fn next(&mut self) -> Result<Status> {
        let mut waited = Duration::ZERO;
        loop {
            let error = match &mut self.feed {
                Some(feed) => match feed.next().await {
                    Some(Ok(status)) => return Ok(status),
                    Some(Err(error)) => Some(error),
                    None => None,
                },
                None => match self.client.status_stream().await {
                    Ok(feed) => {
                        self.feed = Some(feed);
                        continue;
                    }
                    Err(error) => Some(error),
                },
            };
            self.feed = None;
            match error {
                Some(error) if waited >= LOST || !error.is_unreachable() => return asked(Err(error)),
                _ => {}
            }
            tokio::time::sleep(PAUSE).await;
            waited += PAUSE;
        }
    }
}
