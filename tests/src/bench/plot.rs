//! The plots: a bar for each carrier with its spread, and lines for what grows. SVG, written by plotters.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::IntoSegmentedCoord as _;
use plotters::prelude::*;

use super::carrier::Carrier;
use super::figures::{Better, Figure, Samples, Spread};
use super::measure::{Grows, Measure};
use super::plan::Plan;

const SIZE: (u32, u32) = (860, 360);
const FONT: &str = "sans-serif";

/// Writes a plot for each figure that says something; gives the files' names.
///
/// # Errors
/// When one can't be written.
pub fn write(directory: &Path, samples: &Samples, plan: &Plan) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (index, measure) in plan.measures.iter().enumerate() {
        if plan.measures[..index].iter().any(|earlier| earlier.name == measure.name) {
            continue;
        }
        for figure in measure.figures.iter().filter(|figure| figure.better != Better::Neither) {
            let name = format!("{}-{}.svg", measure.name, file_name(figure.name));
            let path = directory.join(&name);
            let drawn = match measure.setting.grows {
                None => bars(&path, samples, plan, measure, figure),
                Some(grows) => lines(&path, samples, plan, measure, figure, grows),
            };
            if drawn.map_err(|error| anyhow!("draw {}: {error}", path.display()))? {
                names.push(name);
            }
        }
    }
    Ok(names)
}

type Drawn = std::result::Result<bool, Box<dyn std::error::Error>>;

/// False when there is nothing to draw.
fn bars(path: &Path, samples: &Samples, plan: &Plan, measure: &Measure, figure: &Figure) -> Drawn {
    let spread = |carrier: &Carrier| Some((*carrier, samples.spread(measure, figure, *carrier)?));
    let spreads: Vec<_> = plan.carriers.iter().filter_map(spread).collect();
    let Some(most) = most(spreads.iter().map(|(_, spread)| spread)) else { return Ok(false) };
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let count = i32::try_from(spreads.len())?;
    let mut chart = ChartBuilder::on(&root)
        .caption(caption(measure, figure), (FONT, 15))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(90)
        .build_cartesian_2d((0..count).into_segmented(), 0.0..most * 1.1)?;
    let name = |value: &SegmentValue<i32>| match value {
        SegmentValue::CenterOf(index) => {
            usize::try_from(*index).ok().and_then(|index| spreads.get(index)).map_or("", |(carrier, _)| carrier.name())
        }
        SegmentValue::Exact(_) | SegmentValue::Last => "",
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(1)
        .x_labels(spreads.len() + 1)
        .x_label_formatter(&|value| name(value).to_owned())
        .y_desc(figure.unit)
        .y_label_formatter(&|value| label(*value))
        .draw()?;
    for (index, (carrier, spread)) in (0..).zip(&spreads) {
        let (left, right) = (SegmentValue::Exact(index), SegmentValue::Exact(index + 1));
        let mut bar = Rectangle::new([(left, 0.0), (right, spread.median)], colour(*carrier).filled());
        bar.set_margin(0, 0, 18, 18);
        chart.draw_series([bar])?;
        let (centre, style) = (SegmentValue::CenterOf(index), BLACK.stroke_width(1));
        let (least, median, most) = (spread.least, spread.median, spread.most);
        chart.draw_series([ErrorBar::new_vertical(centre, least, median, most, style, 10)])?;
    }
    root.present()?;
    Ok(true)
}

/// False when there is nothing to draw.
fn lines(path: &Path, samples: &Samples, plan: &Plan, measure: &Measure, figure: &Figure, grows: Grows) -> Drawn {
    let points: Vec<_> = plan.measures.iter().filter(|point| point.name == measure.name).collect();
    let line = |carrier: &Carrier| {
        let at = |point: &&Measure| Some((point.setting.point(), samples.spread(point, figure, *carrier)?));
        (*carrier, points.iter().filter_map(at).collect::<Vec<_>>())
    };
    let lines: Vec<_> = plan.carriers.iter().map(line).filter(|(_, points)| !points.is_empty()).collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let Some(most) = most(all().map(|(_, spread)| spread)) else { return Ok(false) };
    let last = all().map(|(point, _)| *point).max().unwrap_or(1);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(caption(measure, figure), (FONT, 15))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(90)
        .build_cartesian_2d((1..last + last / 4 + 1).log_scale(), 0.0..most * 1.1)?;
    chart.configure_mesh().x_desc(grows.name()).y_desc(figure.unit).y_label_formatter(&|value| label(*value)).draw()?;
    for (carrier, points) in &lines {
        let colour = colour(*carrier);
        chart
            .draw_series(LineSeries::new(
                points.iter().map(|(at, spread)| (*at, spread.median)),
                colour.stroke_width(2),
            ))?
            .label(carrier.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|(at, spread)| {
            ErrorBar::new_vertical(*at, spread.least, spread.median, spread.most, colour.filled(), 8)
        }))?;
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(true)
}

fn most<'a>(spreads: impl Iterator<Item = &'a Spread>) -> Option<f64> {
    spreads.map(|spread| spread.most).max_by(f64::total_cmp).filter(|most| *most > 0.0)
}

fn caption(measure: &Measure, figure: &Figure) -> String {
    let better = if figure.better == Better::More { "more is better" } else { "less is better" };
    format!("{}: {} ({better})", measure.title, figure.name)
}

fn colour(carrier: Carrier) -> RGBColor {
    match carrier {
        Carrier::Iptables => RGBColor(0xb0, 0x3a, 0x2e),
        Carrier::Legacy => RGBColor(0xd9, 0x88, 0x80),
        Carrier::Nftables => RGBColor(0xd6, 0x89, 0x10),
        Carrier::Routed => RGBColor(0x99, 0xa3, 0xa4),
        Carrier::Bare => RGBColor(0x5d, 0x6d, 0x7e),
        Carrier::Netpath => RGBColor(0x1f, 0x61, 0x8d),
        Carrier::NetpathXdp => RGBColor(0x5d, 0xad, 0xe2),
    }
}

fn label(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e3 => format!("{:.0} k", value / 1e3),
        value if value >= 10.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

/// Letters, digits and hyphens.
fn file_name(name: &str) -> String {
    let kept = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
    kept.collect::<String>().trim_matches('-').to_owned()
}
