//! The description of the API, made from the handlers and types themselves.

use utoipa::OpenApi;

use super::{change, live, read};

/// Returns the description of the API (OpenAPI 3.1).
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Basalt", description = "Immutable infrastructure in one binary: the controller's API."),
    paths(
        read::health,
        read::openapi,
        change::shutdown,
        read::status,
        live::status_stream,
        read::events,
        live::event_stream,
        change::plan,
        change::apply,
        change::down,
        read::releases,
        read::logs,
        change::pause,
        change::resume,
        change::promote,
        change::abort,
        change::rollback,
        change::scale,
    )
)]
struct Description;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::endpoints::endpoints;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn description() -> Value {
        serde_json::to_value(openapi()).unwrap()
    }

    #[test]
    fn every_call_is_described_and_every_description_is_a_call() {
        let served: BTreeSet<String> = endpoints().iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        let description = description();
        let described: BTreeSet<String> = description["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, calls)| {
                let methods = calls.as_object().unwrap().keys();
                methods.map(move |method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(served, described);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, whole: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        let found = whole.pointer(reference.trim_start_matches('#'));
                        assert!(found.is_some(), "{reference}");
                    }
                    fields.values().for_each(|value| walk(value, whole));
                }
                Value::Array(values) => values.iter().for_each(|value| walk(value, whole)),
                _ => {}
            }
        }
        let description = description();
        walk(&description, &description);
    }

    #[test]
    fn the_status_has_the_keys_that_are_described() {
        let view = crate::show::sample::view();
        let status = serde_json::to_value(crate::show::status(&view, &crate::ServerInfo::default())).unwrap();
        let description = description();
        let check = |schema: &str, value: &Value| {
            let described = description["components"]["schemas"][schema]["properties"].as_object().unwrap();
            let keys: BTreeSet<_> = value.as_object().unwrap().keys().collect();
            assert_eq!(keys, described.keys().collect(), "{schema}");
        };
        check("Status", &status);
        let web = &status["services"][0];
        check("ServiceStatus", web);
        check("RolloutStatus", &web["rollout"]);
        check("InstanceStatus", &web["instances"][0]);
        check("Traffic", &web["traffic"][0]);
        check("JobStatus", &status["jobs"][0]);
        check("GatewayStatus", &status["gateway"]);
    }

    #[test]
    fn what_is_planned_and_applied_is_described_to_its_leaves() {
        let schemas = description()["components"]["schemas"].clone();
        for name in
            ["Desired", "Plan", "ServiceChange", "FieldChange", "Release", "HealthSettings", "Rules", "RolloutSpec"]
        {
            let properties = schemas[name]["properties"].as_object();
            assert!(
                properties.is_some_and(|all| all.values().all(|of| *of != serde_json::json!({ "type": "object" }))),
                "{name}"
            );
        }
        let (image, nothing) = (format!("sha256:{}", "0".repeat(64)).parse().unwrap(), BTreeSet::new());
        let release = basalt_model::Release::new(basalt_model::Kind::Service, image);
        let release = serde_json::to_value(release).unwrap();
        let keys: BTreeSet<_> = release.as_object().unwrap().keys().collect();
        let described: BTreeSet<_> = schemas["Release"]["properties"].as_object().unwrap().keys().collect();
        assert_eq!(keys.difference(&described).collect::<BTreeSet<_>>(), nothing);
    }
}
