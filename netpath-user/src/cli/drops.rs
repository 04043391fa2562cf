//! `netpath drops`: why packets were dropped, and how many.

use netpath_common::drop::DropReason;
use serde::Serialize;

use super::{
    args::Global,
    exit::Exit,
    output::{Table, show},
};

/// One reason.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Drops {
    reason: &'static str,
    number: u32,
    packets: u64,
    explanation: &'static str,
}

pub(super) fn run(global: &Global) -> anyhow::Result<Exit> {
    let drops = report(&global.pins()?.drops()?);
    show(global.output, &drops, |drops| table(drops))?;
    Ok(Exit::Ok)
}

fn report(counters: &[(DropReason, u64)]) -> Vec<Drops> {
    let drops = |&(reason, packets): &(DropReason, u64)| Drops {
        reason: reason.name(),
        number: reason as u32,
        packets,
        explanation: reason.explanation(),
    };
    counters.iter().map(drops).collect()
}

fn table(drops: &[Drops]) -> String {
    let mut table = Table::new(["REASON", "PACKETS", "EXPLANATION"]);
    for drops in drops {
        table.row([drops.reason.to_owned(), drops.packets.to_string(), drops.explanation.to_owned()]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use netpath_common::drop::DropReason;
    use serde_json::json;

    use super::{report, table};

    #[test]
    fn every_reason_has_a_row_and_an_object() {
        let drops = report(&[(DropReason::Truncated, 0), (DropReason::NoFlow, 12)]);
        assert_eq!(
            table(&drops),
            "REASON      PACKETS   EXPLANATION\n\
             truncated   0         The frame ends before its headers do.\n\
             no_flow     12        The packet belongs to no flow and may not open one.\n"
        );
        let explanation = "The packet belongs to no flow and may not open one.";
        assert_eq!(
            serde_json::to_value(&drops[1]).unwrap(),
            json!({"reason": "no_flow", "number": 6, "packets": 12, "explanation": explanation})
        );
    }
}
