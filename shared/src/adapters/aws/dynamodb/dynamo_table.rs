//! [`Table`] on DynamoDB.

use super::table::{
    Attr, Attrs, Condition, Index, Item, Key, PARTITION, Query, SORT, Table, Write, WriteError,
};
use crate::adapters::aws::on_use::OnUse;
use crate::error::{Source, StoreError};
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConsumedCapacity, Delete, KeysAndAttributes, Put, ReturnConsumedCapacity,
    TransactWriteItem,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Items that one request for keys may name.
const KEYS_AT_ONCE: usize = 100;

/// How long to wait, in milliseconds, before keys are asked for again that a busy table left out.
const PAUSES: [u64; 6] = [10, 20, 40, 80, 160, 320];

/// One table of DynamoDB. Clones share the counters.
#[derive(Debug, Clone)]
pub struct DynamoTable {
    client: OnUse<Client>,
    name: String,
    consumed: Arc<Consumed>,
}

/// Request units of a table's calls that were answered, as DynamoDB counted them; in tenths, so that halves are counted.
/// What a refused condition costs, DynamoDB does not tell.
#[derive(Debug, Default)]
struct Consumed {
    read: AtomicU64,
    written: AtomicU64,
}

/// Request units, indexes included.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Units {
    /// For reading.
    pub read: f64,
    /// For writing.
    pub written: f64,
}

type Values = HashMap<String, AttributeValue>;

impl DynamoTable {
    /// The table with this name.
    pub fn new(client: impl Into<OnUse<Client>>, name: impl Into<String>) -> Self {
        Self { client: client.into(), name: name.into(), consumed: Arc::default() }
    }

    /// What was consumed since the table was opened; refused writes are not counted.
    pub fn consumed(&self) -> Units {
        #[expect(clippy::cast_precision_loss, reason = "exact below nine million billion tenths")]
        let units = |tenths: &AtomicU64| tenths.load(Ordering::Relaxed) as f64 / 10.0;
        Units { read: units(&self.consumed.read), written: units(&self.consumed.written) }
    }

