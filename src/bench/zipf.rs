//! How popular posts are: a few much, most hardly.

/// Ranks from 0 on, of which rank r is drawn with a weight of 1 / (r + 1)^exponent; with an exponent of 0 all
/// alike.
pub struct Zipf {
    /// For each rank the chance that it, or one before it, is drawn. Rises, and ends in 1.
    cumulative: Vec<f64>,
}

impl Zipf {
    /// At least one rank.
    pub fn new(ranks: u32, exponent: f64) -> Self {
        assert!(ranks > 0, "something can be drawn");
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=ranks)
            .map(|place| {
                sum += f64::from(place).powf(-exponent);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|chance| *chance /= sum);
        Self { cumulative }
    }

    /// The rank that a number from 0 up to and without 1 stands for.
    pub fn rank(&self, chance: f64) -> u32 {
        let at = self.cumulative.partition_point(|until| *until <= chance);
        // Sums of rounded numbers may end a little below 1.
        at.min(self.cumulative.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each rank is drawn by evenly spaced chances.
    fn drawn(ranks: u32, exponent: f64, draws: u32) -> Vec<u32> {
        let zipf = Zipf::new(ranks, exponent);
        let mut times = vec![0; ranks as usize];
        for draw in 0..draws {
            let chance = f64::from(draw) / f64::from(draws);
            times[zipf.rank(chance) as usize] += 1;
        }
        times
    }

    #[test]
    fn without_an_exponent_all_are_alike() {
        assert_eq!(drawn(4, 0.0, 400), [100; 4]);
    }

    #[test]
    fn the_second_is_drawn_half_as_often_as_the_first() {
        let times = drawn(3, 1.0, 110_000);
        for (times, expected) in times.into_iter().zip([60_000_u32, 30_000, 20_000]) {
            assert!(times.abs_diff(expected) <= 1, "{times} for {expected}");
        }
    }

    #[test]
    fn chances_at_both_ends_have_a_rank() {
        for exponent in [0.0, 0.7, 1.0, 10.0] {
            let zipf = Zipf::new(1_000, exponent);
            assert_eq!(zipf.rank(0.0), 0);
            assert!(zipf.rank(1.0_f64.next_down()) < 1_000);
            assert!(zipf.rank(1.0) < 1_000);
        }
        assert_eq!(Zipf::new(1, 1.0).rank(0.999), 0);
    }
}
