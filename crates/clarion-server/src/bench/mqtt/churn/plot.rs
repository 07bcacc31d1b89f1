//! A churn's memory and disk as an SVG image, readable on a light and on a dark ground.
//!
//! Must not know: how the figures came about.

use std::fmt::Write;

use super::series::Row;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 400.0;
/// Where the axes are.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 780.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 350.0;
/// Marks on an axis, at most.
const MARKS: f64 = 8.0;

const STYLE: &str = "text{font:13px sans-serif;fill:#57606a}.title{font-weight:bold}line{stroke:#8c959f;stroke-opacity:.35}\
    .axis{stroke-opacity:1}polyline{fill:none;stroke-width:2}.rss{stroke:#0969da}.disk{stroke:#bc4c00}\
    text.rss{stroke:none;fill:#0969da}text.disk{stroke:none;fill:#bc4c00}\
    @media(prefers-color-scheme:dark){text{fill:#9da7b3}.rss{stroke:#58a6ff}.disk{stroke:#f0883e}\
    text.rss{fill:#58a6ff}text.disk{fill:#f0883e}}";

/// The image.
pub(super) fn svg(rows: &[Row], title: &str) -> String {
    let minutes = rows.last().map_or(1.0, |row| row.seconds / 60.0).max(0.1);
    let figures = rows.iter().flat_map(|row| [row.rss_mib, row.disk_mib]).flatten();
    let most = figures.fold(1.0, f64::max);
    let (step_x, step_y) = (step(minutes), step(most));
    let end_y = (most / step_y).ceil() * step_y;
    let x = |minute: f64| LEFT + minute / minutes * (RIGHT - LEFT);
    let y = |mib: f64| BOTTOM - mib / end_y * (BOTTOM - TOP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<text class=\"title\" x=\"{LEFT}\" y=\"24\">{title}</text>\n"
    );
    for mark in marks(step_y, end_y) {
        line(&mut out, "", (LEFT, y(mark)), (RIGHT, y(mark)));
        text(&mut out, ("", "end"), (LEFT - 8.0, y(mark) + 4.0), &label(mark));
    }
    for mark in marks(step_x, minutes) {
        line(&mut out, "", (x(mark), TOP), (x(mark), BOTTOM));
        text(&mut out, ("", "middle"), (x(mark), BOTTOM + 20.0), &label(mark));
    }
    line(&mut out, "axis", (LEFT, TOP), (LEFT, BOTTOM));
    line(&mut out, "axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    text(&mut out, ("", "end"), (LEFT - 8.0, TOP - 12.0), "MiB");
    text(&mut out, ("", "middle"), ((LEFT + RIGHT) / 2.0, BOTTOM + 40.0), "minutes");
    text(&mut out, ("rss", "start"), (RIGHT - 230.0, TOP - 12.0), "\u{2014} resident memory");
    text(&mut out, ("disk", "start"), (RIGHT - 80.0, TOP - 12.0), "\u{2014} on disk");
    let rss: Vec<Option<f64>> = rows.iter().map(|row| row.rss_mib).collect();
    let disk: Vec<Option<f64>> = rows.iter().map(|row| row.disk_mib).collect();
    for (class, line) in [("rss", rss), ("disk", disk)] {
        let minutes = rows.iter().map(|row| row.seconds / 60.0);
        let points = minutes.zip(line).filter_map(|(minute, mib)| Some((minute, mib?)));
        let points: Vec<String> =
            points.map(|(minute, mib)| format!("{:.1},{:.1}", x(minute), y(mib))).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
    }
    out.push_str("</svg>\n");
    out
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let place = format!("x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"");
    let _ = writeln!(out, "<line class=\"{class}\" {place}/>");
}

fn text(out: &mut String, (class, anchor): (&str, &str), (x, y): (f64, f64), said: &str) {
    let place = format!("x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"");
    let _ = writeln!(out, "<text class=\"{class}\" {place}>{said}</text>");
}

/// 1, 2 or 5 times a power of ten, so that an axis up to `most` has not too many marks.
fn step(most: f64) -> f64 {
    let power = 10f64.powf((most / MARKS).log10().floor());
    let fits = [1.0, 2.0, 5.0].into_iter().find(|step| most / (step * power) <= MARKS);
    fits.unwrap_or(10.0) * power
}

fn marks(step: f64, end: f64) -> impl Iterator<Item = f64> {
    (0..).map(move |n| f64::from(n) * step).take_while(move |mark| *mark <= end * 1.000_001)
}

fn label(mark: f64) -> String {
    // At most two digits behind the point, and none that says nothing.
    let label = format!("{mark:.2}");
    label.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_within_the_axes() {
        let row = |n: u32| Row {
            seconds: f64::from(n) * 60.0,
            rss_mib: Some(100.0 + f64::from(n)),
            disk_mib: Some(380.0),
            ..Row::default()
        };
        let rows: Vec<Row> = (0..=10).map(row).collect();
        let image = svg(&rows, "Churn");
        assert_eq!(image.matches("<polyline").count(), 2);
        assert!(image.contains(">400</text>") && image.contains(">10</text>"), "{image}");
        let points = image.split("points=\"").skip(1).flat_map(|rest| {
            rest.split('"').next().unwrap().split(' ').map(|point| point.split_once(',').unwrap())
        });
        for (x, y) in points.map(|(x, y)| (x.parse::<f64>().unwrap(), y.parse::<f64>().unwrap())) {
            assert!((LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y), "{x} {y}");
        }
        assert!(svg(&[], "Nothing").contains("<polyline"));
    }

    #[test]
    fn marks_are_round() {
        for (most, found) in [(10.0, 2.0), (400.0, 50.0), (0.7, 0.1), (1.0, 0.2), (83.0, 20.0)] {
            assert!((step(most) - found).abs() < 1e-9, "{most}: {}", step(most));
        }
        assert_eq!(marks(0.1, 0.3).count(), 4);
        assert_eq!(
            (label(0.5), label(100.0), label(0.0)),
            ("0.5".into(), "100".into(), "0".into())
        );
    }
}
