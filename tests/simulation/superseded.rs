//! Two turns of one session, each of which is said, under an epoch of its own, to be visible in the other's stead.

use super::dice::Dice;
use super::history::{Ask, set_in_service};
use super::life::Life;
use super::regions::{Stage, World};
use super::tables::{LONGEST_LAG, RegionTable, Which};
use shared::adapters::aws::dynamodb::table::{Attr, Condition, Item, Key, Table, Write};
use shared::id::{TenantId, TurnId};
use std::sync::Arc;

/// Where a turn is said to begin, under an epoch.
fn pointer(turn: &str, epoch: u64) -> Key {
    Key { partition: format!("T#main#{turn}"), sort: format!("{epoch:010}") }
}

/// Found when a look-up went from one turn to the other and back until the stack was full. Since only those pointers
/// count whose epoch is part of the transcript, no history leads there any more; so what it had written is put here by
/// hand.
#[tokio::test(start_paused = true)]
async fn a_look_up_ends_though_two_epochs_let_two_turns_supersede_each_other() {
    let world = World::start(&Arc::new(Stage::default()), &Arc::new(Dice::new(1))).await;
    let said =
        |name: &str| Ask { session: 0, key: None, name: name.to_owned(), word: "plain", is_hook: false };
    let (first, second) = (said("first"), said("second"));
    let answer = first.send(&world, 0).await.expect("an answer");
    let visible = first.turn_of(&answer).expect("a turn");
    tokio::time::sleep(LONGEST_LAG).await;
    set_in_service(&world, 1, 0, false).await;
    second.send(&world, 1).await.expect("an answer, under the next epoch");

    let table = RegionTable::new(&world.tables, 1, Which::Core, &Arc::new(Life::default()));
    let original = table.get(&pointer(&visible, 0)).await.expect("a read").expect("a pointer");
    let named = |turn: &str, epoch, by: &str| {
        let mut attrs = original.attrs.clone();
        attrs.insert("same_as".to_owned(), Attr::Text(by.to_owned()));
        Write::Put(Item { key: pointer(turn, epoch), attrs }, Condition::Always)
    };
    let writes = vec![named("other", 0, &visible), named(&visible, 1, "other")];
    table.write(writes).await.expect("a write");

    let sessions = world.at(1).app.stores.sessions;
    let found = sessions.turn(&TenantId::single(), &TurnId::new("other")).await.expect("an answer");
    let outcome = found.and_then(|turn| turn.outcome);
    let outcome = serde_json::to_value(outcome).expect("an outcome");
    assert_eq!(
        (outcome["status"].as_str(), outcome["text"].as_str()),
        (Some("done"), Some("reply to first"))
    );
}
