//! What the environment tells a function: where it runs, and the names of what its stack made for it.

use super::{Env, Problems};
use crate::quote::quoted;
use crate::region::MOST_REGIONS;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The environment variables that a function reads for itself, apart from those that the settings file names. The stack sets
/// those without a default: tables, queue, bucket and function.
pub const VARIABLES: [&str; 11] = [
    "REEF_CORE_TABLE",
    "REEF_LOCAL_TABLE",
    "REEF_QUEUE_URL",
    "REEF_FILES_BUCKET",
    "REEF_AGENT_FUNCTION",
    "REEF_REGION",
    "REEF_REGIONS",
    "REEF_METRICS_NAMESPACE",
    "REEF_CONFIG",
    "REEF_DEMO",
    "REEF_LOG",
];

/// Stands in the list of regions for one that was closed: the places of the others stay what they are.
pub const CLOSED: &str = "closed";

/// Where the settings are unless `REEF_CONFIG` says otherwise: in the layer.
const SETTINGS: &str = "/opt/openclaw.json";

/// Where a function runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudConfig {
    /// The region, e.g. `eu-central-1`: the one that the platform names, unless `REEF_REGION` does.
    pub region: String,
    /// The regions of the installation in the order in which they were added, [`CLOSED`] in the place of each that was
    /// closed.
    pub places: Vec<String>,
    /// The place of this region among them, for good: it is part of what the region has written.
    pub ordinal: u64,
    /// The table that is the same in every region.
    pub core_table: String,
    /// The table of this region alone.
    pub local_table: String,
    /// The queue of this region.
    pub queue_url: String,
    /// The bucket of this region, for the files that agents write.
    pub files_bucket: String,
    /// Where S3 answers if it is not AWS's own: an emulator, which knows no host of a bucket's name.
    pub s3_endpoint: Option<String>,
    /// Trust whom the host trusts (`SSL_CERT_FILE` is set), and not Amazon's authorities alone.
    pub host_roots: bool,
    /// The function that runs turns, with its alias if it has one: `name` or `name:alias`, the same in every region.
    pub agent_function: String,
    /// Under which name the function's metrics are kept, e.g. `Reef/prod`; without one it reports none.
    pub metrics_namespace: Option<String>,
    /// `openclaw.json`.
    pub settings: PathBuf,
    /// Puts every agent on the demo model.
    pub demo: bool,
}

impl CloudConfig {
    /// The regions that were not closed, this one among them.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(String::as_str).filter(|name| *name != CLOSED)
    }

    /// Whether there are other regions, or were: what a closed one wrote is taken over.
    pub fn is_one_of_several(&self) -> bool {
        self.places.len() > 1
    }

    /// Reads the environment.
    ///
    /// # Errors
    /// Everything that is wrong with it, by variable.
    pub fn read(env: Env<'_>) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let given =
            |name: &str| env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut needed = |name: &str| {
            given(name).unwrap_or_else(|| {
                problems.add(name, "is not set; the stack's template sets it");
                String::new()
            })
        };
        let region = given("REEF_REGION").unwrap_or_else(|| needed("AWS_REGION"));
        let core_table = needed("REEF_CORE_TABLE");
        let local_table = needed("REEF_LOCAL_TABLE");
        let queue_url = needed("REEF_QUEUE_URL");
        let files_bucket = needed("REEF_FILES_BUCKET");
        let agent_function = needed("REEF_AGENT_FUNCTION");
        let s3_endpoint = given("AWS_ENDPOINT_URL_S3").or_else(|| given("AWS_ENDPOINT_URL"));
        let host_roots = given("SSL_CERT_FILE").is_some();
        if !queue_url.is_empty() && !queue_url.starts_with("https://") && !queue_url.starts_with("http://") {
            problems.add(
                "REEF_QUEUE_URL",
                format!("{:?} is no address; write the queue's URL, not its name", quoted(&queue_url)),
            );
        }
        let places: Vec<String> = match given("REEF_REGIONS") {
            Some(list) => list.split(',').map(|name| name.trim().to_owned()).collect(),
            None => vec![region.clone()],
        };
        let ordinal = places.iter().zip(0..).find_map(|(name, place)| (*name == region).then_some(place));
        let regions: Vec<&String> = places.iter().filter(|name| *name != CLOSED).collect();
        let different: BTreeSet<_> = regions.iter().collect();
        let is_too_long = u64::try_from(places.len()).is_ok_and(|length| length > MOST_REGIONS);
        if is_too_long || different.len() < regions.len() || regions.iter().any(|name| name.is_empty()) {
            problems.add(
                "REEF_REGIONS",
                format!("must be 1 to {MOST_REGIONS} different regions with commas between, e.g. \"us-east-1,eu-central-1\""),
            );
        } else if !region.is_empty() && !regions.contains(&&region) {
            problems.add(
                "REEF_REGIONS",
                format!("does not hold this function's own region {region}; add it at the end"),
            );
        }
        let metrics_namespace = given("REEF_METRICS_NAMESPACE");
        if metrics_namespace.as_deref().is_some_and(|name| !is_namespace(name)) {
            problems.add(
                "REEF_METRICS_NAMESPACE",
                "must be 1 to 255 letters, digits and `.-_/#`, and not begin with `AWS/`, e.g. \"Reef/prod\"",
            );
        }
        let settings = given("REEF_CONFIG").map_or_else(|| PathBuf::from(SETTINGS), PathBuf::from);
        let demo =
            given("REEF_DEMO").is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "no" | "off"));
        if problems.is_empty() {
            Ok(Self {
                region,
                places,
                ordinal: ordinal.unwrap_or_default(),
                core_table,
                local_table,
                queue_url,
                files_bucket,
                s3_endpoint,
                host_roots,
                agent_function,
                metrics_namespace,
                settings,
                demo,
            })
        } else {
            Err(problems)
        }
    }
}

