//! Simulated tables of several regions: the `core` table is replicated as a DynamoDB global table with eventual
//! consistency is, the `local` ones are not.
//!
//! Replication is asynchronous, item by item, in no order; of two versions of an item the later written stays in every
//! region (ties by region). Conditions and transactions look at one region only: of a transaction, too, each item
//! travels on its own. Index reads see the region's own items. While a link is cut or a region is lost, its items wait.

use super::dice::Dice;
use super::life::{Answer, Life};
use async_trait::async_trait;
use shared::adapters::aws::dynamodb::table::{
    Attr, Attrs, Condition, Item, Key, Query, Table, Write, WriteError,
};
use shared::error::StoreError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// How many regions there are.
pub(super) const REGIONS: usize = 3;

/// An item is on its way no longer, while the link is whole.
pub(super) const LONGEST_LAG: Duration = Duration::from_secs(20);

/// Where regions' signs of life are.
const SIGNS_OF_LIFE: &str = "REGION";

/// When an item was written, and where.
type Version = (u64, usize);

/// An item's latest version; a deleted one leaves a mark, so that older versions that arrive later are not taken for new.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    version: Version,
    attrs: Option<Attrs>,
}

/// A version on its way.
#[derive(Debug)]
struct Letter {
    from: usize,
    to: usize,
    due: u64,
    key: Key,
    cell: Cell,
}

#[derive(Debug, Default)]
struct World {
    core: [BTreeMap<Key, Cell>; REGIONS],
    local: [BTreeMap<Key, Cell>; REGIONS],
    letters: Vec<Letter>,
    cut: [[bool; REGIONS]; REGIONS],
    lost: [bool; REGIONS],
}

/// All tables of all regions, and the links between them.
#[derive(Debug)]
pub(super) struct Tables {
    world: Mutex<World>,
    started: Instant,
    dice: Arc<Dice>,
}

impl Tables {
    /// Empty tables, every link whole. Delays are thrown with `dice`.
    pub(super) fn new(dice: Arc<Dice>) -> Arc<Self> {
        Arc::new(Self { world: Mutex::default(), started: Instant::now(), dice })
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no operation panics half way")
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).expect("a short history")
    }

    /// Cuts or mends the link between two regions, in both directions.
    pub(super) fn set_cut(&self, one: usize, other: usize, cut: bool) {
        if one != other {
            let mut world = self.world();
            world.cut[one][other] = cut;
            world.cut[other][one] = cut;
        }
    }

    /// Loses a region with everything that had not left it, or gives it back.
    pub(super) fn set_lost(&self, region: usize, lost: bool) {
        self.world().lost[region] = lost;
    }

    /// Whether the region is lost.
    pub(super) fn is_lost(&self, region: usize) -> bool {
        self.world().lost[region]
    }

    /// Whether one region can ask the other.
    pub(super) fn is_linked(&self, one: usize, other: usize) -> bool {
        self.world().is_linked(one, other)
    }

    /// Delivers part of what is on its way at once, in no order: so many of a hundred.
    pub(super) fn hurry(&self, percent: u64) {
        for letter in &mut self.world().letters {
            if self.dice.percent(percent) {
                letter.due = 0;
            }
        }
    }

    /// Whether everything has arrived that can arrive, but for signs of life, which never end.
    pub(super) fn is_quiet(&self) -> bool {
        let now = self.now();
        let mut world = self.world();
        world.deliver(now);
        let mut letters = world.letters.iter().filter(|letter| world.is_linked(letter.from, letter.to));
        letters.all(|letter| letter.key.partition == SIGNS_OF_LIFE)
    }

    /// Names of items that two regions hold different versions of, with what they hold.
    pub(super) fn differences(&self) -> Vec<String> {
        let world = self.world();
        let [first, others @ ..] = &world.core;
        let mut found = Vec::new();
        for (number, other) in others.iter().enumerate() {
            let keys: std::collections::BTreeSet<&Key> = first.keys().chain(other.keys()).collect();
            for key in keys.into_iter().filter(|key| key.partition != SIGNS_OF_LIFE) {
                let of = |region: &BTreeMap<Key, Cell>| region.get(key).and_then(|cell| cell.attrs.clone());
                if of(first) != of(other) {
                    let region = number + 1;
                    found.push(format!("{key:?}: {:?} in 0, {:?} in {region}", of(first), of(other)));
                }
            }
        }
        found
    }

    /// The items of a region's `core` table whose sort keys begin so.
    pub(super) fn items(&self, region: usize, sort: &str) -> Vec<Item> {
        let world = self.world();
        let fits = world.core[region].iter().filter(|(key, _)| key.sort.starts_with(sort));
        fits.filter_map(|(key, cell)| Some(Item { key: key.clone(), attrs: cell.attrs.clone()? })).collect()
    }

    /// The items of a region's `core` table whose partition begins so, for a failure's report.
    pub(super) fn dump(&self, region: usize, partition: &str) -> String {
        let world = self.world();
        let fits = world.core[region].iter().filter(|(key, _)| key.partition.starts_with(partition));
        fits.map(|(key, cell)| format!("{} {} {:?}\n", key.partition, key.sort, cell)).collect()
    }
}

