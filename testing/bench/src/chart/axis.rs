//! What numbers stand at an axis, and how is a number written?

use super::draw::{Area, Canvas, Color, Style};

/// About how many steps an axis has.
const STEPS: f64 = 5.0;

/// The ends of a vertical axis and the marks between them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// From zero to just above `largest`, in steps of 1, 2 or 5 times a power of ten.
    pub(super) fn linear(largest: f64) -> Self {
        let largest = if largest.is_finite() && largest > 0.0 { largest } else { 1.0 };
        let rough = largest / STEPS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let count = (largest / step).ceil();
        let ticks = (0..=count as u32).map(|index| f64::from(index) * step).collect();
        Self { low: 0.0, high: count * step, logarithmic: false, ticks }
    }

    /// Whole powers of ten around `smallest` and `largest`.
    pub(super) fn logarithmic(smallest: f64, largest: f64) -> Self {
        let usable = smallest > 0.0 && largest >= smallest && largest.is_finite();
        let (smallest, largest) = if usable { (smallest, largest) } else { (1.0, 10.0) };
        let low = smallest.log10().floor() as i32;
        let high = (largest.log10().ceil() as i32).max(low + 1);
        let ticks = (low..=high).map(|power| 10_f64.powi(power)).collect();
        Self { low: 10_f64.powi(low), high: 10_f64.powi(high), logarithmic: true, ticks }
    }

    /// Where `value` is between the lower end (0) and the upper end (1).
    pub(super) fn share(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low).log10() - self.low.log10()) / (self.high.log10() - self.low.log10())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    /// The height of `value` in `area`.
    pub(super) fn y(&self, area: &Area, value: f64) -> f64 {
        area.bottom() - self.share(value) * area.height
    }

    /// Lines across `area` with their numbers to the left.
    pub(super) fn draw(&self, canvas: &mut Canvas, area: &Area) {
        for tick in &self.ticks {
            let y = self.y(area, *tick);
            canvas.line((area.left, y), (area.right(), y), Color::GRID, 1.5);
            canvas.text(area.left - 10.0, y + 6.0, &number(*tick), &Style::tick());
        }
    }
}

/// A number with as many digits as one reads at a glance, the same for numbers of like size.
pub(super) fn fixed(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        0.1.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The same without zeros at its end.
pub(super) fn number(value: f64) -> String {
    let text = fixed(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A size in bytes as people write it.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        1024.. if bytes.is_multiple_of(1024) => format!("{} KB", bytes / 1024),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_when_linear_ends_just_above_the_largest() {
        let axis = Axis::linear(634.0);
        assert_eq!(axis.ticks, [0.0, 200.0, 400.0, 600.0, 800.0]);
        assert_eq!(axis.share(400.0), 0.5);
        assert_eq!(Axis::linear(0.0).ticks.len(), 6);
        assert_eq!(Axis::linear(f64::NAN).high, 1.0);
    }

    #[test]
    fn axis_when_logarithmic_has_whole_decades() {
        let axis = Axis::logarithmic(0.06, 44.0);
        assert_eq!((axis.low, axis.high), (0.01, 100.0));
        assert!((axis.share(1.0) - 0.5).abs() < 1e-9);
        assert_eq!(axis.share(0.0), 0.0);
    }

    #[test]
    fn number_when_written_is_short() {
        assert_eq!(["634", "10.5", "0.06", "0"].map(String::from), [634.2, 10.49, 0.06, 0.0].map(number));
        assert_eq!(["634", "24.0", "0.30"].map(String::from), [634.2, 24.0, 0.3].map(fixed));
        assert_eq!([size(64), size(1500), size(131_072)], ["64 B", "1500 B", "128 KB"].map(String::from));
    }
}
