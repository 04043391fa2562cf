//! What lists have in common, as docker's have it: `--filter`, `-q`, `--no-trunc`, and objects named by name or id.

use std::mem::discriminant;

use clap::Args;

use super::output::{Format, print, short_id, show};

/// How a list is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub(super) struct ListArgs {
    /// Print ids only, one a line
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Don't shorten ids
    #[arg(long)]
    pub(super) no_trunc: bool,
}

/// Which columns a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// All that there is to say.
    pub(super) wide: bool,
    /// Ids in full.
    pub(super) no_trunc: bool,
}

impl Look {
    /// An id as the look has it.
    pub(super) fn id(self, id: &str) -> String {
        if self.no_trunc { id.to_owned() } else { short_id(id) }
    }
}

impl ListArgs {
    /// Prints a list: its ids, or itself as JSON, or as a table.
    pub(super) fn show<T: serde::Serialize>(
        self,
        format: Format,
        list: &[T],
        id: impl Fn(&T, Look) -> String,
        table: impl FnOnce(&[T], Look) -> String,
    ) -> anyhow::Result<()> {
        let look = Look { wide: format == Format::Wide, no_trunc: self.no_trunc };
        if self.quiet {
            return print(&list.iter().map(|row| id(row, look) + "\n").collect::<String>());
        }
        show(format, list, |list| table(list, look))
    }
}

/// Splits `KEY=VALUE`.
///
/// # Errors
///
/// When it is something else, or there is no such key.
pub(super) fn key_value<'a>(text: &'a str, keys: &[&str]) -> Result<(&'a str, &'a str), String> {
    let known = || format!("filters are {}", keys.iter().map(|key| format!("{key}=")).collect::<Vec<_>>().join(", "));
    match text.split_once('=') {
        Some((key, _)) if !keys.contains(&key) => Err(format!("there is no filter {key:?}; {}", known())),
        Some((key, "")) => Err(format!("the filter {key:?} has no value")),
        Some(pair) => Ok(pair),
        None => Err(format!("expected KEY=VALUE; {}", known())),
    }
}

/// `true` and `false`, and what docker takes for them.
///
/// # Errors
///
/// When it is neither.
pub(super) fn switch(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{value:?} is neither true nor false")),
    }
}

/// Whether an object fits: filters of one kind are alternatives, different kinds must all fit.
pub(super) fn fits<F>(filters: &[F], fits: impl Fn(&F) -> bool) -> bool {
    filters.iter().all(|wanted| {
        let mut alternatives = filters.iter().filter(|other| discriminant(*other) == discriminant(wanted));
        alternatives.any(&fits)
    })
}

/// Whether an object with this name and id is meant: by its name, its id, or the beginning of its id.
pub(super) fn is_meant(wanted: &str, name: &str, id: &str) -> bool {
    !wanted.is_empty() && (wanted == name || id.starts_with(wanted))
}

/// Why an object can't be found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LookupError {
    /// There is none.
    #[error("no such {kind}: {wanted}")]
    None {
        /// What was looked for.
        kind: &'static str,
        /// The name or id.
        wanted: String,
    },
    /// There are several.
    #[error("{wanted} is the beginning of the ids of {count} {kind}s; give more of it, or the name")]
    Several {
        /// What was looked for.
        kind: &'static str,
        /// The beginning of the id.
        wanted: String,
        /// How many there are.
        count: usize,
    },
}

/// The one object that is meant, as docker finds it: by the whole id, else the name, else a beginning of the id that no
/// other has.
///
/// # Errors
///
/// When none or several are meant.
pub(super) fn find<'a, T>(
    kind: &'static str,
    objects: &'a [T],
    wanted: &str,
    name_and_id: impl Fn(&T) -> (&str, &str),
) -> Result<&'a T, LookupError> {
    let exact = |object: &&T| name_and_id(object).1 == wanted;
    let named = |object: &&T| name_and_id(object).0 == wanted;
    if let Some(object) = objects.iter().find(exact).or_else(|| objects.iter().find(named)) {
        return Ok(object);
    }
    let begins = |object: &&T| is_meant(wanted, name_and_id(object).0, name_and_id(object).1);
    let found: Vec<&T> = objects.iter().filter(begins).collect();
    match found.as_slice() {
        [object] => Ok(object),
        [] => Err(LookupError::None { kind, wanted: wanted.to_owned() }),
        several => Err(LookupError::Several { kind, wanted: wanted.to_owned(), count: several.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::{LookupError, find, fits, key_value};

    #[test]
    fn filters_have_a_key_that_is_known_and_a_value() {
        let keys = ["name", "id"];
        assert_eq!(key_value("name=a=b", &keys), Ok(("name", "a=b")));
        for (text, expected) in [("name", "KEY=VALUE"), ("nme=web", "no filter \"nme\""), ("id=", "no value")] {
            let error = key_value(text, &keys).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn filters_of_one_kind_are_alternatives_and_different_kinds_must_all_fit() {
        enum Filter {
            Number(u8),
            Even(bool),
        }
        let holds = |filters: &[Filter], number: u8| {
            fits(filters, |filter| match filter {
                Filter::Number(wanted) => *wanted == number,
                Filter::Even(even) => number.is_multiple_of(2) == *even,
            })
        };
        assert!(holds(&[], 7));
        let either = [Filter::Number(6), Filter::Number(7)];
        assert!(holds(&either, 6) && holds(&either, 7) && !holds(&either, 8));
        let both = [Filter::Number(6), Filter::Number(7), Filter::Even(true)];
        assert!(holds(&both, 6) && !holds(&both, 7));
    }

    #[test]
    fn objects_are_found_as_docker_finds_them() {
        let objects = [("web", "abc1"), ("abd", "abe2"), ("db", "abd3"), ("abc1", "fff4")];
        let find = |wanted| find("network", &objects, wanted, |object| (object.0, object.1)).map(|found| found.1);
        assert_eq!(find("web"), Ok("abc1"));
        assert_eq!(find("abc"), Ok("abc1"));
        assert_eq!(find("abc1"), Ok("abc1"), "the id comes before another's name");
        assert_eq!(find("abd"), Ok("abe2"), "the name comes before the beginning of another's id");
        assert_eq!(find("ab"), Err(LookupError::Several { kind: "network", wanted: "ab".to_owned(), count: 3 }));
        assert_eq!(find("x").unwrap_err().to_string(), "no such network: x");
        assert!(find("").is_err());
    }
}
