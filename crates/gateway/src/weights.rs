//! Turns weights into an order of releases, so that shares are exact and smooth.

use basalt_model::Weight;

/// Returns a cycle of positions in `weights` in which each position stands as often as its weight says, as evenly
/// spread as can be. It is empty if no weight is above zero, and at most as long as the sum of the weights.
pub(crate) fn cycle(weights: &[u32]) -> Vec<u16> {
    // More than all is all: this bounds the cycle whatever a table says.
    let weights: Vec<u32> = weights.iter().map(|weight| *weight.min(&Weight::ALL.0)).collect();
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor);
    if divisor == 0 {
        return Vec::new();
    }
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    // Each step all credits grow by their weight, and the largest pays for its turn with the sum of all weights: credits stay
    // within one turn of zero, which is what keeps every stretch of the cycle close to the shares.
    let mut credits = vec![0; weights.len()];
    let step = |_| {
        let mut best = 0;
        for (position, weight) in weights.iter().enumerate() {
            credits[position] += weight;
            if credits[position] > credits[best] {
                best = position;
            }
        }
        credits[best] -= total;
        u16::try_from(best).unwrap_or(u16::MAX)
    };
    (0..total).map(step).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any 1,000 requests in a row are shared as the weights say, give or take one (two with more than two releases).
    #[test]
    fn shares_are_exact_within_any_thousand() {
        let check = |weights: &[u32], tolerance: f64| {
            let cycle = cycle(weights);
            let total = f64::from(weights.iter().sum::<u32>());
            for (position, weight) in weights.iter().enumerate() {
                let ones: Vec<bool> =
                    cycle.iter().cycle().take(cycle.len() + 1000).map(|at| usize::from(*at) == position).collect();
                let mut count = ones[..1000].iter().filter(|one| **one).count();
                for start in 0..cycle.len() {
                    let ideal = 1000.0 * f64::from(*weight) / total;
                    assert!(
                        (count as f64 - ideal).abs() <= tolerance,
                        "{weights:?}: {count} instead of {ideal} from {start}"
                    );
                    count = count + usize::from(ones[start + 1000]) - usize::from(ones[start]);
                }
            }
        };
        check(&[10_000], 0.0);
        check(&[9_500, 500], 0.0);
        check(&[5_000, 5_000], 0.0);
        check(&[0, 10_000], 0.0);
        check(&[9_999, 1], 1.0);
        check(&[6_667, 3_333], 1.0);
        check(&[9_437, 563], 1.0);
        check(&[3_333, 3_333, 3_334], 2.0);
        check(&[9_000, 900, 99, 1], 2.0);
    }

    #[test]
    fn cycles_are_short_and_smooth() {
        assert_eq!(cycle(&[7_500, 2_500]), [0, 0, 1, 0]);
        assert_eq!(cycle(&[10_000, 0]), [0]);
        assert_eq!(cycle(&[0, 0]), [] as [u16; 0]);
        assert_eq!(cycle(&[]), [] as [u16; 0]);
    }
}
