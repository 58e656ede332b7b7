//! DynamoDB, emulated: the server `dynoxide`, in memory, at an address of its own.
//!
//! `tests/run tools` installs it. It is a program and never a dependency: its SQLite is not ours.

use crate::stores::{Backend, stores_of};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use shared::adapters::aws::dynamodb::schema::{CORE_INDEXES, LOCAL_INDEXES};
use shared::adapters::aws::dynamodb::table::{Index, PARTITION, SORT};
use shared::adapters::aws::dynamodb::{DynamoRegions, DynamoStores, DynamoTable, Here};
use shared::id::RandomIds;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// A server at work; killed with its last user.
#[derive(Debug)]
pub struct Dynamo {
    endpoint: String,
    child: Child,
    tables: AtomicU64,
}

impl Drop for Dynamo {
    fn drop(&mut self) {
        // It may have ended already; nothing that it holds is to be kept.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dynamo {
    /// The process' one server.
    pub fn shared() -> Arc<Self> {
        static SERVER: Mutex<Weak<Dynamo>> = Mutex::new(Weak::new());
        let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = server.upgrade() {
            return server;
        }
        let started = Arc::new(Self::start());
        *server = Arc::downgrade(&started);
        started
    }

    /// On a port that was free a moment ago; if somebody else took it meanwhile, on another one.
    fn start() -> Self {
        (0..10).find_map(|_| Self::start_on(free_port())).expect("a server on a free port")
    }

    fn start_on(port: u16) -> Option<Self> {
        let mut child = Command::new("dynoxide")
            .args(["serve", "--host", "127.0.0.1", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program `dynoxide`: install it with `tests/run tools`");
        let mut lines = BufReader::new(child.stderr.take().expect("its output")).lines();
        let is_up = lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        // Whoever writes to a full pipe waits for ever.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let server = Self { endpoint: format!("http://127.0.0.1:{port}"), child, tables: AtomicU64::new(0) };
        is_up.then_some(server)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        client(&self.endpoint)
    }

    /// New, empty tables: `core` and `local`.
    pub async fn tables(&self) -> (DynamoTable, DynamoTable) {
        let [core, local] = self.create_tables().await;
        (DynamoTable::new(self.client(), core), DynamoTable::new(self.client(), local))
    }

    /// The names of new, empty tables: `core` and `local`.
    pub async fn create_tables(&self) -> [String; 2] {
        let number = self.tables.fetch_add(1, Ordering::Relaxed);
        let client = self.client();
        let names = [format!("core-{number}"), format!("local-{number}")];
        create(&client, &names[0], &CORE_INDEXES).await;
        create(&client, &names[1], &LOCAL_INDEXES).await;
        names
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A client of an emulator.
pub fn client(endpoint: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .endpoint_url(endpoint)
        .build();
    Client::from_conf(config)
}

/// The only region of most tests.
pub fn here() -> Here {
    region(0, &["eu-central-1"])
}

/// The region with this number among these.
pub fn region(number: usize, of: &[&str]) -> Here {
    let places: Vec<String> = of.iter().map(|name| (*name).to_owned()).collect();
    Here { region: places[number].clone(), ordinal: number as u64, places }
}

/// What looks after the homes of the sessions in these stores; a lease runs for 90 seconds.
pub fn regions_over(rows: DynamoStores) -> DynamoRegions {
    DynamoRegions::new(rows, Arc::new(RandomIds), Duration::from_secs(90))
}

/// Empty stores of DynamoDB (emulated).
pub async fn dynamodb() -> Backend {
    let server = Dynamo::shared();
    let (core, local) = server.tables().await;
    let stores = DynamoStores::new(Arc::new(core), Arc::new(local), here());
    Backend { stores: stores_of(&Arc::new(stores)), _kept: Some(Box::new(server)) }
}

fn key(name: &str, kind: KeyType) -> KeySchemaElement {
    KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("a key")
}

/// Creates a table with these indexes.
pub async fn create(client: &Client, name: &str, indexes: &[Index]) {
    let of_indexes = indexes.iter().flat_map(|index| [index.partition, index.sort]);
    let attributes: BTreeSet<&str> = [PARTITION, SORT].into_iter().chain(of_indexes).collect();
    let mut create = client
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key(PARTITION, KeyType::Hash))
        .key_schema(key(SORT, KeyType::Range));
    for attribute in attributes {
        let definition = AttributeDefinition::builder()
            .attribute_name(attribute)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .expect("an attribute");
        create = create.attribute_definitions(definition);
    }
    for index in indexes {
        let index = GlobalSecondaryIndex::builder()
            .index_name(index.name)
            .key_schema(key(index.partition, KeyType::Hash))
            .key_schema(key(index.sort, KeyType::Range))
            .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
            .build()
            .expect("an index");
        create = create.global_secondary_indexes(index);
    }
    create.send().await.expect("a new table");
}