impl World {
    fn is_linked(&self, one: usize, other: usize) -> bool {
        !self.cut[one][other] && !self.lost[one] && !self.lost[other]
    }

    /// Takes in what is due.
    fn deliver(&mut self, now: u64) {
        let mut waiting = Vec::new();
        for letter in std::mem::take(&mut self.letters) {
            if letter.due > now || !self.is_linked(letter.from, letter.to) {
                waiting.push(letter);
                continue;
            }
            let known = self.core[letter.to].get(&letter.key);
            if known.is_none_or(|known| known.version < letter.cell.version) {
                self.core[letter.to].insert(letter.key, letter.cell);
            }
        }
        self.letters = waiting;
    }
}

/// Which of a region's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// The replicated one.
    Core,
    /// The other one.
    Local,
}

/// One table as one process of one region sees it.
pub(super) struct RegionTable {
    tables: Arc<Tables>,
    region: usize,
    which: Which,
    life: Arc<Life>,
}

impl RegionTable {
    /// The table `which` of `region`, for the process with this life.
    pub(super) fn new(tables: &Arc<Tables>, region: usize, which: Which, life: &Arc<Life>) -> Arc<Self> {
        Arc::new(Self { tables: tables.clone(), region, which, life: life.clone() })
    }

    /// The way to the table; other requests of the region may overtake.
    async fn way(&self) -> Result<(), StoreError> {
        self.life.goes_on().await;
        match self.tables.dice.below(4) {
            0 => tokio::time::sleep(Duration::from_millis(1 + self.tables.dice.below(6))).await,
            1 => tokio::task::yield_now().await,
            _ => {}
        }
        self.life.goes_on().await;
        let now = self.tables.now();
        self.tables.world().deliver(now);
        if self.tables.is_lost(self.region) {
            return Err(StoreError::Unavailable("the region is lost".into()));
        }
        Ok(())
    }
}

fn holds(condition: &Condition, known: Option<&Attrs>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Absent => known.is_none(),
        Condition::Present => known.is_some(),
        Condition::Is(name, value) => known.is_some_and(|attrs| attrs.get(*name) == Some(value)),
        Condition::Outside(name, most, above) => known
            .and_then(|attrs| number(attrs, name))
            .is_none_or(|number| number <= *most || *above < number),
        Condition::AbsentOrAtMost(name, most) => {
            known.is_none_or(|attrs| number(attrs, name).is_some_and(|number| number <= *most))
        }
        Condition::Within(name, above, most) => known
            .and_then(|attrs| number(attrs, name))
            .is_some_and(|number| *above < number && number <= *most),
    }
}

/// About as DynamoDB counts a write's bytes.
fn size(write: &Write) -> usize {
    let Write::Put(item, _) = write else { return 0 };
    let attr = |(name, attr): (&String, &Attr)| match attr {
        Attr::Text(text) => name.len() + text.len(),
        Attr::Number(_) => name.len() + 8,
    };
    item.key.partition.len() + item.key.sort.len() + item.attrs.iter().map(attr).sum::<usize>()
}

fn number(attrs: &Attrs, name: &str) -> Option<i64> {
    match attrs.get(name) {
        Some(Attr::Number(number)) => Some(*number),
        _ => None,
    }
}

fn text<'a>(attrs: &'a Attrs, name: &str) -> Option<&'a str> {
    match attrs.get(name) {
        Some(Attr::Text(text)) => Some(text),
        _ => None,
    }
}

