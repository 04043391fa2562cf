//! The gate against regressions: netpath's ratios to iptables, beside those of an earlier run's `samples.json`.
//!
//! Ratios, not absolute values: the machine may be another one, or busier. A ratio is worse when even its best round is
//! worse than the worst round of the earlier run, and its median by more than a twentieth.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::carrier::Carrier;
use super::figures::{Better, Figure, Samples, Spread};
use super::measure::Measure;

/// Below this, medians differ by chance.
const MARGIN: f64 = 0.05;

#[derive(Deserialize)]
struct Stored {
    samples: Samples,
}

/// Compares; gives a line for each ratio of both runs that got worse, and how many there were to compare.
///
/// # Errors
/// When the file can't be read, or has nothing in common with this run.
pub fn regressions(file: &Path, now: &Samples, measures: &[Measure]) -> Result<(Vec<String>, usize)> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let before: Stored =
        serde_json::from_str(&text).with_context(|| format!("{} isn't a samples.json", file.display()))?;
    let before = before.samples;
    let (mut worse, mut compared) = (Vec::new(), 0);
    for measure in measures {
        for figure in measure.figures.iter().filter(|figure| figure.better != Better::Neither) {
            for carrier in [Carrier::Netpath, Carrier::NetpathXdp] {
                let ratios = |samples: &Samples| samples.ratios(measure, figure, carrier);
                let (Some(old), Some(new)) = (ratios(&before), ratios(now)) else { continue };
                compared += 1;
                if got_worse(figure, &old, &new) {
                    let [old, new] = [old, new]
                        .map(|ratio| format!("{:.2} ({:.2} .. {:.2})", ratio.median, ratio.least, ratio.most));
                    let name = carrier.name();
                    worse.push(format!("{} ({}), {name}: {new} of iptables, was {old}", measure.label(), figure.name));
                }
            }
        }
    }
    ensure!(compared > 0, "{} has no ratio that this run has too", file.display());
    Ok((worse, compared))
}

fn got_worse(figure: &Figure, old: &Spread, new: &Spread) -> bool {
    match figure.better {
        Better::More => new.most < old.least && new.median < old.median * (1.0 - MARGIN),
        Better::Less => new.least > old.most && new.median > old.median * (1.0 + MARGIN),
        Better::Neither => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_loss_is_a_regression() {
        let spread = |values: &[f64]| Spread::of(values.to_vec()).unwrap();
        let (old, less) = (spread(&[2.0, 2.1, 2.2]), spread(&[1.5, 1.6, 1.7]));
        let figure = |better| Figure { name: "", unit: "", better };
        assert!(got_worse(&figure(Better::More), &old, &less));
        assert!(!got_worse(&figure(Better::Less), &old, &less));
        assert!(got_worse(&figure(Better::Less), &less, &old));
        assert!(!got_worse(&figure(Better::Neither), &old, &less));
        assert!(!got_worse(&figure(Better::More), &old, &spread(&[1.5, 1.6, 2.0])), "the spreads overlap");
        assert!(!got_worse(&figure(Better::More), &old, &spread(&[1.996, 1.997, 1.998])), "by a trifle");
    }
}
