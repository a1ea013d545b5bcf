//! Curves as SVG, drawn by hand: axes, ticks, a legend.
//!
//! Takes points, gives the text of a picture. It knows nothing of what they mean.

use std::fmt::Write as _;

/// A picture.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// What it shows.
    pub(crate) title: String,
    /// What lies along the horizontal axis, and how.
    pub(crate) x: Axis,
    /// And along the vertical one.
    pub(crate) y: Axis,
    /// The curves.
    pub(crate) series: Vec<Series>,
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    /// What is counted.
    pub(crate) label: &'static str,
    /// How far apart values are.
    pub(crate) scale: Scale,
}

/// How far apart values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// By their difference, from nought.
    Linear,
    /// By their ratio.
    Logarithmic,
}

/// A curve.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Its name in the legend.
    pub(crate) name: String,
    /// Its points, from left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 320.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 55.0;

/// Told apart also by who sees few colours: light and dark alternate.
const COLOURS: [&str; 8] = ["#1b4f9c", "#d1691e", "#2e8b57", "#b03060", "#6a5acd", "#8b6914", "#20a0a8", "#555555"];

impl Plot {
    /// The picture.
    pub(crate) fn to_svg(&self) -> String {
        let all = || self.series.iter().flat_map(|series| series.points.iter().copied());
        let x = Range::of(self.x.scale, all().map(|(x, _)| x));
        let y = Range::of(self.y.scale, all().map(|(_, y)| y));
        let across = |value: f64| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
        let up = |value: f64| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let mut line = |text: String| {
            svg.push_str(&text);
            svg.push('\n');
        };
        line(text(LEFT, 22.0, "start", 15, &self.title));
        for tick in x.ticks() {
            let at = across(tick);
            line(format!("<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#e4e4e4\"/>"));
            line(text(at, bottom + 18.0, "middle", 12, &written(tick)));
        }
        for tick in y.ticks() {
            let at = up(tick);
            line(format!("<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#e4e4e4\"/>"));
            line(text(LEFT - 8.0, at + 4.0, "end", 12, &written(tick)));
        }
        line(format!("<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>"));
        line(text(f64::midpoint(LEFT, right), HEIGHT - 14.0, "middle", 12, self.x.label));
        line(format!(
            "<text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(TOP, bottom),
            escaped(self.y.label)
        ));
        for (number, (series, colour)) in self.series.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let mut path = String::new();
            for (at, (x, y)) in series.points.iter().enumerate() {
                let command = if at == 0 { 'M' } else { 'L' };
                // Writing to a String cannot fail.
                let _ = write!(path, "{command}{:.1} {:.1}", across(*x), up(*y));
                line(format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", across(*x), up(*y)));
            }
            line(format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"));
            let at = TOP + 14.0 + 20.0 * number as f64;
            line(format!("<path d=\"M{} {at}h22\" stroke=\"{colour}\" stroke-width=\"3\"/>", right + 14.0));
            line(text(right + 42.0, at + 4.0, "start", 12, &series.name));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn text(x: f64, y: f64, anchor: &str, size: u8, what: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{}</text>", escaped(what))
}

/// For HTML and SVG.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// 1,000,000 rather than 1000000; no more digits than tell ticks apart.
fn written(value: f64) -> String {
    if value != 0.0 && value.abs() < 10.0 {
        let text = format!("{value:.3}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// What an axis reaches over.
struct Range {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Range {
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        // Nothing that is not positive has a logarithm.
        let values: Vec<f64> = values.filter(|value| scale == Scale::Linear || *value > 0.0).collect();
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        match scale {
            Scale::Linear => Self { scale, low: 0.0, high: if most > 0.0 { most * 1.05 } else { 1.0 } },
            Scale::Logarithmic if values.is_empty() => Self { scale, low: 1.0, high: 10.0 },
            Scale::Logarithmic => {
                let (low, high) = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
                Self { scale, low, high: if high > low { high } else { low * 10.0 } }
            }
        }
    }

    /// Between 0 and 1.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => {
                let value = value.max(self.low);
                (value / self.low).log10() / (self.high / self.low).log10()
            }
        }
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                // The round step that gives six ticks or a few less.
                let rough = (self.high - self.low) / 6.0;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough);
                let step = step.unwrap_or(rough);
                (0..=10).map(|number| f64::from(number) * step).take_while(|tick| *tick <= self.high).collect()
            }
            Scale::Logarithmic => std::iter::successors(Some(self.low), |tick| Some(tick * 10.0))
                .take_while(|tick| *tick <= self.high * 1.001)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, scale: Scale) -> Plot {
        let axis = Axis { label: "a < b & c", scale };
        Plot { title: "\"t\"".to_owned(), x: axis, y: axis, series: vec![Series { name: "s".to_owned(), points }] }
    }

    #[test]
    fn every_point_lies_inside_the_axes() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let values = [0.001, 0.5, 1.0, 7.0, 1_000_000.0];
            let range = Range::of(scale, values.into_iter());
            for value in values {
                assert!((0.0..=1.0).contains(&range.place(value)), "{scale:?} {value}");
            }
            assert!(range.ticks().len() >= 2, "{scale:?}");
        }
    }

    #[test]
    fn nothing_and_nought_are_drawn_without_a_number_that_is_none() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for points in [vec![], vec![(0.0, 0.0)], vec![(5.0, 5.0)], vec![(1.0, 0.0), (10.0, 3.0)]] {
                let svg = plot(points.clone(), scale).to_svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{scale:?} {points:?}");
            }
        }
    }

    #[test]
    fn names_cannot_become_markup() {
        let svg = plot(vec![(1.0, 1.0)], Scale::Linear).to_svg();
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("&quot;t&quot;"));
    }

    #[test]
    fn numbers_as_people_write_them() {
        let cases = [(0.0, "0"), (0.25, "0.25"), (1.0, "1"), (10.0, "10"), (1_000.0, "1,000"), (1e6, "1,000,000")];
        for (value, text) in cases {
            assert_eq!(written(value), text);
        }
    }
}
