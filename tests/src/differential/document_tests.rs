//! docs/nat-compliance.md and docs/docker-parity.md name tests and differences: all of them must exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::known::KnownDifference;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// With every difference from Docker's rules.
const COMPLIANCE: &str = "docs/nat-compliance.md";

/// With a row for everything that Docker does.
const PARITY: &str = "docs/docker-parity.md";

fn read(document: &str) -> Result<String> {
    fs::read_to_string(workspace().join(document)).with_context(|| format!("read {document}"))
}

/// The Rust sources below a directory, one after the other.
fn sources(directory: &Path) -> Result<String> {
    let mut all = String::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            all += &sources(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &fs::read_to_string(&path)?;
        }
    }
    Ok(all)
}

/// What stands in backticks behind a word and a colon: `host: a_test`.
fn named<'a>(document: &'a str, kind: &str) -> BTreeSet<&'a str> {
    let prefix = format!("{kind}: ");
    document.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix(&prefix)).collect()
}

/// The names of functions that are marked as tests.
fn test_functions(source: &str) -> BTreeSet<&str> {
    let marked = source.split("#[test]").skip(1);
    marked.filter_map(|rest| rest.split_once("fn ")?.1.split_once('(')).map(|(name, _)| name).collect()
}

fn check(kind: &str, exists: impl Fn(&str) -> bool) -> Result<()> {
    for document in [COMPLIANCE, PARITY] {
        let text = read(document)?;
        let named = named(&text, kind);
        ensure!(!named.is_empty(), "{document} names nothing of the kind {kind:?}");
        let missing: Vec<_> = named.into_iter().filter(|name| !exists(name)).collect();
        ensure!(missing.is_empty(), "{document} names what doesn't exist: {kind} {missing:#?}");
    }
    Ok(())
}

#[test]
fn the_host_tests_that_the_documents_name_exist() -> Result<()> {
    let crates = ["netpath-common/src", "netpath-user/src"];
    let source: String = crates.iter().map(|name| sources(&workspace().join(name))).collect::<Result<_>>()?;
    let functions = test_functions(&source);
    check("host", |name| functions.contains(name))
}

#[test]
fn the_program_tests_that_the_documents_name_exist() -> Result<()> {
    let source = sources(&workspace().join("tests/tests/program"))?;
    let functions = test_functions(&source);
    check("program", |name| functions.contains(name))
}

#[test]
fn the_system_tests_that_the_documents_name_exist() -> Result<()> {
    let source = sources(&workspace().join("tests/tests/system"))?;
    check("system", |name| source.contains(&format!("\"{name}\"")))
}

#[test]
fn the_scenarios_that_the_documents_name_exist() -> Result<()> {
    let source = sources(&workspace().join("tests/src/differential/generate"))?;
    check("differential", |name| source.contains(&format!("pub(super) fn {name}(dice: &mut Dice) -> Vec<Step>")))
}

#[test]
fn every_known_difference_has_its_row_and_every_row_its_difference() -> Result<()> {
    let document = read(COMPLIANCE)?;
    let ids: BTreeSet<_> = KnownDifference::ALL.iter().map(|known| known.id()).collect();
    ensure!(ids.len() == KnownDifference::ALL.len(), "two differences have one identifier");
    let (_, section) = document.split_once("## Known differences").context("find the section")?;
    let rows: BTreeSet<_> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(id, _)| id).collect();
    ensure!(rows == ids, "rows {rows:?}, differences {ids:?}");
    check("difference", |name| ids.contains(name))
}

/// Rows 1 to 61 are those of Docker's behaviours, and each row has one of three marks.
#[test]
fn every_behaviour_of_docker_has_its_row_and_its_mark() -> Result<()> {
    let document = read(PARITY)?;
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| #") && !line.starts_with("| Issue"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for row in &rows {
        ensure!(
            row.len() == 4 && ["same", "better", "not"].contains(&row[2]),
            "no mark, or other than 4 columns: {row:?}"
        );
    }
    let mut numbers = BTreeSet::new();
    for row in &rows {
        let ends = row[0].replace(" - ", ", ").split(", ").filter_map(|end| end.parse().ok()).collect::<Vec<u32>>();
        if let (Some(first), Some(last)) = (ends.first(), ends.last()) {
            numbers.extend(*first..=*last);
        }
    }
    ensure!(numbers == (1..=61).collect(), "the rows are {numbers:?}");
    Ok(())
}
