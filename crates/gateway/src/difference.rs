//! The difference between two maps.

use std::collections::BTreeMap;

use crate::gently::gently;

/// Returns the entries of `new` that are not in `old` or differ from what is there, and the keys that are only in `old`.
pub(crate) fn difference<K: Ord + Clone, V: Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    differ: impl Fn(&V, &V) -> bool,
) -> (BTreeMap<K, V>, Vec<K>) {
    let (mut changed, mut gone) = (BTreeMap::new(), Vec::new());
    // Both are in order, and most of both is the same.
    let mut before = old.iter().peekable();
    for (key, now) in gently(new) {
        while let Some((key, _)) = before.next_if(|(before, _)| *before < key) {
            gone.push(key.clone());
        }
        let then = before.next_if(|(before, _)| *before == key);
        if then.is_none_or(|(_, then)| differ(then, now)) {
            changed.insert(key.clone(), now.clone());
        }
    }
    gone.extend(before.map(|(key, _)| key.clone()));
    (changed, gone)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_leads_from_one_to_the_other(
            old in proptest::collection::btree_map(0..20_u8, 0..3_u8, 0..12),
            new in proptest::collection::btree_map(0..20_u8, 0..3_u8, 0..12),
        ) {
            let (changed, gone) = difference(&old, &new, PartialEq::ne);
            prop_assert!(changed.iter().all(|(key, value)| old.get(key) != Some(value)));
            prop_assert!(gone.iter().all(|key| old.contains_key(key)));
            let mut after = old;
            gone.iter().for_each(|key| assert!(after.remove(key).is_some()));
            after.extend(changed);
            prop_assert_eq!(after, new);
        }
    }
}