    fn count<'a>(counter: &AtomicU64, capacities: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        for capacity in capacities {
            let units = capacity.capacity_units().unwrap_or_default();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a call's units are a small number of halves"
            )]
            counter.fetch_add((units * 10.0).round() as u64, Ordering::Relaxed);
        }
    }

    async fn add(&self, update: Update) -> Result<(), WriteError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(update.key))
            .update_expression(update.text)
            .set_condition_expression(update.condition)
            .set_expression_attribute_names(Some(update.names))
            .set_expression_attribute_values(Some(update.values))
            .return_consumed_capacity(ReturnConsumedCapacity::Indexes);
        let answer = update.send().await.map_err(refused)?;
        Self::count(&self.consumed.written, answer.consumed_capacity());
        Ok(())
    }

    async fn put(&self, item: Item, condition: &Condition) -> Result<(), WriteError> {
        let expression = Expression::of(condition);
        let put = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(values_of(item)))
            .set_condition_expression(expression.text)
            .set_expression_attribute_names(expression.names)
            .set_expression_attribute_values(expression.values)
            .return_consumed_capacity(ReturnConsumedCapacity::Indexes);
        let answer = put.send().await.map_err(refused)?;
        Self::count(&self.consumed.written, answer.consumed_capacity());
        Ok(())
    }

    async fn delete(&self, key: &Key, condition: &Condition) -> Result<(), WriteError> {
        let expression = Expression::of(condition);
        let delete = self
            .client
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(key_values(key)))
            .set_condition_expression(expression.text)
            .set_expression_attribute_names(expression.names)
            .set_expression_attribute_values(expression.values)
            .return_consumed_capacity(ReturnConsumedCapacity::Indexes);
        let answer = delete.send().await.map_err(refused)?;
        Self::count(&self.consumed.written, answer.consumed_capacity());
        Ok(())
    }

    fn part(&self, write: Write) -> Result<TransactWriteItem, StoreError> {
        let part = TransactWriteItem::builder();
        Ok(match write {
            Write::Put(item, condition) => {
                let expression = Expression::of(&condition);
                let put = Put::builder()
                    .table_name(&self.name)
                    .set_item(Some(values_of(item)))
                    .set_condition_expression(expression.text)
                    .set_expression_attribute_names(expression.names)
                    .set_expression_attribute_values(expression.values);
                part.put(put.build().map_err(broken)?)
            }
            Write::Delete(key, condition) => {
                let expression = Expression::of(&condition);
                let delete = Delete::builder()
                    .table_name(&self.name)
                    .set_key(Some(key_values(&key)))
                    .set_condition_expression(expression.text)
                    .set_expression_attribute_names(expression.names)
                    .set_expression_attribute_values(expression.values);
                part.delete(delete.build().map_err(broken)?)
            }
            Write::Add { key, name, by, set, condition } => {
                let update = Update::of(&key, name, by, set, &condition);
                let update = aws_sdk_dynamodb::types::Update::builder()
                    .table_name(&self.name)
                    .set_key(Some(update.key))
                    .update_expression(update.text)
                    .set_condition_expression(update.condition)
                    .set_expression_attribute_names(Some(update.names))
                    .set_expression_attribute_values(Some(update.values));
                part.update(update.build().map_err(broken)?)
            }
        }
        .build())
    }

    /// The items with these keys, in this order and each once; one that is not there is left out.
    async fn items(&self, keys: &[Key]) -> Result<Vec<Item>, StoreError> {
        let mut found = HashMap::new();
        // While an item moves in an index it may stand there twice, and a request must not name a key twice.
        let distinct: Vec<&Key> = keys.iter().collect::<BTreeSet<_>>().into_iter().collect();
        for some in distinct.chunks(KEYS_AT_ONCE) {
            let mut wanted = KeysAndAttributes::builder().consistent_read(true);
            for key in some {
                wanted = wanted.keys(key_values(key));
            }
            let mut wanted = Some(HashMap::from([(self.name.clone(), wanted.build().map_err(broken)?)]));
            let mut pauses = PAUSES.into_iter();
            while let Some(request) = wanted.take() {
                let answer = self
                    .client
                    .batch_get_item()
                    .set_request_items(Some(request))
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .send()
                    .await
                    .map_err(failed)?;
                Self::count(&self.consumed.read, answer.consumed_capacity());
                for values in answer.responses.into_iter().flat_map(HashMap::into_values).flatten() {
                    let item = item_of(values)?;
                    found.insert(item.key.clone(), item);
                }
                wanted = answer.unprocessed_keys.filter(|keys| !keys.is_empty());
                if wanted.is_some() {
                    // Some were left out because the table is busy; at once it would be asked for nothing again.
                    let pause = pauses.next().ok_or_else(|| {
                        StoreError::Unavailable("the table leaves items out of its answers".into())
                    })?;
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
        }
        Ok(keys.iter().filter_map(|key| found.remove(key)).collect())
    }
}

#[async_trait]
impl Table for DynamoTable {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.name)
            .set_key(Some(key_values(key)))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(failed)?;
        Self::count(&self.consumed.read, answer.consumed_capacity());
        answer.item.map(item_of).transpose()
    }

    async fn query(&self, query: &Query) -> Result<Vec<Item>, StoreError> {
        let mut items: Vec<Item> = Vec::new();
        let mut start: Option<Values> = None;
        // DynamoDB refuses such a range.
        if query.from > query.to {
            return Ok(items);
        }
        while items.len() < query.limit {
            let (partition, sort) =
                query.index.map_or((PARTITION, SORT), |index| (index.partition, index.sort));
            let missing = i32::try_from(query.limit - items.len()).unwrap_or(i32::MAX);
            let text = |text: &str| AttributeValue::S(text.to_owned());
            let answer = self
                .client
                .query()
                .table_name(&self.name)
                .set_index_name(query.index.map(|index| index.name.to_owned()))
                .key_condition_expression("#p = :p AND #s BETWEEN :from AND :to")
                .expression_attribute_names("#p", partition)
                .expression_attribute_names("#s", sort)
                .expression_attribute_values(":p", text(&query.partition))
                .expression_attribute_values(":from", text(&query.from))
                .expression_attribute_values(":to", text(&query.to))
                .scan_index_forward(!query.newest_first)
                // An index cannot be read consistently.
                .set_consistent_read(query.index.is_none().then_some(true))
                .limit(missing)
                .set_exclusive_start_key(start.take())
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map_err(failed)?;
            Self::count(&self.consumed.read, answer.consumed_capacity());
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            let found = answer.items.unwrap_or_default();
            match query.index {
                None => {
                    for values in found {
                        items.push(item_of(values)?);
                    }
                }
                Some(index) => {
                    let keys = found.iter().map(key_of).collect::<Result<Vec<Key>, StoreError>>()?;
                    let whole = self.items(&keys).await?;
                    items.extend(whole.into_iter().filter(|item| is_in(item, index, query)));
                }
            }
            if start.is_none() {
                break;
            }
        }
        Ok(items)
    }

    async fn write(&self, mut writes: Vec<Write>) -> Result<(), WriteError> {
        if writes.len() > 1 {
            return self.write_once(writes).await;
        }
        match writes.pop() {
            Some(Write::Put(item, condition)) => self.put(item, &condition).await,
            Some(Write::Delete(key, condition)) => self.delete(&key, &condition).await,
            Some(Write::Add { key, name, by, set, condition }) => {
                self.add(Update::of(&key, name, by, set, &condition)).await
            }
            None => Ok(()),
        }
    }

    async fn write_once(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        let parts = writes.into_iter().map(|write| self.part(write)).collect::<Result<Vec<_>, _>>();
        // The SDK adds a request token, so that its own retries write once.
        let answer = self
            .client
            .transact_write_items()
            .set_transact_items(Some(parts.map_err(WriteError::Store)?))
            .return_consumed_capacity(ReturnConsumedCapacity::Indexes)
            .send()
            .await
            .map_err(cancelled)?;
        Self::count(&self.consumed.written, answer.consumed_capacity());
        Ok(())
    }
}

