//! Medians and quartiles.

/// The middle of these, or the mean of the two in the middle; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// "median (lower quartile-upper quartile) ms".
pub fn spread(values: &[f64]) -> String {
    format!(
        "{:.0} ({:.0}-{:.0}) ms",
        median(values),
        quantile(values, 0.25),
        quantile(values, 0.75)
    )
}

/// Linear between the two nearest ranks.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index between 0 and a dozen"
    )]
    let (low, part) = {
        let at = q * last as f64;
        (at.floor() as usize, at.fract())
    };
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(spread(&[10.0, 20.0, 30.0, 40.0, 50.0]), "30 (20-40) ms");
    }
}
