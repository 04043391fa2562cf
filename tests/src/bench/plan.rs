//! In which order what is measured.
//!
//! By turns: in each round every carrier has its turn, and in its turn it carries every measure once. The round before
//! the first one warms up and doesn't count. What needs more containers comes last, because they stay.

use std::collections::BTreeSet;

use super::carrier::Carrier;
use super::measure::{Effort, Measure, all};
use super::site::Kind;
use super::tcp::Congestion;

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The measures, of all points.
    pub measures: Vec<Measure>,
    /// Those of the carriers that take part.
    pub carriers: Vec<Carrier>,
    /// Rounds that count.
    pub rounds: usize,
}

/// One sample to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Of what.
    pub measure: Measure,
    /// Carried by whom.
    pub carrier: Carrier,
    /// In which round; zero warms up.
    pub round: usize,
}

impl Plan {
    /// The measures with one of these names, or all; of those only the ones for a quick run, if it is one.
    ///
    /// # Errors
    /// When the kernel doesn't tell whether it has bbr.
    pub fn choose(names: &[String], quick: bool, rounds: usize) -> anyhow::Result<Self> {
        let bbr = Congestion::Bbr.is_offered()?;
        let chosen = |measure: &Measure| match names {
            [] => !quick || measure.effort == Effort::Always,
            names => names.iter().any(|name| name == measure.name),
        };
        let mut measures = all();
        measures.retain(|measure| chosen(measure) && (bbr || !measure.name.ends_with("-bbr")));
        let carriers = if quick { &[Carrier::Iptables, Carrier::Netpath][..] } else { &Carrier::ALL };
        Ok(Self { measures, carriers: carriers.to_vec(), rounds })
    }

    /// The labs that it needs.
    #[must_use]
    pub fn sites(&self) -> BTreeSet<Kind> {
        let kind = |step: &Step| step.carrier.site(step.measure.setting.ports.max(step.measure.setting.publishes));
        self.steps().iter().map(kind).collect()
    }

    /// Everything in order.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let crowds: BTreeSet<_> = self.measures.iter().map(|measure| measure.setting.containers).collect();
        let mut steps = Vec::new();
        for crowd in crowds {
            for round in 0..=self.rounds {
                for carrier in &self.carriers {
                    let mut turn = self.measures.clone();
                    turn.retain(|measure| {
                        measure.setting.containers == crowd
                            && measure.effort.takes(round)
                            && measure.carriers.contains(carrier)
                    });
                    // Each lab once in a turn.
                    turn.sort_by_key(|measure| carrier.site(measure.setting.ports.max(measure.setting.publishes)));
                    steps.extend(turn.into_iter().map(|measure| Step { measure, carrier: *carrier, round }));
                }
            }
        }
        steps
    }
}

impl Step {
    /// In words.
    #[must_use]
    pub fn label(&self) -> String {
        let round = if self.round == 0 { "warm-up".to_owned() } else { format!("round {}", self.round) };
        let point = self
            .measure
            .setting
            .grows
            .map_or_else(String::new, |grows| format!(" with {} {}", self.measure.setting.point(), grows.name()));
        format!("{round}: {}{point} by {}", self.measure.name, self.carrier.name())
    }
}