/// Whether the item, read by its key, still is where the index had it.
fn is_in(item: &Item, index: Index, query: &Query) -> bool {
    let text = |name| match item.attrs.get(name) {
        Some(Attr::Text(text)) => Some(text),
        _ => None,
    };
    text(index.partition).is_some_and(|partition| *partition == query.partition)
        && text(index.sort).is_some_and(|sort| (&query.from..=&query.to).contains(&sort))
}

/// A condition as DynamoDB reads it.
#[derive(Default)]
struct Expression {
    text: Option<String>,
    names: Option<HashMap<String, String>>,
    values: Option<Values>,
}

impl Expression {
    fn of(condition: &Condition) -> Self {
        let named = |name: &str| Some(HashMap::from([("#a".to_owned(), name.to_owned())]));
        let number = |name: &str, number: i64| (name.to_owned(), value_of(Attr::Number(number)));
        match condition {
            Condition::Always => Self::default(),
            Condition::Absent => Self {
                text: Some("attribute_not_exists(#a)".to_owned()),
                names: named(PARTITION),
                values: None,
            },
            Condition::Present => {
                Self { text: Some("attribute_exists(#a)".to_owned()), names: named(PARTITION), values: None }
            }
            Condition::Is(name, attr) => Self {
                text: Some("#a = :a".to_owned()),
                names: named(name),
                values: Some(HashMap::from([(":a".to_owned(), value_of(attr.clone()))])),
            },
            Condition::Outside(name, most, above) => Self {
                text: Some("attribute_not_exists(#a) OR #a <= :most OR #a > :above".to_owned()),
                names: named(name),
                values: Some(HashMap::from([number(":above", *above), number(":most", *most)])),
            },
            Condition::AbsentOrAtMost(name, most) => Self {
                text: Some("attribute_not_exists(#p) OR #a <= :most".to_owned()),
                names: Some(HashMap::from([
                    ("#p".to_owned(), PARTITION.to_owned()),
                    ("#a".to_owned(), (*name).to_owned()),
                ])),
                values: Some(HashMap::from([number(":most", *most)])),
            },
            Condition::Within(name, above, most) => Self {
                text: Some("#a > :above AND #a <= :most".to_owned()),
                names: named(name),
                values: Some(HashMap::from([number(":above", *above), number(":most", *most)])),
            },
        }
    }
}

/// A [`Write::Add`] as DynamoDB reads it.
struct Update {
    key: Values,
    text: String,
    condition: Option<String>,
    names: HashMap<String, String>,
    values: Values,
}

