//! How does one see the figures? A [`Figure`] is a slide: a title, a legend, and panels of grouped bars or lines, written
//! as SVG and as PNG. Nothing of the machine goes into the picture, not even its fonts: the PNG looks the same everywhere.
//!
//! ```
//! use bench::chart::{Bar, BarChart, BarSeries, Color, Figure, Panel};
//! let series = |name: &str, color, values: [f64; 2]| BarSeries {
//!     name: name.into(),
//!     color,
//!     bars: values.map(|value| Some(Bar { value, spread: None })).to_vec(),
//! };
//! let panel = Panel::Bars(BarChart {
//!     title: "Cost of a packet".into(),
//!     unit: "cycles, lower is better".into(),
//!     groups: vec!["64 B".into(), "1500 B".into()],
//!     series: vec![
//!         series("Millrace", Color::MILLRACE, [1.0, 2.0]),
//!         series("a peer", Color::PEER, [2.0, 4.0]),
//!     ],
//! });
//! let figure = Figure {
//!     title: "Pod to pod".into(),
//!     subtitle: "an example".into(),
//!     footer: "no machine".into(),
//!     panels: vec![panel],
//! };
//! assert!(figure.svg().starts_with("<svg"));
//! ```

mod axis;
mod bars;
mod draw;
mod lines;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use resvg::{tiny_skia, usvg};

pub(crate) use axis::size;
pub use bars::{Bar, BarChart, BarSeries};
pub use draw::Color;
pub use lines::{LineChart, LineSeries, Scale};

use draw::{Area, Canvas, Style};

const WIDTH: f64 = 1600.0;
const HEIGHT: f64 = 900.0;
const MARGIN: f64 = 80.0;
/// Pixels of the PNG per unit of the SVG.
const PNG_SCALE: f32 = 1.5;
const PANELS_TOP: f64 = 245.0;
const PANELS_BOTTOM: f64 = 800.0;
const PANEL_GAP: f64 = 70.0;

/// A slide.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What it shows, in a few words.
    pub title: String,
    /// Of what.
    pub subtitle: String,
    /// Where and how it was measured.
    pub footer: String,
    /// Side by side.
    pub panels: Vec<Panel>,
}

/// One set of axes.
#[derive(Debug, Clone)]
pub enum Panel {
    /// Grouped bars.
    Bars(BarChart),
    /// Lines over sizes.
    Lines(LineChart),
}

impl Panel {
    /// Its share of the width.
    fn weight(&self) -> f64 {
        match self {
            Self::Bars(chart) => chart.weight(),
            Self::Lines(_) => 6.0,
        }
    }

    fn legend(&self) -> Vec<(String, Color)> {
        match self {
            Self::Bars(chart) => {
                chart.series.iter().map(|series| (series.name.clone(), series.color)).collect()
            }
            Self::Lines(chart) => {
                chart.series.iter().map(|series| (series.name.clone(), series.color)).collect()
            }
        }
    }

    fn draw(&self, canvas: &mut Canvas, area: Area) {
        match self {
            Self::Bars(chart) => chart.draw(canvas, area),
            Self::Lines(chart) => chart.draw(canvas, area),
        }
    }
}

impl Figure {
    /// The slide as SVG text.
    pub fn svg(&self) -> String {
        let mut canvas = Canvas::new(WIDTH, HEIGHT);
        canvas.text(MARGIN, 92.0, &self.title, &Style::title());
        canvas.text(MARGIN, 136.0, &self.subtitle, &Style::subtitle());
        canvas.text(MARGIN, HEIGHT - 34.0, &self.footer, &Style::footer());
        self.draw_legend(&mut canvas);
        let weights: f64 = self.panels.iter().map(Panel::weight).sum();
        let gaps = PANEL_GAP * self.panels.len().saturating_sub(1) as f64;
        let room = WIDTH - 2.0 * MARGIN - gaps;
        let mut left = MARGIN;
        for panel in &self.panels {
            let width = room * panel.weight() / weights;
            panel
                .draw(&mut canvas, Area { left, top: PANELS_TOP, width, height: PANELS_BOTTOM - PANELS_TOP });
            left += width + PANEL_GAP;
        }
        canvas.finish()
    }

