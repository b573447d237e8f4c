//! The strokes of a chart: text, lines, blocks and circles, as SVG.

use std::fmt::Write as _;

/// A colour of the product's palette.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(&'static str);

impl Color {
    /// Ours.
    pub const MILLRACE: Self = Self("#0c8f6f");
    /// Another mode of ours.
    pub const MILLRACE_LIGHT: Self = Self("#7fd1b9");
    /// The peer.
    pub const PEER: Self = Self("#5b6672");
    /// Another mode of the peer.
    pub const PEER_LIGHT: Self = Self("#b4bec8");
    /// A second peer: the kernel.
    pub const KERNEL: Self = Self("#d9822b");
    const PAPER: Self = Self("#ffffff");
    const TEXT: Self = Self("#17202a");
    const FAINT: Self = Self("#6b7682");
    pub(super) const GRID: Self = Self("#e3e7eb");
    pub(super) const WHISKER: Self = Self("#17202a");
}

/// A rectangle, from its upper left corner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

/// How high a capital or a digit of the built-in font is, in sizes of the font.
const CAPITAL: f64 = 0.7;

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    size: f64,
    color: Color,
    anchor: &'static str,
    /// A stroke around the letters, as heavier weights of the font are not built in.
    weight: f64,
}

impl Style {
    const fn new(size: f64, color: Color, anchor: &'static str, weight: f64) -> Self {
        Self { size, color, anchor, weight }
    }

    pub(super) fn title() -> Self {
        Self::new(50.0, Color::TEXT, "start", 1.1)
    }

    pub(super) fn subtitle() -> Self {
        Self::new(25.0, Color::FAINT, "start", 0.2)
    }

    pub(super) fn footer() -> Self {
        Self::new(17.0, Color::FAINT, "start", 0.2)
    }

    pub(super) fn legend() -> Self {
        Self::new(22.0, Color::TEXT, "start", 0.4)
    }

    pub(super) fn panel_title() -> Self {
        Self::new(26.0, Color::TEXT, "start", 0.7)
    }

    pub(super) fn unit() -> Self {
        Self::new(18.0, Color::FAINT, "start", 0.2)
    }

    pub(super) fn tick() -> Self {
        Self::new(17.0, Color::FAINT, "end", 0.2)
    }

    pub(super) fn group() -> Self {
        Self::new(20.0, Color::TEXT, "middle", 0.3)
    }

    /// The number at a bar or point, in its series' colour.
    pub(super) fn value(color: Color) -> Self {
        let color = match color {
            Color::PEER_LIGHT => Color::PEER,
            Color::MILLRACE_LIGHT => Color::MILLRACE,
            color => color,
        };
        Self::new(18.0, color, "middle", 0.6)
    }

    /// The number at the foot of a bar.
    pub(super) fn foot(color: Color) -> Self {
        let is_light = [Color::PEER_LIGHT, Color::MILLRACE_LIGHT].contains(&color);
        let color = if is_light { Color::TEXT } else { Color::PAPER };
        Self::new(19.0, color, "middle", 0.5)
    }

    /// About how wide `text` is: the mean width of a letter of the built-in font.
    pub(super) fn width(&self, text: &str) -> f64 {
        0.54 * self.size * text.chars().count() as f64
    }

    /// About how high `text` is.
    pub(super) fn height(&self, text: &str, direction: Direction) -> f64 {
        match direction {
            Direction::Across => CAPITAL * self.size,
            Direction::Upwards => self.width(text),
        }
    }
}

/// How a text runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Across,
    /// From bottom to top, where there is no room for its width.
    Upwards,
}

/// The picture while it is drawn.
#[derive(Debug)]
pub(super) struct Canvas(String);

impl Canvas {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"Ubuntu, 'Helvetica Neue', Arial, sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        ))
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // A write into a String cannot fail.
        let _ = writeln!(self.0, "{element}");
    }

    pub(super) fn text(&mut self, x: f64, y: f64, text: &str, style: &Style) {
        let Style { size, color, anchor, weight } = style;
        let color = color.0;
        let text = escaped(text);
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{color}\" \
             stroke=\"{color}\" stroke-width=\"{weight}\">{text}</text>"
        ));
    }

    /// A text above `foot`, with its middle, or that of its letters, at `x`.
    pub(super) fn text_along(
        &mut self,
        direction: Direction,
        (x, foot): (f64, f64),
        text: &str,
        style: &Style,
    ) {
        match direction {
            Direction::Across => self.text(x, foot, text, &Style { anchor: "middle", ..*style }),
            Direction::Upwards => {
                let x = x + CAPITAL / 2.0 * style.size;
                self.push(format_args!("<g transform=\"rotate(-90 {x:.1} {foot:.1})\">"));
                self.text(x, foot, text, &Style { anchor: "start", ..*style });
                self.push(format_args!("</g>"));
            }
        }
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), color: Color, width: f64) {
        self.push(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{}\" stroke-width=\"{width}\"/>",
            from.0, from.1, to.0, to.1, color.0
        ));
    }

    /// A filled rectangle with corners of radius `round`.
    pub(super) fn block(&mut self, area: Area, color: Color, round: f64) {
        let Area { left, top, width, height } = area;
        self.push(format_args!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{round}\" \
             fill=\"{}\"/>",
            color.0
        ));
    }

    /// A line through `points` with a dot at each.
    pub(super) fn curve(&mut self, points: &[(f64, f64)], color: Color) {
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"4\" stroke-linejoin=\"round\" \
             stroke-linecap=\"round\"/>",
            path.join(" "),
            color.0
        ));
        for (x, y) in points {
            self.push(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\" fill=\"#ffffff\" stroke=\"{}\" stroke-width=\"4\"/>",
                color.0
            ));
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
