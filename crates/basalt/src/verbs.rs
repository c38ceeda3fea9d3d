//! From a verb to what does it.

use std::future::Future;

use basalt_api::Client;
use clap::CommandFactory;

use crate::cli::{Cli, ImportVerb, Verb};
use crate::command::{Ask, ask, rollback, scale};
use crate::error::{CliError, Outcome, Result};
use crate::output::Output;
use crate::paths::Data;
use crate::{form, image, import, init, keeping, planned, reading, roles, traffic, up};

/// Does what the verb says.
///
/// # Errors
/// If it can't be done.
pub fn run(cli: Cli, out: Output) -> Result<Outcome> {
    let data = || Data::find(cli.global.data.as_deref());
    let client = || data().map(|data| Client::new(data.socket("controller")));
    match &cli.verb {
        Verb::Init { dir } => init::init(dir, out),
        Verb::Validate(args) => planned::validate(args, out),
        Verb::Fmt { paths, check } => form::format(paths, *check, out),
        Verb::Schema => form::schema(out),
        Verb::Plan(args) => block(planned::plan(args, &data()?, out)),
        Verb::Apply(args) => block(up::apply(args, &data()?, out)),
        Verb::Up(args) => block(up::up(args, &data()?, out)),
        Verb::Down => block(up::down(&data()?, out)),
        Verb::Status => block(reading::status(&client()?, out)),
        Verb::Watch => block(reading::watch(&client()?, out)),
        Verb::Traffic => block(traffic::traffic(&data()?, out)),
        Verb::Logs(args) => block(reading::logs(&client()?, args, out)),
        Verb::Releases { service } => block(reading::releases(&client()?, service.as_deref(), out)),
        Verb::Diff { service, from, to } => block(reading::diff(&client()?, service, *from, *to, out)),
        Verb::Events(args) => block(reading::events(&client()?, args, out)),
        Verb::Rollback { service, to, detach } => block(rollback(&client()?, service, *to, *detach, out)),
        Verb::Promote { service } => block(ask(&client()?, service, Ask::Promote, out)),
        Verb::Pause { service } => block(ask(&client()?, service, Ask::Pause, out)),
        Verb::Resume { service } => block(ask(&client()?, service, Ask::Resume, out)),
        Verb::Abort { service } => block(ask(&client()?, service, Ask::Abort, out)),
        Verb::Scale { counts, detach } => block(scale(&client()?, counts, *detach, out)),
        Verb::Secret(verb) => keeping::secret(verb, &data()?, out),
        Verb::Image(verb) => image::image(verb, &data()?, out),
        Verb::Import(ImportVerb::Compose(args)) => import::compose(args, out),
        Verb::Serve { args, detach: true } => block(up::serve(&data()?, &args.edge, out)),
        Verb::Serve { args, detach: false } => roles::serve(args, &data()?),
        Verb::Keeper(args) => roles::keeper(args, &data()?),
        Verb::Gateway(args) => roles::gateway(args, &data()?),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "basalt", &mut script);
            out.text(&String::from_utf8_lossy(&script))?;
            Ok(Outcome::Done)
        }
    }
}

/// Runs a verb that talks to others. One thread is enough for a conversation.
fn block(verb: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CliError::internal("the runtime could not be started").because(&error))?.block_on(verb)
}
