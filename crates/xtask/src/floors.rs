//! Floors: each crate imports only crates of lower floors, so adapters never each other.

use crate::workspace::Workspace;

/// The floor of each crate. A crate imports only from floors below its own.
const FLOORS: [(&str, u32); 20] = [
    ("basalt-model", 0),
    ("basalt-compose", 1),
    ("basalt-stackfile", 1),
    ("basalt-dockerfile", 1),
    ("basalt-plan", 1),
    ("basalt-rollout", 1),
    ("basalt-seam", 2),
    ("basalt-wire", 2),
    ("basalt-container", 3),
    ("basalt-gateway", 3),
    ("basalt-journal", 3),
    ("basalt-depot", 3),
    ("basalt-registry", 3),
    ("basalt-trust", 3),
    ("basalt-kubernetes", 3),
    ("basalt-machines", 3),
    ("basalt-controller", 4),
    ("basalt-api", 5),
    ("basalt", 6),
    // May use the heart and the seams; nobody ships it.
    ("basalt-testkit", 7),
];

/// Crates that no other may import outside its tests.
const ON_NO_FLOOR: [&str; 2] = ["basalt-testkit", "xtask"];

/// The highest floor that the test tools may import: they simulate what lies above.
const HIGHEST_FOR_TESTKIT: u32 = 2;

/// Returns a sentence for each import that goes up or sideways.
pub fn breaches(workspace: &Workspace) -> Vec<String> {
    let members: Vec<_> = workspace.members().collect();
    let mut breaches = Vec::new();
    for member in &members {
        if floor(&member.name).is_none() && !ON_NO_FLOOR.contains(&member.name.as_str()) {
            breaches.push(format!("`{}` is on no floor; help: add it to the table in xtask's floors.rs", member.name));
        }
        let normal = member.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev"));
        for dependency in normal.filter(|dependency| members.iter().any(|other| other.name == dependency.name)) {
            breaches.extend(breach(&member.name, &dependency.name));
        }
    }
    breaches
}

/// Returns what is wrong with crate `from` importing crate `to`, both of this workspace.
fn breach(from: &str, to: &str) -> Option<String> {
    if ON_NO_FLOOR.contains(&to) {
        return Some(format!("`{from}` imports `{to}`, which is for tests only; help: make it a dev-dependency"));
    }
    let (mine, theirs) = (floor(from)?, floor(to)?);
    if from == "basalt-testkit" && theirs > HIGHEST_FOR_TESTKIT {
        return Some(format!("`{from}` imports `{to}` (floor {theirs}), but simulates what lies above floor 2"));
    }
    let sideways = if theirs == 3 { ", and adapters never import each other" } else { "" };
    (theirs >= mine).then(|| {
        format!(
            "`{from}` (floor {mine}) imports `{to}` (floor {theirs}): each floor imports only lower floors{sideways}"
        )
    })
}

fn floor(name: &str) -> Option<u32> {
    FLOORS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, floor)| *floor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Dependency, Package};

    #[test]
    fn imports_go_down() {
        let check = |from, to, part: Option<&str>| match (breach(from, to), part) {
            (None, None) => {}
            (Some(text), Some(part)) if text.contains(part) => {}
            (found, _) => panic!("{from} -> {to}: {found:?}, expected {part:?}"),
        };
        check("basalt-rollout", "basalt-model", None);
        check("basalt-gateway", "basalt-wire", None);
        check("basalt", "basalt-api", None);
        check("basalt-testkit", "basalt-rollout", None);
        check("basalt-model", "basalt-rollout", Some("only lower floors"));
        check("basalt-rollout", "basalt-plan", Some("only lower floors"));
        check("basalt-wire", "basalt-seam", Some("only lower floors"));
        check("basalt-gateway", "basalt-container", Some("adapters never"));
        check("basalt-controller", "basalt-api", Some("only lower floors"));
        check("basalt-api", "basalt-testkit", Some("dev-dependency"));
        check("basalt-testkit", "basalt-gateway", Some("simulates"));
    }

    #[test]
    fn dev_dependencies_are_free_and_new_crates_are_noticed() {
        let package = |name: &str, dependencies: &[(&str, Option<&str>)]| Package {
            id: name.into(),
            name: name.into(),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency { name: (*name).into(), kind: kind.map(Into::into) })
                .collect(),
            ..Package::default()
        };
        let workspace = Workspace {
            packages: vec![
                package("basalt-model", &[("basalt-testkit", Some("dev")), ("serde", None)]),
                package("basalt-testkit", &[]),
                package("basalt-attic", &[]),
                package("serde", &[("basalt-model", None)]),
            ],
            workspace_members: ["basalt-model", "basalt-testkit", "basalt-attic"].map(Into::into).to_vec(),
            workspace_root: "/".into(),
        };
        let found = breaches(&workspace);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("`basalt-attic` is on no floor"), "{found:?}");
    }
}
