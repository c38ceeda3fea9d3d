//! The name that was probably meant.

/// Words of other tools, and what is meant by them here.
const ELSEWHERE: [(&str, &str); 14] = [
    ("replicas", "instances"),
    ("scale", "instances"),
    ("environment", "env"),
    ("healthcheck", "health"),
    ("livenessProbe", "health"),
    ("readinessProbe", "health"),
    ("ports", "port"),
    ("resources", "limits"),
    ("tmpfs", "scratch"),
    ("working_dir", "workdir"),
    ("stop_grace_period", "stop_within"),
    ("entrypoint", "command"),
    ("build", "dockerfile"),
    ("ingress", "route"),
];

/// Returns ``did you mean `x`?`` for the nearest of `known`, or the list of all if none is near.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let elsewhere = ELSEWHERE.into_iter().find(|(other, here)| *other == word && known.contains(here));
    match elsewhere.map(|(_, here)| here).or_else(|| nearest(word, &known)) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        // A longer list hides more than it shows.
        None if known.is_empty() || known.len() > 24 => None,
        None => Some(format!("known here: {}", known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", "))),
    }
}

/// Returns the nearest word, if at most a third of its letters differ.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = |k: &&str| distance(word, k);
    let best = known.iter().copied().min_by_key(near)?;
    let allowed = best.chars().count().max(3) / 3;
    let distance = distance(word, best);
    (distance <= allowed && distance < best.chars().count()).then_some(best)
}

/// Returns how many letters must be put in, left out, changed or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    // Names are short; of absurdly long words the beginning is enough.
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let check = |a: &str, b: &str, expected| assert_eq!(distance(a, b), expected, "{a} {b}");
        check("", "", 0);
        check("", "abc", 3);
        check("image", "imgae", 1);
        check("image", "images", 1);
        check("kitten", "sitting", 3);
    }

    #[test]
    fn suggestions() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(did_you_mean(word, ["image", "instances", "env"]).as_deref(), expected, "{word}");
        };
        check("imagee", Some("did you mean `image`?"));
        check("instanecs", Some("did you mean `instances`?"));
        check("environment", Some("did you mean `env`?"));
        check("replicas", Some("did you mean `instances`?"));
        check("healthcheck", Some("known here: `env`, `image`, `instances`"));
        check("x", Some("known here: `env`, `image`, `instances`"));
        check("enf", Some("did you mean `env`?"));
        check("zzzzzz", Some("known here: `env`, `image`, `instances`"));
        assert_eq!(did_you_mean("x", []), None);
    }
}
