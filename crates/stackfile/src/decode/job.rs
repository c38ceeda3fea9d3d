//! `job` blocks.

use basalt_model::{JobSpec, Kind as ReleaseKind, Millis, Name};

use super::release::{Secrets, names, release};
use super::service::positive;
use crate::check::Places;
use crate::read;
use crate::reader::Reader;
use crate::value::Kind;

/// How long one try may take if the job does not say: as long as a rollout by default, which waits for it.
const TIMEOUT: Millis = Millis::seconds(600);

/// The most retries: the pauses between them grow, so that a hundred take days.
const MOST_RETRIES: u32 = 100;

/// Decodes a `job` block.
pub(super) fn job(mut reader: Reader, name: &Name, places: &mut Places, sealed: &mut Secrets) -> JobSpec {
    let (image, release) = release(&mut reader, ReleaseKind::Job, name, places, sealed);
    let retries = reader.get("retries", read::integer(0..=MOST_RETRIES)).unwrap_or(0);
    let timeout = reader.get("timeout", positive).unwrap_or(TIMEOUT);
    let depends_on = names(&mut reader, "depends_on", Kind::Job);
    places.job_order.extend(depends_on.iter().map(|(to, at)| (name.clone(), to.clone(), *at)));
    for word in ["port", "route", "health", "rollout", "instances", "drain", "stop_within"] {
        reader.refuse(word, format!("a job has no `{word}`: it runs once, to its end"));
    }
    reader.finish();
    let mut depends_on: Vec<Name> = depends_on.into_iter().map(|(to, _)| to).collect();
    depends_on.sort();
    depends_on.dedup();
    JobSpec { image, release, retries, timeout, depends_on }
}
