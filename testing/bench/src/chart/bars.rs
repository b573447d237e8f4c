//! Groups of bars: one group per size, one bar per subject.

use super::axis::{Axis, fixed};
use super::draw::{Area, Canvas, Color, Direction, Style};

/// Between the bars of two groups, in widths of a bar.
const GROUP_GAP: f64 = 0.8;
/// Room above the axes for the panel's texts, left of them for numbers, below them for the groups' names.
const TEXT_ABOVE: f64 = 78.0;
const NUMBERS_LEFT: f64 = 56.0;
const NAMES_BELOW: f64 = 34.0;
const WIDEST_BAR: f64 = 92.0;
/// Room around a number, and between a bar's foot or a whisker and a number.
const AROUND: f64 = 6.0;
const BESIDE: f64 = 10.0;

/// A value with what it varied between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// The height.
    pub value: f64,
    /// Smallest and largest, drawn as a whisker.
    pub spread: Option<(f64, f64)>,
}

/// The bars of one subject.
#[derive(Debug, Clone)]
pub struct BarSeries {
    /// In the legend.
    pub name: String,
    /// Of all its bars.
    pub color: Color,
    /// One per group; `None` leaves a gap.
    pub bars: Vec<Option<Bar>>,
}

/// A panel of grouped bars.
#[derive(Debug, Clone)]
pub struct BarChart {
    /// Above the panel.
    pub title: String,
    /// What the heights mean, and which way is better.
    pub unit: String,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// Subjects, from left to right within a group.
    pub series: Vec<BarSeries>,
}

impl BarChart {
    pub(super) fn weight(&self) -> f64 {
        1.2 + self.groups.len() as f64
    }

    pub(super) fn draw(&self, canvas: &mut Canvas, area: Area) {
        canvas.text(area.left, area.top + 22.0, &self.title, &Style::panel_title());
        canvas.text(area.left, area.top + 48.0, &self.unit, &Style::unit());
        let axes = Area {
            left: area.left + NUMBERS_LEFT,
            top: area.top + TEXT_ABOVE,
            width: area.width - NUMBERS_LEFT,
            height: area.height - TEXT_ABOVE - NAMES_BELOW,
        };
        let tops = self.series.iter().flat_map(|series| series.bars.iter().flatten());
        let largest =
            tops.map(|bar| bar.spread.map_or(bar.value, |(_, max)| max.max(bar.value))).fold(0.0, f64::max);
        // Some room for the number above the highest bar.
        let axis = Axis::linear(1.06 * largest);
        axis.draw(canvas, &axes);
        let slot = axes.width / self.groups.len().max(1) as f64;
        for (index, name) in self.groups.iter().enumerate() {
            let left = axes.left + slot * index as f64;
            canvas.text(left + slot / 2.0, axes.bottom() + 28.0, name, &Style::group());
            self.draw_group(canvas, &axis, Area { left, width: slot, ..axes }, index);
        }
    }

    fn draw_group(&self, canvas: &mut Canvas, axis: &Axis, slot: Area, index: usize) {
        let count = self.series.len() as f64;
        let width = (slot.width / (count + GROUP_GAP)).min(WIDEST_BAR);
        let direction = self.direction(width);
        let mut left = slot.left + (slot.width - width * count) / 2.0;
        for series in &self.series {
            if let Some(Some(bar)) = series.bars.get(index) {
                let top = axis.y(&slot, bar.value);
                let body = Area { left: left + 2.0, top, width: width - 4.0, height: slot.bottom() - top };
                canvas.block(body, series.color, 3.0);
                draw_whisker(canvas, axis, &slot, &body, bar);
                draw_number(canvas, &Room::beside(axis, &slot, &body, bar), bar, (series.color, direction));
            }
            left += width;
        }
    }

    /// How the numbers of this panel run, for bars of `width`: all of them lie, or none.
    fn direction(&self, width: f64) -> Direction {
        let values = self.series.iter().flat_map(|series| series.bars.iter().flatten());
        let widest = values.map(|bar| Style::foot(Color::PEER).width(&fixed(bar.value))).fold(0.0, f64::max);
        if widest + AROUND > width { Direction::Upwards } else { Direction::Across }
    }
}

/// Where a bar's whisker leaves room for its number.
struct Room {
    middle: f64,
    /// The bar's foot, and the lower and upper end of its whisker, or its top.
    foot: f64,
    low: f64,
    high: f64,
}

impl Room {
    fn beside(axis: &Axis, slot: &Area, body: &Area, bar: &Bar) -> Self {
        let (min, max) = bar.spread.unwrap_or((bar.value, bar.value));
        Self {
            middle: body.left + body.width / 2.0,
            foot: slot.bottom(),
            low: axis.y(slot, min.min(bar.value)),
            high: axis.y(slot, max.max(bar.value)),
        }
    }
}

/// The number stands at the foot of a bar with a whisker, which would cross it above; above one that is too low for that,
/// or has none.
fn draw_number(canvas: &mut Canvas, room: &Room, bar: &Bar, (color, direction): (Color, Direction)) {
    let text = fixed(bar.value);
    let foot = Style::foot(color);
    if bar.spread.is_some() && room.foot - room.low > foot.height(&text, direction) + 2.0 * BESIDE {
        canvas.text_along(direction, (room.middle, room.foot - BESIDE), &text, &foot);
    } else {
        canvas.text_along(direction, (room.middle, room.high - BESIDE), &text, &Style::value(color));
    }
}

fn draw_whisker(canvas: &mut Canvas, axis: &Axis, slot: &Area, body: &Area, bar: &Bar) {
    let Some((min, max)) = bar.spread else { return };
    let (low, high) = (axis.y(slot, min), axis.y(slot, max));
    let middle = body.left + body.width / 2.0;
    let half = (body.width / 8.0).min(7.0);
    canvas.line((middle, low), (middle, high), Color::WHISKER, 1.5);
    for y in [low, high] {
        canvas.line((middle - half, y), (middle + half, y), Color::WHISKER, 1.5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_when_bars_are_narrower_run_upwards() {
        let bars = vec![Some(Bar { value: 12.34, spread: None }), None];
        let series = BarSeries { name: "us".into(), color: Color::MILLRACE, bars };
        let (title, unit) = (String::new(), String::new());
        let chart = BarChart { title, unit, groups: Vec::new(), series: vec![series] };
        assert_eq!(chart.direction(WIDEST_BAR), Direction::Across);
        assert_eq!(chart.direction(30.0), Direction::Upwards);
    }
}