impl Update {
    fn of(key: &Key, name: &str, by: i64, set: Attrs, condition: &Condition) -> Self {
        let Expression { text: condition, names, values } = Expression::of(condition);
        let (mut names, mut values) = (names.unwrap_or_default(), values.unwrap_or_default());
        let mut text = "SET #n = #n + :by".to_owned();
        names.insert("#n".to_owned(), name.to_owned());
        values.insert(":by".to_owned(), value_of(Attr::Number(by)));
        for (number, (name, attr)) in set.into_iter().enumerate() {
            text.push_str(&format!(", #s{number} = :s{number}"));
            names.insert(format!("#s{number}"), name);
            values.insert(format!(":s{number}"), value_of(attr));
        }
        Self { key: key_values(key), text, condition, names, values }
    }
}

fn value_of(attr: Attr) -> AttributeValue {
    match attr {
        Attr::Text(text) => AttributeValue::S(text),
        Attr::Number(number) => AttributeValue::N(number.to_string()),
    }
}

fn key_values(key: &Key) -> Values {
    HashMap::from([
        (PARTITION.to_owned(), AttributeValue::S(key.partition.clone())),
        (SORT.to_owned(), AttributeValue::S(key.sort.clone())),
    ])
}

fn values_of(item: Item) -> Values {
    let mut values = key_values(&item.key);
    values.extend(item.attrs.into_iter().map(|(name, attr)| (name, value_of(attr))));
    values
}

fn key_of(values: &Values) -> Result<Key, StoreError> {
    let text = |name: &str| match values.get(name) {
        Some(AttributeValue::S(text)) => Ok(text.clone()),
        _ => Err(broken(format!("an item without the key {name}"))),
    };
    Ok(Key { partition: text(PARTITION)?, sort: text(SORT)? })
}

fn item_of(mut values: Values) -> Result<Item, StoreError> {
    let key = key_of(&values)?;
    values.remove(PARTITION);
    values.remove(SORT);
    let mut attrs = Attrs::new();
    for (name, value) in values {
        let attr = match value {
            AttributeValue::S(text) => Attr::Text(text),
            // A fraction, or a number beyond ours, shows as what it is when it is read as a number.
            AttributeValue::N(number) => {
                number.parse().map_or_else(|_| Attr::Text(number.clone()), Attr::Number)
            }
            // Others' attributes, for instance those that replication adds.
            _ => continue,
        };
        attrs.insert(name, attr);
    }
    Ok(Item { key, attrs })
}

fn broken(cause: impl Into<Source>) -> StoreError {
    StoreError::Broken(cause.into())
}

/// What a failure means: a refused request is a fault of ours or of the set-up, everything else may pass.
fn failed<E, R>(error: SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let code = error.code().map(str::to_owned);
    let is_ours = matches!(
        code.as_deref(),
        Some(
            "ValidationException"
                | "ResourceNotFoundException"
                | "AccessDeniedException"
                | "UnrecognizedClientException"
                | "IdempotentParameterMismatchException"
                | "ItemCollectionSizeLimitExceededException"
        )
    );
    if is_ours || matches!(error, SdkError::ConstructionFailure(_)) {
        StoreError::Broken(Box::new(error))
    } else {
        StoreError::Unavailable(Box::new(error))
    }
}

/// Why a single write did not happen.
fn refused<E, R>(error: SdkError<E, R>) -> WriteError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match error.code() {
        Some("ConditionalCheckFailedException") => WriteError::Refused(0),
        Some("TransactionConflictException" | "ReplicatedWriteConflictException") => WriteError::Contended,
        _ => WriteError::Store(failed(error)),
    }
}

/// Why a transaction did not happen.
fn cancelled<R>(error: SdkError<TransactWriteItemsError, R>) -> WriteError
where
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let reasons = match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            cancelled.cancellation_reasons()
        }
        _ => return WriteError::Store(failed(error)),
    };
    let codes: Vec<&str> = reasons.iter().map(|reason| reason.code().unwrap_or("None")).collect();
    if let Some(at) = codes.iter().position(|code| *code == "ConditionalCheckFailed") {
        return WriteError::Refused(at);
    }
    if codes.contains(&"TransactionConflict") {
        return WriteError::Contended;
    }
    let may_pass = ["ThrottlingError", "ProvisionedThroughputExceeded"];
    let is_busy = codes.iter().any(|code| may_pass.contains(code));
    let cause = format!("the transaction was cancelled: {}", codes.join(", "));
    WriteError::Store(if is_busy { StoreError::Unavailable(cause.into()) } else { broken(cause) })
}
