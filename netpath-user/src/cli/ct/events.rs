//! `netpath ct events`: connections as they begin and end, a line each, until somebody has seen enough.
//!
//! Without a daemon too: the events come from the pinned ring buffer ([`Listener`]).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Args, value_parser};
use netpath_common::{
    abi::{EndReason, Event, EventKind, Flow},
    conntrack::Shown,
};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    connection::{Names, Tuple},
    format::Line,
    monotonic_ns, network_names,
    state::{State, state},
};
use crate::{
    cli::{
        args::Global,
        exit::{Exit, NothingAttached},
        output::{Format, message, protocol_name, stream},
    },
    dataplane::Listener,
};

/// Between looks for lost events and for the end of netpath.
const CHECK: Duration = Duration::from_secs(1);

/// When to stop.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct EventsArgs {
    /// Stop after so many events
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop after this time: seconds, or with a unit such as 500ms, 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
}

/// An event as JSON. Fields are added, never renamed.
#[derive(Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Told<'told> {
    /// `new` or `destroy`.
    event: &'static str,
    time_unix_ms: u64,
    protocol: &'static str,
    protocol_number: u8,
    state: &'static str,
    kind: &'static str,
    original: Tuple,
    reply: Tuple,
    network: Option<&'told str>,
    network_number: u16,
    replied: bool,
    assured: bool,
    /// Why it has ended.
    reason: Option<&'static str>,
    idle_ms: u64,
    expires_ms: u64,
}

/// Events that a slow listener missed, as JSON.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Lost {
    event: &'static str,
    events: u64,
}

/// What a line needs besides the event.
struct Context {
    format: Format,
    names: Names,
    /// The time of the monotonic clock's zero, since 1970.
    epoch_ms: u64,
}

pub(super) async fn run(global: &Global, args: &EventsArgs) -> anyhow::Result<Exit> {
    let names = network_names(global, &global.pins()?).await?;
    let mut listener = Listener::open(&global.pin_dir)?;
    let context = Context::new(global.output, names)?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for signals")?;
    let timeout = sleep(args.timeout.unwrap_or(Duration::MAX));
    let mut timeout = std::pin::pin!(timeout);
    let mut check = interval(CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut lost = 0;
    loop {
        tokio::select! {
            readable = listener.readable() => readable.context("waiting for events")?,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = &mut timeout, if args.timeout.is_some() => break,
            _ = check.tick() => {
                if listener.has_ended() {
                    return Err(NothingAttached(global.pin_dir.clone()).into());
                }
                lost = report_lost(&listener, &context, lost)?;
            }
        }
        if !print(&mut listener, &context, &mut left)? || left == 0 {
            break;
        }
    }
    report_lost(&listener, &context, lost)?;
    Ok(Exit::Ok)
}

/// Prints what there is now; says whether somebody still reads.
fn print(listener: &mut Listener, context: &Context, left: &mut u64) -> anyhow::Result<bool> {
    while *left > 0
        && let Some(event) = listener.take()
    {
        let Some(line) = context.line(&event)? else { continue };
        if !stream(&(line + "\n"))? {
            return Ok(false);
        }
        *left -= 1;
    }
    Ok(true)
}

/// Tells of events that were lost since there were `known`, and gives how many there are by now.
fn report_lost(listener: &Listener, context: &Context, known: u64) -> anyhow::Result<u64> {
    let lost = listener.lost()?;
    let events = lost.saturating_sub(known);
    if events > 0 {
        message(format_args!("{events} events were lost: connections came and went faster than they were printed"));
        if context.format == Format::Json {
            stream(&(json(&Lost { event: "lost", events })? + "\n"))?;
        }
    }
    Ok(lost)
}

impl Context {
    fn new(format: Format, names: Names) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Ok(Self { format, names, epoch_ms: now_ms.saturating_sub(monotonic_ns()? / 1_000_000) })
    }

    /// An event's line; none for one that a later netpath may have added.
    fn line(&self, event: &Event) -> anyhow::Result<Option<String>> {
        let Some(kind) = EventKind::of(event.kind) else { return Ok(None) };
        let told = self.told(event, kind);
        match self.format {
            Format::Json => json(&told).map(Some),
            Format::Table | Format::Conntrack => Ok(Some(text(&told, kind))),
            Format::Wide => Ok(Some(text(&told, kind) + &more(&told))),
        }
    }

    fn told(&self, event: &Event, kind: EventKind) -> Told<'_> {
        let protocol = event.key.protocol;
        let shown = |seen| Shown { seen, ..Shown::default() };
        let State { name, timeout_ns, assured } =
            state(protocol, &shown(event.seen), &shown(event.reply_seen), &self.names.timeouts);
        let idle_ns = event.time_ns.saturating_sub(event.last_seen_ns);
        let reason = EndReason::ALL.into_iter().find(|reason| *reason as u8 == event.reason);
        Told {
            event: match kind {
                EventKind::New => "new",
                EventKind::Destroy => "destroy",
            },
            time_unix_ms: self.epoch_ms + event.time_ns / 1_000_000,
            protocol: protocol_name(protocol),
            protocol_number: protocol,
            state: name,
            kind: Flow { role: event.role, ..bytemuck::Zeroable::zeroed() }.kind().name(),
            original: event.key.into(),
            reply: event.reply_key.into(),
            network: self.names.networks.get(&event.network).map(String::as_str),
            network_number: event.network,
            replied: event.reply_seen != 0,
            assured,
            reason: reason.map(EndReason::name),
            idle_ms: idle_ns / 1_000_000,
            expires_ms: timeout_ns.saturating_sub(idle_ns) / 1_000_000,
        }
    }
}

