//! How verbs speak: data on stdout as a table or as JSON, messages on stderr.

use std::{
    fmt,
    io::{self, Write as _},
};

use anyhow::Context as _;
use serde::Serialize;

/// The shape of the data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people: columns, units, names
    Table,
    /// For programs: stable field names
    Json,
    /// The table with all there is to say; where there is no more, the table
    Wide,
    /// The lines of `conntrack -L`: for `ct ls` and `ct events`
    Conntrack,
}

/// Prints a report: itself as JSON, or what `render` makes of it.
pub(super) fn show<T: Serialize + ?Sized>(
    format: Format,
    report: &T,
    render: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let text = match format {
        Format::Table | Format::Wide | Format::Conntrack => render(report),
        Format::Json => serde_json::to_string_pretty(report).context("writing JSON")? + "\n",
    };
    print(&text)
}

/// Writes to stdout. A reader that has enough, such as `head`, is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    stream(text).map(drop)
}

/// The same for data without end: says whether somebody still reads.
pub(super) fn stream(text: &str) -> anyhow::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing to stdout"),
    }
}

/// Tells the user something that isn't data. There is nobody left to tell when stderr is closed.
pub(super) fn message(text: impl fmt::Display) {
    writeln!(io::stderr(), "netpath: {text}").ok();
}

/// A borderless table in the style of docker's.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// The room between two columns.
    const GAP: usize = 3;

    pub(super) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self::with_header(header.into())
    }

    /// The same for columns that aren't always the same.
    pub(super) fn with_header(header: Vec<&str>) -> Self {
        Self { rows: vec![header.into_iter().map(str::to_owned).collect()] }
    }

    /// Adds a row; empty cells show as `-`.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.add(cells.into());
    }

    /// The same for columns that aren't always the same.
    pub(super) fn add(&mut self, cells: Vec<String>) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// Whether there is only the header.
    pub(super) const fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let Some((last, others)) = row.split_last() else { continue };
            for (cell, width) in others.iter().zip(&widths) {
                write!(formatter, "{cell:<width$}", width = width + Self::GAP)?;
            }
            writeln!(formatter, "{last}")?;
        }
        Ok(())
    }
}

/// `12ms` rounded away, `59s`, `4m5s`, `2h3m`, `5d0h`: two units at most.
pub(super) fn human_duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, _, _) => format!("{days}d{hours}h"),
    }
}

/// `999 B`, `1.5 kB`, `12 MB`: powers of 1000, as docker shows them.
pub(super) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut divisor = 1_u64;
    let mut unit = 0;
    while bytes / divisor >= 1000 {
        divisor *= 1000;
        unit += 1;
    }
    let whole = bytes / divisor;
    if unit == 0 || whole >= 10 {
        return format!("{whole} {}", UNITS[unit]);
    }
    let tenth = bytes / (divisor / 10) % 10;
    format!("{whole}.{tenth} {}", UNITS[unit])
}

/// The name of an IP protocol that netpath carries.
pub(super) const fn protocol_name(number: u8) -> &'static str {
    match number {
        1 => "icmp",
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        47 => "gre",
        50 => "esp",
        132 => "sctp",
        _ => "unknown",
    }
}

/// The first 12 characters of a Docker id.
pub(super) fn short_id(id: &str) -> String {
    id.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::{Table, human_bytes, human_duration, short_id};

    #[test]
    fn columns_are_aligned_and_lines_end_where_their_text_does() {
        let mut table = Table::new(["A", "LONG NAME", "C"]);
        assert!(table.is_empty());
        table.row(["first".into(), String::new(), "x".into()]);
        table.row(["2".into(), "é".into(), "yy".into()]);
        assert!(!table.is_empty());
        assert_eq!(
            table.to_string(),
            "A       LONG NAME   C\n\
             first   -           x\n\
             2       é           yy\n"
        );
    }

    #[test]
    fn durations_show_two_units_at_most() {
        for (milliseconds, expected) in [
            (0, "0s"),
            (59_999, "59s"),
            (60_000, "1m0s"),
            (3_599_000, "59m59s"),
            (3_600_000, "1h0m"),
            (432_000_000, "5d0h"),
        ] {
            assert_eq!(human_duration(milliseconds), expected);
        }
    }

    #[test]
    fn bytes_show_two_digits_at_least() {
        for (bytes, expected) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1999, "1.9 kB"), (12_345_678, "12 MB"), (u64::MAX, "18 EB")]
        {
            assert_eq!(human_bytes(bytes), expected);
        }
    }

    #[test]
    fn ids_are_shortened_like_dockers() {
        assert_eq!(short_id("0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id(""), "");
    }
}
