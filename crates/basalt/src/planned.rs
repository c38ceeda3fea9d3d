//! The verbs `validate` and `plan`, and the file that a plan is saved to.

use std::collections::BTreeMap;
use std::path::Path;

use basalt_api::Client;
use basalt_plan::{Desired, Plan};
use basalt_stackfile::{OutputValue, render};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{PlanArgs, StackArgs};
use crate::error::{CliError, Kind, Outcome, Result};
use crate::output::Output;
use crate::paths::Data;
use crate::recorded::recorded;
use crate::remote::asked;
use crate::{desired, render as show};

/// The version of the format of saved plans.
const FORMAT: u32 = 1;

/// A plan as it is saved: what is desired, and what that was seen to change.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlanFile {
    format: u32,
    /// What is desired.
    pub desired: Desired,
    /// What that changes.
    pub plan: Plan,
}

impl PlanFile {
    /// Reads a saved plan; `None` if the file is something else, such as a stack.
    ///
    /// # Errors
    /// If it is a saved plan that can't be used.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        // A folder, or what can't be read, is for the stack file's reader to speak about.
        let Ok(text) = std::fs::read(path) else { return Ok(None) };
        if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Ok(None);
        }
        // A stack in JSON has no such key.
        let is_plan = |text: &[u8]| {
            let keys: std::result::Result<BTreeMap<String, serde::de::IgnoredAny>, _> = serde_json::from_slice(text);
            keys.map_or(true, |keys| keys.contains_key("format") || keys.contains_key("plan"))
        };
        if path.extension().is_some_and(|suffix| suffix == "json" || suffix == "yaml") && !is_plan(&text) {
            return Ok(None);
        }
        let plan: Self = serde_json::from_slice(&text).map_err(|error| {
            CliError::invalid(format!("`{}` is no saved plan", path.display()))
                .because(&error)
                .help("save one with `basalt plan STACK --out FILE`")
        })?;
        if plan.format > FORMAT {
            return Err(CliError::invalid(format!("`{}` was saved by a newer version of Basalt", path.display())));
        }
        Ok(Some(plan))
    }
}

/// Checks a stack.
///
/// # Errors
/// If the arguments are not as they must be.
pub fn validate(args: &StackArgs, out: Output) -> Result<Outcome> {
    let loaded = desired::read(args)?;
    let valid = !loaded.has_errors();
    if out.json() {
        out.document(&json!({ "valid": valid, "stack": loaded.name, "diagnostics": loaded.diagnostics, "outputs": loaded.outputs }))?;
    } else {
        out.note(&render(&loaded, out.error_style.colour));
        if let Some(stack) = loaded.stack.as_ref().filter(|_| valid) {
            let (services, jobs, images) = (stack.services.len(), stack.jobs.len(), stack.images.len());
            let name = &stack.name;
            out.text(&format!("stack {name} is valid; services: {services}, jobs: {jobs}, images: {images}\n"))?;
            out.text(&outputs(&loaded.outputs))?;
        }
    }
    Ok(if valid { Outcome::Done } else { Outcome::Invalid })
}

/// Returns lines of what a stack gives out; empty if that is nothing.
fn outputs(outputs: &BTreeMap<String, OutputValue>) -> String {
    let line = |(name, output): (&String, &OutputValue)| match &output.exact {
        None => format!("output {name} = (sensitive)\n"),
        Some(value) => format!("output {name} = {value}\n"),
    };
    outputs.iter().map(line).collect()
}

/// Shows what an apply would change.
///
/// # Errors
/// If an image or secret can't be had, the stack can't be compared with what is recorded, or the plan can't be saved.
pub async fn plan(args: &PlanArgs, data: &Data, out: Output) -> Result<Outcome> {
    let Some(declared) = desired::stack(&args.stack, out)? else { return Ok(Outcome::Invalid) };
    let desired = desired::desired(&declared, data, out)?;
    let plan = compare(&desired, data).await?;
    let changes = plan.has_changes();
    if out.json() {
        let mut value = serde_json::to_value(&plan)
            .map_err(|error| CliError::internal("the plan has no JSON form").because(&error))?;
        value["has_changes"] = changes.into();
        value["outputs"] = json!(declared.outputs);
        out.document(&value)?;
    } else {
        out.text(&show::plan(&plan, out.style))?;
        out.text(&outputs(&declared.outputs))?;
    }
    if let Some(path) = &args.out {
        save(path, PlanFile { format: FORMAT, desired, plan })?;
        out.note(&format!("saved to {0}; perform it with `basalt apply {0}`\n", path.display()));
    }
    Ok(if changes && args.detailed_exitcode { Outcome::ChangesPresent } else { Outcome::Done })
}

/// Compares with what the controller has recorded, or with what the journal says if no controller runs.
async fn compare(desired: &Desired, data: &Data) -> Result<Plan> {
    match Client::new(data.socket("controller")).plan(desired).await {
        Err(error) if error.is_unreachable() => {
            basalt_plan::plan(desired, &recorded(data)?).map_err(|error| CliError::of(Kind::Invalid, &error))
        }
        answer => asked(answer),
    }
}

/// Saves a plan. It holds config files, so only its owner may read it.
fn save(path: &Path, file: PlanFile) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let unsaved = |error: &dyn std::error::Error| {
        CliError::invalid(format!("the plan can't be saved to `{}`", path.display())).because(error)
    };
    let text = serde_json::to_vec_pretty(&file).map_err(|error| unsaved(&error))?;
    let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(&text)).map_err(|error| unsaved(&error))
}
