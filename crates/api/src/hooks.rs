//! What the binary gives to the API beside the controller.

use std::io;
use std::sync::Arc;

use futures::stream::BoxStream;

use crate::{LogFilter, LogLine, ServerInfo};

/// Lines of output as they come.
pub type LogLines = BoxStream<'static, io::Result<LogLine>>;

/// Where the output of instances is kept.
pub trait LogSource: Send + Sync {
    /// Returns the lines that are there, by time. May block: it is called where that is allowed.
    ///
    /// # Errors
    /// If they can't be read.
    fn lines(&self, filter: &LogFilter) -> io::Result<Vec<LogLine>>;

    /// Returns the lines that are there and then those that come, until it is dropped.
    ///
    /// # Errors
    /// If they can't be read.
    fn follow(&self, filter: LogFilter) -> io::Result<LogLines>;
}

/// What the binary gives to the API beside the controller.
#[derive(Clone)]
pub struct Hooks {
    /// Where the output of instances is kept.
    pub logs: Arc<dyn LogSource>,
    /// Asks the controller's process to end; called once the answer is on its way.
    pub shutdown: Arc<dyn Fn() + Send + Sync>,
    /// What the controller says of itself.
    pub info: ServerInfo,
}