/// Whether `CloudWatch` would keep metrics under this name. It drops others without a word.
fn is_namespace(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/#".contains(&byte);
    name.len() <= 255 && name.bytes().all(plain) && !name.starts_with("AWS/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<CloudConfig, String> {
        let env = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        CloudConfig::read(&env).map_err(|problems| problems.to_string())
    }

    const STACK: [(&str, &str); 6] = [
        ("AWS_REGION", "eu-central-1"),
        ("REEF_CORE_TABLE", "reef-core"),
        ("REEF_LOCAL_TABLE", "reef-local"),
        ("REEF_QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com/1/reef-jobs"),
        ("REEF_FILES_BUCKET", "reef-files"),
        ("REEF_AGENT_FUNCTION", "reef-agent-invoke:live"),
    ];

    fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        [more, &STACK].concat()
    }

    #[test]
    fn what_the_stack_sets_is_enough() {
        let expected = CloudConfig {
            region: "eu-central-1".to_owned(),
            places: vec!["eu-central-1".to_owned()],
            ordinal: 0,
            core_table: "reef-core".to_owned(),
            local_table: "reef-local".to_owned(),
            queue_url: "https://sqs.eu-central-1.amazonaws.com/1/reef-jobs".to_owned(),
            files_bucket: "reef-files".to_owned(),
            s3_endpoint: None,
            host_roots: false,
            agent_function: "reef-agent-invoke:live".to_owned(),
            metrics_namespace: None,
            settings: PathBuf::from("/opt/openclaw.json"),
            demo: false,
        };
        assert_eq!(read(&STACK), Ok(expected));
    }

    #[test]
    fn a_regions_place_in_the_list_is_its_ordinal() {
        let config = read(&with(&[("REEF_REGIONS", "us-east-1, eu-central-1,ap-northeast-1")])).unwrap();
        assert_eq!((config.ordinal, config.places.len()), (1, 3));
    }

    #[test]
    fn a_closed_region_keeps_its_place() {
        let config = read(&with(&[("REEF_REGIONS", "closed,closed, eu-central-1,ap-northeast-1")])).unwrap();
        assert_eq!((config.ordinal, config.places.len()), (2, 4));
        assert_eq!(config.regions().collect::<Vec<_>>(), ["eu-central-1", "ap-northeast-1"]);
        // What the closed ones wrote is for the last one to take over.
        for (list, expected) in
            [("eu-central-1,closed", true), ("closed,eu-central-1", true), ("eu-central-1", false)]
        {
            assert_eq!(
                read(&with(&[("REEF_REGIONS", list)])).unwrap().is_one_of_several(),
                expected,
                "{list}"
            );
        }
    }

    #[test]
    fn an_emulated_s3_is_found_by_its_own_address_or_that_of_all_services() {
        let all = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
        let own = ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2");
        for (given, endpoint) in [(&[all][..], all.1), (&[own], own.1), (&[all, own], own.1)] {
            assert_eq!(read(&with(given)).unwrap().s3_endpoint.as_deref(), Some(endpoint));
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let told = read(&[
            ("AWS_REGION", "eu-central-1"),
            ("REEF_QUEUE_URL", "reef-jobs"),
            ("REEF_REGIONS", "us-east-1"),
        ]);
        let expected = "REEF_CORE_TABLE: is not set; the stack's template sets it\n\
                        REEF_LOCAL_TABLE: is not set; the stack's template sets it\n\
                        REEF_FILES_BUCKET: is not set; the stack's template sets it\n\
                        REEF_AGENT_FUNCTION: is not set; the stack's template sets it\n\
                        REEF_QUEUE_URL: \"reef-jobs\" is no address; write the queue's URL, not its name\n\
                        REEF_REGIONS: does not hold this function's own region eu-central-1; add it at the end";
        assert_eq!(told, Err(expected.to_owned()));
    }

    #[test]
    fn a_list_of_regions_must_make_sense() {
        let many = (0..17).map(|at| format!("r{at}")).collect::<Vec<_>>().join(",");
        for list in ["eu-central-1,eu-central-1", "eu-central-1,", many.as_str()] {
            let variables = [&[("REEF_REGIONS", list)][..], &STACK].concat();
            assert!(read(&variables).unwrap_err().starts_with("REEF_REGIONS: must be 1 to 16"), "{list}");
        }
    }
    #[test]
    fn metrics_are_kept_under_a_name_that_cloudwatch_takes() {
        let config = read(&with(&[("REEF_METRICS_NAMESPACE", "Reef/prod")])).unwrap();
        assert_eq!(config.metrics_namespace.as_deref(), Some("Reef/prod"));
        for name in ["AWS/Lambda", "Reef prod", "Rëef", &"r".repeat(256)] {
            let variables = [&[("REEF_METRICS_NAMESPACE", name)][..], &STACK].concat();
            assert!(read(&variables).unwrap_err().starts_with("REEF_METRICS_NAMESPACE: must be"), "{name}");
        }
    }
}
