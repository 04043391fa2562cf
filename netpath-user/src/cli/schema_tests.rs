//! The schemas of what verbs print as JSON, made from the very types that print it, are those in `docs/schema`.
//!
//! After a change: `NETPATH_WRITE_SCHEMAS=1 cargo test -p netpath-user schemas`, and look at the difference: fields are
//! added, never renamed.

use std::{fs, path::Path};

use schemars::{JsonSchema, generate::SchemaSettings};

use super::{ct, detach, drops, inspect, migrate, policy, ports};
use crate::{
    report::{EndpointStatus, PolicyApplied, PolicyStatus},
    status,
};

/// A line of `netpath ct events`.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum EventLine {
    Told(ct::Told<'static>),
    Lost(ct::Lost),
}

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
    check::<Vec<ct::ListedConnection>>("ct-ls");
    check::<ct::Count>("ct-count");
    check::<ct::Removed>("ct-rm");
    check::<ct::Stats>("ct-stats");
    check::<EventLine>("ct-events");
    check::<PolicyStatus>("policy-show");
    check::<policy::Checked>("policy-check");
    check::<PolicyApplied>("policy-apply");
    check::<Vec<drops::Drops>>("drops");
    check::<detach::Report>("detach");
    check::<migrate::CheckReport>("migrate-check");
    check::<migrate::MoveReport>("migrate-to");
}