#[async_trait]
impl Table for RegionTable {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        self.way().await?;
        let world = self.tables.world();
        let items = world.items(self.which, self.region);
        let attrs = items.get(key).and_then(|cell| cell.attrs.clone());
        Ok(attrs.map(|attrs| Item { key: key.clone(), attrs }))
    }

    async fn query(&self, query: &Query) -> Result<Vec<Item>, StoreError> {
        self.way().await?;
        let world = self.tables.world();
        let items = world.items(self.which, self.region);
        let live = |(key, cell): (&Key, &Cell)| Some(Item { key: key.clone(), attrs: cell.attrs.clone()? });
        let mut found: Vec<(String, Item)> = match query.index {
            None => {
                let sort = |sort: &String| Key { partition: query.partition.clone(), sort: sort.clone() };
                if query.from > query.to {
                    return Ok(Vec::new());
                }
                let range = items.range(sort(&query.from)..=sort(&query.to));
                range.filter_map(live).map(|item| (item.key.sort.clone(), item)).collect()
            }
            Some(index) => {
                let placed = |(key, cell): (&Key, &Cell)| {
                    let attrs = cell.attrs.as_ref()?;
                    let sort = text(attrs, index.sort)?;
                    let fits = text(attrs, index.partition)? == query.partition
                        && query.from.as_str() <= sort
                        && sort <= query.to.as_str();
                    fits.then(|| (sort.to_owned(), Item { key: key.clone(), attrs: attrs.clone() }))
                };
                let mut found: Vec<_> = items.iter().filter_map(placed).collect();
                found.sort_by(|a, b| (&a.0, &a.1.key).cmp(&(&b.0, &b.1.key)));
                found
            }
        };
        if query.newest_first {
            found.reverse();
        }
        found.truncate(query.limit);
        Ok(found.into_iter().map(|(_, item)| item).collect())
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        // Nothing tells the repetition of a single write from another one.
        let again = if writes.len() == 1 { writes.clone() } else { Vec::new() };
        self.carry(writes, again).await
    }

    async fn write_once(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        self.carry(writes, Vec::new()).await
    }
}

impl RegionTable {
    /// Carries a request to the table, and its answer back; `again` is what a repetition of it would do.
    async fn carry(&self, writes: Vec<Write>, again: Vec<Write>) -> Result<(), WriteError> {
        self.way().await.map_err(WriteError::Store)?;
        self.life.counts_a_write(true);
        self.life.goes_on().await;
        if writes.len() > 100 || writes.iter().map(size).sum::<usize>() > 4_000_000 {
            return Err(WriteError::Store(StoreError::Broken("too much for one transaction".into())));
        }
        let lost = self.life.loses_answer();
        let said = if lost == Some(false) { Ok(()) } else { self.apply(writes) };
        self.life.counts_a_write(false);
        self.life.goes_on().await;
        if lost.is_some() {
            return Err(WriteError::Store(StoreError::Unavailable("no answer came".into())));
        }
        said?;
        match self.life.answer() {
            Answer::Heard => Ok(()),
            Answer::Repeated => self.apply(again),
            Answer::Lost => Err(WriteError::Store(StoreError::Unavailable("the answer is lost".into()))),
        }
    }
}

impl World {
    const fn items(&self, which: Which, region: usize) -> &BTreeMap<Key, Cell> {
        match which {
            Which::Core => &self.core[region],
            Which::Local => &self.local[region],
        }
    }
}

