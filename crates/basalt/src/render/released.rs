//! Releases.

use basalt_api::ReleaseView;
use basalt_model::Millis;

use super::{Paint, Style, status::age};

/// Returns one line a release.
pub fn releases(releases: &[ReleaseView], now: Millis, style: Style) -> String {
    let mut out = String::new();
    for r in releases {
        let id = r.id.strip_prefix("sha256:").unwrap_or(&r.id);
        let marks =
            [(r.stable, "stable", Paint::Good), (r.target, "target", Paint::Busy), (r.warm, "warm", Paint::Busy)];
        let marks: Vec<String> =
            marks.iter().filter(|(is, ..)| *is).map(|(_, mark, paint)| style.paint(*paint, mark)).collect();
        let created = r.created_at.map(|at| format!("{} ago", age(now.since(at.0)))).unwrap_or_default();
        let running = if r.instances == 0 { String::new() } else { format!("{} running", r.instances) };
        let line = format!(
            "{:<24} {}  {created:<10} {running:<11} {}",
            format!("{}#{}", r.service, r.number),
            id.get(..12).unwrap_or(id),
            marks.join(" ")
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
