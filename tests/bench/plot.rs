//! Lines over two axes as SVG, for the manual: with a background of its own, so that it can be read on
//! a light page and on a dark one.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Room for the texts around the lines.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 3] = ["#1f6feb", "#c2410c", "#15803d"];

/// What an axis says, and how it is divided.
pub struct Axis {
    pub label: &'static str,
    /// Each power of ten as wide as the next.
    pub is_logarithmic: bool,
}

/// One line with its name.
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// Lines that share their axes.
pub struct Plot {
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

/// From the smallest to the largest value that is shown, with ticks between them.
struct Scale {
    from: f64,
    to: f64,
    is_logarithmic: bool,
    ticks: Vec<f64>,
}

impl Scale {
    fn of(axis: &Axis, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().fold(f64::MIN_POSITIVE, f64::max);
        let is_logarithmic = axis.is_logarithmic;
        if is_logarithmic {
            let least = values.fold(most, f64::min);
            let (from, to) =
                (least.log10().floor(), most.log10().ceil().max(1.0 + least.log10().floor()));
            let mut ticks = Vec::new();
            let mut exponent = from;
            while exponent <= to {
                ticks.push(10_f64.powf(exponent));
                exponent += 1.0;
            }
            return Self { from, to, is_logarithmic, ticks };
        }
        // Steps of 1, 2 or 5 times a power of ten, four to eight of them.
        let rough = most / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|of| of * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let mut ticks = vec![0.0];
        while ticks.last().is_some_and(|last| *last < most) {
            ticks.push(ticks.last().copied().unwrap_or_default() + step);
        }
        let to = ticks.last().copied().unwrap_or(most);
        Self { from: 0.0, to, is_logarithmic, ticks }
    }

    /// From 0 to 1.
    fn position(&self, value: f64) -> f64 {
        let value = if self.is_logarithmic { value.log10() } else { value };
        (value - self.from) / (self.to - self.from)
    }
}

impl Plot {
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let x_scale = Scale::of(&self.x, points().map(|(x, _)| x));
        let y_scale = Scale::of(&self.y, points().map(|(_, y)| y));
        let x_at = |x: f64| LEFT + x_scale.position(x) * (WIDTH - LEFT - RIGHT);
        let y_at = |y: f64| HEIGHT - BOTTOM - y_scale.position(y) * (HEIGHT - TOP - BOTTOM);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#1f2328\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"16\" font-weight=\"600\">{}</text>\n",
            self.title
        );
        let mut put = |text: std::fmt::Arguments<'_>| {
            svg.write_fmt(text).expect("a text can grow");
            svg.push('\n');
        };
        for tick in &x_scale.ticks {
            let (x, label) = (x_at(*tick), short(*tick));
            put(format_args!(
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#d8dee4\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 18.0
            ));
        }
        for tick in &y_scale.ticks {
            let (y, label) = (y_at(*tick), short(*tick));
            put(format_args!(
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#d8dee4\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                y + 4.0
            ));
        }
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text x=\"18\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {:.1})\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 14.0,
            self.x.label,
            f64::midpoint(TOP, bottom),
            f64::midpoint(TOP, bottom),
            self.y.label
        ));
        let mut name_at = LEFT;
        for (line, colour) in self.lines.iter().zip(COLOURS) {
            let path: Vec<String> = line
                .points
                .iter()
                .map(|(x, y)| format!("{:.1},{:.1}", x_at(*x), y_at(*y)))
                .collect();
            put(format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join(" ")
            ));
            for (x, y) in &line.points {
                let (x, y) = (x_at(*x), y_at(*y));
                put(format_args!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
                ));
            }
            put(format_args!(
                "<rect x=\"{name_at:.1}\" y=\"38\" width=\"14\" height=\"4\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"45\">{}</text>",
                name_at + 20.0,
                line.name
            ));
            name_at += 200.0;
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// A number of three digits at most.
fn short(value: f64) -> String {
    for (unit, name) in [(1e6, " M"), (1e3, " k")] {
        if value >= unit {
            return format!("{}{name}", value / unit);
        }
    }
    format!("{}", (value * 1000.0).round() / 1000.0)
}