impl RegionTable {
    fn apply(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        let now = self.tables.now();
        let mut world = self.tables.world();
        let items = world.items(self.which, self.region);
        for (position, write) in writes.iter().enumerate() {
            let (key, condition) = match write {
                Write::Put(item, condition) => (&item.key, condition),
                Write::Delete(key, condition) | Write::Add { key, condition, .. } => (key, condition),
            };
            if !holds(condition, items.get(key).and_then(|cell| cell.attrs.as_ref())) {
                return Err(WriteError::Refused(position));
            }
        }
        for write in writes {
            let (key, attrs) = match write {
                Write::Put(item, _) => (item.key, Some(item.attrs)),
                Write::Delete(key, _) => (key, None),
                Write::Add { key, name, by, set, .. } => {
                    let items = world.items(self.which, self.region);
                    let mut attrs = items.get(&key).and_then(|cell| cell.attrs.clone()).unwrap_or_default();
                    let sum = number(&attrs, name).unwrap_or_default() + by;
                    attrs.insert(name.to_owned(), Attr::Number(sum));
                    attrs.extend(set);
                    (key, Some(attrs))
                }
            };
            let items = match self.which {
                Which::Core => &mut world.core[self.region],
                Which::Local => &mut world.local[self.region],
            };
            // What is written here is newer than what it replaces here.
            let known = items.get(&key).map_or(0, |cell| cell.version.0 + 1);
            let cell = Cell { version: (now.max(known), self.region), attrs };
            items.insert(key.clone(), cell.clone());
            if self.which == Which::Local {
                continue;
            }
            for to in (0..REGIONS).filter(|to| *to != self.region) {
                let lag = match self.tables.dice.below(10) {
                    0 => LONGEST_LAG,
                    1..=3 => Duration::from_millis(1_500),
                    _ => Duration::from_millis(200),
                };
                let lag = u64::try_from(lag.as_millis()).expect("a short lag");
                let due = now + self.tables.dice.below(lag);
                world.letters.push(Letter {
                    from: self.region,
                    to,
                    due,
                    key: key.clone(),
                    cell: cell.clone(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(partition: &str, number: i64) -> Item {
        let key = Key { partition: partition.to_owned(), sort: "-".to_owned() };
        Item { key, attrs: Attrs::from([("n".to_owned(), Attr::Number(number))]) }
    }

    async fn put(table: &RegionTable, partition: &str, number: i64) {
        table.write(vec![Write::Put(item(partition, number), Condition::Always)]).await.expect("a write");
    }

    #[tokio::test(start_paused = true)]
    async fn the_later_of_two_writes_stays_in_every_region_and_a_cut_link_holds_it_back() {
        let tables = Tables::new(Arc::new(Dice::new(1)));
        let life = Arc::new(Life::default());
        let [one, other] = [0, 1].map(|region| RegionTable::new(&tables, region, Which::Core, &life));
        tables.set_cut(0, 1, true);
        put(&one, "a", 1).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        put(&other, "a", 2).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(one.get(&item("a", 0).key).await.expect("a read"), Some(item("a", 1)));
        tables.set_cut(0, 1, false);
        assert!(tables.is_quiet());
        assert_eq!(one.get(&item("a", 0).key).await.expect("a read"), Some(item("a", 2)));
        assert_eq!(tables.differences(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_whose_answer_is_lost_was_done_and_a_single_one_loses_against_itself() {
        let tables = Tables::new(Arc::new(Dice::new(1)));
        let life = Arc::new(Life::default());
        let table = RegionTable::new(&tables, 0, Which::Core, &life);
        life.lose_answers(1);
        let new = |partition| vec![Write::Put(item(partition, 1), Condition::Absent)];
        let lost = table.write(new("a")).await;
        assert!(matches!(lost, Err(WriteError::Store(StoreError::Unavailable(_)))), "{lost:?}");
        let refused = table.write(new("b")).await;
        assert!(matches!(refused, Err(WriteError::Refused(0))), "{refused:?}");
        let lost = table.write_once(new("c")).await;
        assert!(matches!(lost, Err(WriteError::Store(StoreError::Unavailable(_)))), "{lost:?}");
        table.write_once(new("d")).await.expect("a write");
        for partition in ["a", "b", "c", "d"] {
            let found = table.get(&item(partition, 0).key).await.expect("a read");
            assert_eq!(found, Some(item(partition, 1)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_process_hears_nothing_and_its_last_write_may_have_been_done() {
        let tables = Tables::new(Arc::new(Dice::new(1)));
        let (life, other) = (Arc::new(Life::default()), Arc::new(Life::default()));
        let dying = RegionTable::new(&tables, 0, Which::Core, &life);
        life.end_at(3);
        put(&dying, "a", 1).await;
        let unheard = tokio::time::timeout(Duration::from_secs(1), put(&dying, "b", 2)).await;
        assert!(unheard.is_err() && life.is_over());
        let next = RegionTable::new(&tables, 0, Which::Core, &other);
        assert_eq!(next.get(&item("b", 0).key).await.expect("a read"), Some(item("b", 2)));
    }
}
