//! `GET /openapi.json`.

use harness::app::TestApp;
use serde_json::Value;
use shared::http::openapi::document;
use std::collections::BTreeSet;
use std::path::Path;

/// Set this variable to write the document anew.
const REFRESH: &str = "REEF_WRITE_OPENAPI";

#[test]
fn the_checked_in_document_is_the_one_of_this_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/openapi.json");
    if std::env::var_os(REFRESH).is_some() {
        std::fs::write(&path, document()).expect("the source tree");
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == document(),
        "the surfaces changed; run: {REFRESH}=1 cargo test -p tests --test http openapi"
    );
}

#[tokio::test]
async fn the_document_is_served_without_a_token_and_every_path_in_it_exists() {
    let app = TestApp::new();
    let answer = app.get("/openapi.json", "").send().await;
    assert_eq!(answer.text(), document());
    let document: Value = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_uppercase().parse().expect("a method");
            let concrete = path.replace(['{', '}'], "");
            let answer = app.ask(method, &concrete, "").send().await;
            assert!(![404, 405].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
        }
    }
}

#[test]
fn every_operation_has_an_id_of_its_own() {
    let document: Value = serde_json::from_str(&document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").values();
    let operations = paths.flat_map(|methods| methods.as_object().expect("methods").values());
    let ids: Vec<_> = operations.map(|operation| operation["operationId"].as_str().expect("an id")).collect();
    let different: BTreeSet<_> = ids.iter().collect();
    assert_eq!(different.len(), ids.len(), "{ids:?}");
}
