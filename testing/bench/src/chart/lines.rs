//! Lines over message sizes, which are spaced by their logarithm.

use super::axis::{Axis, number, size};
use super::draw::{Area, Canvas, Color, Style};

const TEXT_ABOVE: f64 = 78.0;
const NUMBERS_LEFT: f64 = 56.0;
const NAMES_BELOW: f64 = 34.0;
/// From the axis to the first and last size.
const INSET: f64 = 44.0;

/// How the vertical axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten, for values that span several.
    Logarithmic,
}

/// The line of one subject.
#[derive(Debug, Clone)]
pub struct LineSeries {
    /// In the legend.
    pub name: String,
    /// Of line and numbers.
    pub color: Color,
    /// One per size; `None` where nothing was measured.
    pub values: Vec<Option<f64>>,
}

/// A panel of lines over message sizes.
#[derive(Debug, Clone)]
pub struct LineChart {
    /// Above the panel.
    pub title: String,
    /// What the heights mean, and which way is better.
    pub unit: String,
    /// Message sizes in bytes, ascending.
    pub sizes: Vec<u64>,
    /// The vertical axis.
    pub scale: Scale,
    /// Subjects. The first one's values are written at its points.
    pub series: Vec<LineSeries>,
}

impl LineChart {
    pub(super) fn draw(&self, canvas: &mut Canvas, area: Area) {
        canvas.text(area.left, area.top + 22.0, &self.title, &Style::panel_title());
        canvas.text(area.left, area.top + 48.0, &self.unit, &Style::unit());
        let axes = Area {
            left: area.left + NUMBERS_LEFT,
            top: area.top + TEXT_ABOVE,
            width: area.width - NUMBERS_LEFT,
            height: area.height - TEXT_ABOVE - NAMES_BELOW,
        };
        let axis = self.axis();
        axis.draw(canvas, &axes);
        for bytes in &self.sizes {
            let x = self.x(&axes, *bytes);
            canvas.line((x, axes.bottom()), (x, axes.bottom() + 6.0), Color::GRID, 1.5);
            canvas.text(x, axes.bottom() + 28.0, &size(*bytes), &Style::group());
        }
        // The first series on top of the others.
        for (index, series) in self.series.iter().enumerate().rev() {
            let points: Vec<(f64, f64, f64)> = self
                .sizes
                .iter()
                .zip(&series.values)
                .filter_map(|(bytes, value)| {
                    Some((self.x(&axes, *bytes), axis.y(&axes, (*value)?), (*value)?))
                })
                .collect();
            let path: Vec<(f64, f64)> = points.iter().map(|(x, y, _)| (*x, *y)).collect();
            canvas.curve(&path, series.color);
            if index == 0 {
                for (x, y, value) in points {
                    canvas.text(x, y - 18.0, &number(value), &Style::value(series.color));
                }
            }
        }
    }

    fn axis(&self) -> Axis {
        let values = || self.series.iter().flat_map(|series| series.values.iter().flatten().copied());
        let largest = values().fold(0.0, f64::max);
        match self.scale {
            Scale::Linear => Axis::linear(1.06 * largest),
            Scale::Logarithmic => {
                let smallest = values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                Axis::logarithmic(smallest, largest)
            }
        }
    }

    fn x(&self, axes: &Area, bytes: u64) -> f64 {
        let log = |bytes: u64| (bytes.max(1) as f64).log2();
        let first = log(self.sizes.first().copied().unwrap_or(1));
        let last = log(self.sizes.last().copied().unwrap_or(1));
        let share = if last > first { (log(bytes) - first) / (last - first) } else { 0.5 };
        axes.left + INSET + share * (axes.width - 2.0 * INSET)
    }
}