/// The line of `conntrack -E`: no time where there is none left.
fn text(told: &Told<'_>, kind: EventKind) -> String {
    let what = match kind {
        EventKind::New => "[NEW]",
        EventKind::Destroy => "[DESTROY]",
    };
    let line = Line {
        protocol: told.protocol_number,
        timeout: Some(told.expires_ms / 1000).filter(|seconds| *seconds > 0),
        state: told.state,
        original: told.original,
        reply: told.reply,
        replied: told.replied,
        assured: told.assured,
    };
    format!("{what:>9} {}", line.text())
}

/// What conntrack doesn't know.
fn more(told: &Told<'_>) -> String {
    let network = told.network.map_or_else(|| told.network_number.to_string(), str::to_owned);
    let reason = told.reason.map(|reason| format!(" reason={reason}")).unwrap_or_default();
    format!(" kind={} network={network}{reason}", told.kind)
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    serde_json::to_string(value).context("writing JSON")
}

/// Reads `5`, `0.5`, `500ms`, `30s`, `5m` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let seconds = match &text[number.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("units are ms, s, m and h".to_owned()),
    };
    let value: f64 = number.parse().map_err(|_| "expected a time such as 30 or 500ms".to_owned())?;
    Duration::try_from_secs_f64(value * seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use netpath_common::abi::Seen;
    use proptest::prelude::*;

    use super::{super::sample::*, *};

    fn context(format: Format) -> Context {
        Context { format, names: names(), epoch_ms: 1_000_000 }
    }

    fn event(kind: EventKind, reason: u8, seen: [u8; 2]) -> Event {
        let [(key, flow), (reply_key, _)] = published();
        let [seen, reply_seen] = seen;
        Event {
            time_ns: 110 * SECOND,
            last_seen_ns: 107 * SECOND,
            key,
            reply_key,
            network: 1,
            kind: kind as u8,
            reason,
            role: flow.role,
            seen,
            reply_seen,
            reserved: 0,
        }
    }

    fn line(format: Format, event: &Event) -> String {
        context(format).line(event).unwrap().unwrap()
    }

    #[test]
    fn lines_are_those_of_conntrack() {
        let new = Event { last_seen_ns: 110 * SECOND, ..event(EventKind::New, 0, [Seen::PACKET, 0]) };
        let tuples = [
            "src=198.51.100.7 dst=192.0.2.1 sport=5353 dport=53",
            "src=172.17.0.2 dst=198.51.100.7 sport=5300 dport=5353",
        ];
        let [original, reply] = tuples;
        assert_eq!(line(Format::Table, &new), format!("    [NEW] udp      17 30 {original} [UNREPLIED] {reply}"));
        assert_eq!(line(Format::Conntrack, &new), line(Format::Table, &new));
        let gone = event(EventKind::Destroy, EndReason::Removed as u8, [Seen::PACKET; 2]);
        assert_eq!(line(Format::Table, &gone), format!("[DESTROY] udp      17 27 {original} {reply}"));
        assert!(line(Format::Wide, &gone).ends_with("dport=5353 kind=published network=bridge reason=removed"));
        let expired = Event { last_seen_ns: 0, time_ns: 500 * SECOND, ..gone };
        assert_eq!(line(Format::Table, &expired), format!("[DESTROY] udp      17 {original} {reply}"));
    }

    #[test]
    fn json_is_an_object_on_one_line() {
        let text = line(Format::Json, &event(EventKind::Destroy, EndReason::Expired as u8, [Seen::PACKET, 0]));
        assert!(!text.contains('\n'));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((json["event"].as_str(), json["reason"].as_str()), (Some("destroy"), Some("expired")));
        assert_eq!((json["time_unix_ms"].as_u64(), json["idle_ms"].as_u64()), (Some(1_110_000), Some(3000)));
        assert_eq!((json["network"].as_str(), json["kind"].as_str()), (Some("bridge"), Some("published")));
        assert_eq!(json["original"]["source"], "198.51.100.7");
        let new = line(Format::Json, &event(EventKind::New, 0, [Seen::PACKET, 0]));
        assert!(new.contains("\"event\":\"new\"") && new.contains("\"reason\":null"), "{new}");
    }

    #[test]
    fn an_event_of_a_later_netpath_is_passed_over() {
        let unknown = Event { kind: 99, ..event(EventKind::New, 0, [Seen::PACKET, 0]) };
        assert_eq!(context(Format::Table).line(&unknown).unwrap(), None);
    }

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in
            [("5", 5000), ("0.5", 500), ("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1", "1d", "never", "1 s", "1e999"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_event_fails(bytes: [u8; size_of::<Event>()]) {
            let event: Event = bytemuck::pod_read_unaligned(&bytes);
            for format in [Format::Table, Format::Wide, Format::Conntrack, Format::Json] {
                let line = context(format).line(&event).unwrap();
                prop_assert_eq!(line.is_some(), matches!(event.kind, 1 | 2));
            }
        }
    }
}
