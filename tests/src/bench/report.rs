//! The report: a table for the terminal, Markdown for people, JSON for programs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::carrier::Carrier;
use super::figures::{Figure, Spread};
use super::measure::Measure;
use super::plan::Plan;
use super::{Outcome, plot};
use crate::report::Uplink;

/// A row of the table: one carrier on one figure.
type Row = [String; 5];

const HEAD: [&str; 5] = ["measure", "carrier", "median (least .. most)", "of iptables", "against iptables"];

/// The table, with its columns aligned.
#[must_use]
pub fn table(outcome: &Outcome, plan: &Plan) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(self::rows(outcome, plan));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// The same with where, when and how, in Markdown.
#[must_use]
pub fn markdown(outcome: &Outcome, plan: &Plan) -> String {
    let machine = &outcome.machine;
    let hook = |uplink: &Uplink| {
        let (hook, xdp) = (uplink.hook.as_deref().unwrap_or("none"), uplink.xdp_mode.as_deref().unwrap_or("off"));
        format!("tc hook {hook}, XDP {xdp}")
    };
    let hooks: Vec<_> = outcome.uplinks.iter().map(hook).collect();
    let others = outcome.samples.others().map_or_else(String::new, |others| {
        format!("{:.2} CPUs in the median sample, {:.2} in the worst", others.median, others.most)
    });
    let facts = [
        ("date", format!("{} UTC", machine.date)),
        ("machine", format!("{} x {}", machine.cpus, machine.cpu)),
        ("kernel", machine.kernel.clone()),
        ("docker", machine.docker.clone()),
        ("iptables", machine.iptables.clone()),
        ("netpath", format!("{}; uplink: {}", machine.netpath, hooks.join("; "))),
        ("rounds", format!("{} counted, after one that isn't", plan.rounds)),
        (
            "load average",
            format!("{} before, {} after (the run itself adds about 2)", machine.load_before, machine.load_after),
        ),
        ("used by other programs", others),
    ];
    let mut text = String::from("| | |\n|---|---|\n");
    for (name, value) in facts {
        line(&mut text, &[name, &value]);
    }
    text.push('\n');
    line(&mut text, &HEAD);
    text.push_str("|---|---|---|---|---|\n");
    for row in rows(outcome, plan) {
        line(&mut text, &row);
    }
    if !outcome.failed.is_empty() {
        text.push_str("\nCouldn't be taken:\n\n");
        text.extend(outcome.failed.iter().map(|failed| format!("- {}\n", failed.replace('\n', " "))));
    }
    text
}

/// Writes `samples.json`, `report.md` and the plots.
///
/// # Errors
/// When they can't be written.
pub fn write(directory: &Path, outcome: &Outcome, plan: &Plan) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let raw = json!({ "machine": outcome.machine, "samples": outcome.samples, "failed": outcome.failed });
    let mut text = markdown(outcome, plan);
    for name in plot::write(directory, &outcome.samples, plan)? {
        text.push_str(&format!("\n![{name}]({name})\n"));
    }
    let files = [
        ("samples.json", serde_json::to_string_pretty(&raw).context("write the samples as JSON")?),
        ("report.md", text),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn rows(outcome: &Outcome, plan: &Plan) -> Vec<Row> {
    let mut rows = Vec::new();
    for measure in &plan.measures {
        for figure in measure.figures {
            rows.extend(plan.carriers.iter().filter_map(|carrier| row(outcome, measure, figure, *carrier)));
        }
    }
    rows
}

fn row(outcome: &Outcome, measure: &Measure, figure: &Figure, carrier: Carrier) -> Option<Row> {
    let spread = outcome.samples.spread(measure, figure, carrier)?;
    let comparison = outcome.samples.compare(measure, figure, carrier).filter(|_| carrier != Carrier::Iptables);
    let ratio = comparison.and_then(|comparison| comparison.ratio());
    Some([
        format!("{}: {} ({})", measure.label(), figure.name, figure.unit),
        carrier.name().to_owned(),
        self::spread(&spread),
        ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
        comparison.map_or("–", |comparison| comparison.verdict()).to_owned(),
    ])
}

fn spread(spread: &Spread) -> String {
    format!("{} ({} .. {})", number(spread.median), number(spread.least), number(spread.most))
}

/// Whole numbers with their thousands apart; small ones with a decimal.
fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.3}");
    }
    if value < 1000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn line(text: &mut String, cells: &[impl AsRef<str>]) {
    let cells: Vec<_> = cells.iter().map(AsRef::as_ref).collect();
    text.extend(["| ", &cells.join(" | "), " |\n"]);
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [number(0.4711), number(43.21), number(999.96), number(1234.5), number(1_234_567.0)],
            ["0.471", "43.2", "1000.0", "1,234", "1,234,567"]
        );
    }
}
