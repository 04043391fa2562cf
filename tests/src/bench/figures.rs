//! Samples and what is made of them: medians, spreads and ratios.

use serde::{Deserialize, Serialize};

use super::carrier::Carrier;
use super::measure::Measure;

/// With fewer samples, a spread says nothing.
const ENOUGH: usize = 5;

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The larger.
    More,
    /// The smaller.
    Less,
    /// It describes the load.
    Neither,
}

/// What a value is.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Its name within the measure.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
}

/// One measurement.
#[derive(Debug, Clone)]
pub struct Sample {
    /// One value for each of the measure's figures.
    pub values: Vec<f64>,
    /// The packets that must have been carried for it, at least.
    pub packets: u64,
    /// The CPUs that other programs used meanwhile; see [`super::quiet`].
    pub others: f64,
}

impl Sample {
    /// With nothing known about others yet.
    #[must_use]
    pub fn new(values: Vec<f64>, packets: u64) -> Self {
        Self { values, packets, others: 0.0 }
    }
}

/// A counted value, as the raw file has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// The measure's name.
    pub measure: String,
    /// How far has grown what the measure lets grow; zero when that is nothing.
    pub point: u32,
    /// The figure's name.
    pub figure: String,
    /// The unit.
    pub unit: String,
    /// Who carried it.
    pub carrier: String,
    /// The round, from 1.
    pub round: usize,
    /// The value.
    pub value: f64,
    /// The CPUs that other programs used meanwhile.
    pub others_cpus: f64,
}

/// Every counted value of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Samples {
    values: Vec<Value>,
}

impl Samples {
    /// Adds a sample.
    pub fn add(&mut self, measure: &Measure, carrier: Carrier, round: usize, sample: Sample) {
        let others_cpus = sample.others;
        for (figure, value) in measure.figures.iter().zip(sample.values) {
            self.values.push(Value {
                measure: measure.name.to_owned(),
                point: measure.setting.point(),
                figure: figure.name.to_owned(),
                unit: figure.unit.to_owned(),
                carrier: carrier.name().to_owned(),
                round,
                value,
                others_cpus,
            });
        }
    }

    /// The CPUs that other programs used during the samples.
    #[must_use]
    pub fn others(&self) -> Option<Spread> {
        Spread::of(self.values.iter().map(|value| value.others_cpus).collect())
    }

    /// What one has brought on a figure; none without samples.
    #[must_use]
    pub fn spread(&self, measure: &Measure, figure: &Figure, carrier: Carrier) -> Option<Spread> {
        Spread::of(self.of(measure, figure, carrier).map(|value| value.value).collect())
    }

    /// One beside Docker's iptables on a figure; none without samples of both.
    #[must_use]
    pub fn compare(&self, measure: &Measure, figure: &Figure, carrier: Carrier) -> Option<Comparison> {
        let iptables = self.spread(measure, figure, Carrier::Iptables)?;
        Some(Comparison { iptables, other: self.spread(measure, figure, carrier)?, better: figure.better })
    }

    /// The multiples of iptables' values, each of its own round; none without rounds of both.
    #[must_use]
    pub fn ratios(&self, measure: &Measure, figure: &Figure, carrier: Carrier) -> Option<Spread> {
        let ratio = |value: &Value| {
            let mut base = self.of(measure, figure, Carrier::Iptables);
            let base = base.find(|base| base.round == value.round && base.value > 0.0)?;
            Some(value.value / base.value)
        };
        Spread::of(self.of(measure, figure, carrier).filter_map(ratio).collect())
    }

    fn of<'a>(&'a self, measure: &Measure, figure: &Figure, carrier: Carrier) -> impl Iterator<Item = &'a Value> {
        let (measure, point, figure) = (measure.name, measure.setting.point(), figure.name);
        self.values.iter().filter(move |value| {
            value.measure == measure
                && value.point == point
                && value.figure == figure
                && value.carrier == carrier.name()
        })
    }
}

/// Several values of one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// How many values.
    pub count: usize,
}

impl Spread {
    /// Of values in any order; none of none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most, count) = (*values.first()?, *values.last()?, values.len());
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), least, most, count })
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.least <= other.most && other.least <= self.most
    }
}

/// Docker's iptables and another one on one figure.
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    /// Docker's iptables.
    pub iptables: Spread,
    /// The other one.
    pub other: Spread,
    better: Better,
}

impl Comparison {
    /// The other's median as a multiple of iptables', which isn't zero.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.iptables.median > 0.0).then(|| self.other.median / self.iptables.median)
    }

    /// What that means.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        let wins = match self.better {
            Better::Neither => return "–",
            Better::More => self.other.median > self.iptables.median,
            Better::Less => self.other.median < self.iptables.median,
        };
        if self.iptables.count.min(self.other.count) < ENOUGH {
            return "too few rounds to say";
        }
        match (wins, self.other.overlaps(&self.iptables)) {
            (_, true) => "no clear difference: the spreads overlap",
            (true, false) => "better",
            (false, false) => "worse",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Spread {
        Spread::of(values.to_vec()).unwrap()
    }

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(spread(&[5.0, 1.0, 3.0]), Spread { median: 3.0, least: 1.0, most: 5.0, count: 3 });
        assert_eq!(spread(&[4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn a_loss_is_called_a_loss() {
        let (slow, fast) = (spread(&[9.0, 9.5, 9.6, 9.7, 10.0]), spread(&[19.0, 19.5, 19.6, 19.7, 21.0]));
        let verdict = |iptables, other, better| Comparison { iptables, other, better }.verdict();
        assert_eq!(verdict(slow, fast, Better::More), "better");
        assert_eq!(verdict(fast, slow, Better::More), "worse");
        assert_eq!(verdict(slow, fast, Better::Less), "worse");
        assert_eq!(verdict(slow, slow, Better::Less), "no clear difference: the spreads overlap");
        assert_eq!(verdict(slow, fast, Better::Neither), "–");
        assert_eq!(verdict(spread(&[1.0]), spread(&[2.0]), Better::More), "too few rounds to say");
    }
}