    /// Each name once, in the order in which the panels bring them.
    fn draw_legend(&self, canvas: &mut Canvas) {
        let mut seen: Vec<String> = Vec::new();
        let mut left = MARGIN;
        for (name, color) in self.panels.iter().flat_map(Panel::legend) {
            if seen.contains(&name) {
                continue;
            }
            canvas.block(Area { left, top: 166.0, width: 22.0, height: 22.0 }, color, 5.0);
            canvas.text(left + 32.0, 184.0, &name, &Style::legend());
            left += 32.0 + Style::legend().width(&name) + 36.0;
            seen.push(name);
        }
    }

    /// The slide as PNG bytes.
    ///
    /// # Errors
    /// The picture cannot be drawn.
    pub fn png(&self) -> anyhow::Result<Vec<u8>> {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
        let family = fonts
            .faces()
            .next()
            .and_then(|face| face.families.first().map(|(name, _)| name.clone()))
            .context("the built-in font has no name")?;
        fonts.set_sans_serif_family(&family);
        let options =
            usvg::Options { font_family: family, fontdb: Arc::new(fonts), ..usvg::Options::default() };
        let tree = usvg::Tree::from_str(&self.svg(), &options).context("the chart is no SVG")?;
        let (width, height) = (WIDTH as f32 * PNG_SCALE, HEIGHT as f32 * PNG_SCALE);
        let mut picture =
            tiny_skia::Pixmap::new(width as u32, height as u32).context("no room for the picture")?;
        let scale = tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE);
        resvg::render(&tree, scale, &mut picture.as_mut());
        picture.encode_png().context("the picture cannot be encoded")
    }

    /// Writes `folder/name.svg` and `folder/name.png`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        for (extension, bytes) in [("svg", self.svg().into_bytes()), ("png", self.png()?)] {
            let path = folder.join(name).with_extension(extension);
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let bar = |value| Some(Bar { value, spread: Some((0.9 * value, 1.2 * value)) });
        let bars = BarChart {
            title: "bars <&>".into(),
            unit: "cycles".into(),
            groups: vec!["64 B".into(), "512 B".into()],
            series: vec![
                BarSeries { name: "us".into(), color: Color::MILLRACE, bars: vec![bar(100.0), bar(200.0)] },
                BarSeries { name: "them".into(), color: Color::PEER, bars: vec![bar(270.0), None] },
            ],
        };
        let lines = LineChart {
            title: "lines".into(),
            unit: "Gbit/s".into(),
            sizes: vec![64, 1500, 131_072],
            scale: Scale::Logarithmic,
            series: vec![LineSeries {
                name: "us".into(),
                color: Color::MILLRACE,
                values: vec![Some(0.06), None, Some(15.0)],
            }],
        };
        Figure {
            title: "A title".into(),
            subtitle: "of nothing".into(),
            footer: "nowhere".into(),
            panels: vec![Panel::Bars(bars), Panel::Lines(lines)],
        }
    }

    #[test]
    fn svg_when_texts_hold_markup_is_escaped() {
        let svg = figure().svg();
        assert!(svg.contains("bars &lt;&amp;&gt;"));
        assert_eq!(svg.matches(">us</text>").count(), 1, "one entry in the legend");
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn png_when_drawn_has_ink_in_letters() {
        let png = figure().png().unwrap();
        assert_eq!(&png[1..4], b"PNG");
        let picture = tiny_skia::Pixmap::decode_png(&png).unwrap();
        let dark = |pixel: &&tiny_skia::PremultipliedColorU8| pixel.red() < 100;
        assert!(picture.pixels().iter().filter(dark).count() > 2000, "the title is there");
    }
}
