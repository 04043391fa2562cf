//! The schemas of what verbs print as JSON, made from the very types that print it, are those in `docs/schema`.
//!
//! After a change: `NETPATH_WRITE_SCHEMAS=1 cargo test -p netpath-user schemas`, and look at the difference: fields are
//! added, never renamed.

use std::{fs, path::Path};

use schemars::{JsonSchema, generate::SchemaSettings};

use super::{detach, drops, inspect, migrate, ports};
use crate::{report::EndpointStatus, status};

fn check<T: JsonSchema>(verb: &str) {
    let schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>();
    let made = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema").join(format!("{verb}.json"));
    if std::env::var_os("NETPATH_WRITE_SCHEMAS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "{} isn't what `netpath {verb} -o json` prints; see schema_tests.rs", path.display());
}

#[test]
fn the_schemas_are_those_of_what_is_printed() {
    check::<status::Status>("status");
    check::<Vec<status::Network>>("net-ls");
    check::<Vec<inspect::Inspection>>("net-inspect");
    check::<Vec<EndpointStatus>>("endpoint-ls");
    check::<Vec<ports::Port>>("ports");
    check::<Vec<drops::Drops>>("drops");
    check::<detach::Report>("detach");
    check::<migrate::CheckReport>("migrate-check");
    check::<migrate::MoveReport>("migrate-to");
}
