//! Random histories of three regions, and hand-written ones of bugs that were found so; see [`harness::simulation`].

use harness::simulation::op::Op;
use harness::simulation::{Stage, run, try_seed};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Histories of one run.
const HISTORIES: u64 = 10_000;

/// Those of them that break a promise today: a session is reset while the region that is its home is being lost, and a turn
/// that was put away stands in the new transcript again (README, known limits). The same operations do so under about one
/// seed in a hundred, with the release of 2026-11-26 as with this one. Each goes from here when that is mended.
const BROKEN: [u64; 1] = [5_623];

#[test]
fn whatever_happens_to_three_regions_each_accepted_turn_has_one_outcome() {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let stage = Arc::new(Stage::default());
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= HISTORIES {
                        break;
                    }
                    match try_seed(&stage, seed) {
                        Err(failure) if !BROKEN.contains(&seed) => {
                            next.store(HISTORIES, Ordering::SeqCst);
                            panic!("{failure}");
                        }
                        Ok(()) if BROKEN.contains(&seed) => panic!("seed {seed} breaks nothing any more"),
                        _ => {}
                    }
                }
            });
        }
    });
}

/// Plays a history under some seeds: its delays and replication come out differently in each.
fn holds(ops: &[Op]) {
    holds_under(0..30, ops);
}

fn holds_under(seeds: Range<u64>, ops: &[Op]) {
    let stage = Arc::new(Stage::default());
    for seed in seeds {
        assert_eq!(run(&stage, seed, ops), [""; 0], "seed {seed}");
    }
}

/// Both regions' workers took the job, and both made its session: the tool ran twice in one turn. A job belongs to one
/// region's queue now.
#[test]
fn a_job_is_not_run_by_two_regions_that_do_not_know_of_each_other_yet() {
    holds(&[
        Op::EnqueueJob { region: 2, session: 1, key: None, kind: 5 },
        Op::Advance { time: 3 },
        Op::RunWorker { region: 1 },
        Op::RunWorker { region: 2 },
        Op::Chat { region: 2, session: 1, key: Some(1), kind: 0 },
    ]);
}

/// The steps of a turn had arrived, its idempotency record had not: asked again in the new home, it ran again. A take-over
/// writes what is still on its way.
#[test]
fn a_turn_that_was_taken_over_is_known_by_its_key_even_if_the_record_of_the_key_comes_later() {
    holds(&[
        Op::Chat { region: 1, session: 2, key: Some(1), kind: 1 },
        Op::Evacuate { from: 2, region: 1 },
        Op::Chat { region: 0, session: 0, key: Some(1), kind: 2 },
    ]);
}

/// A region that was cut off goes on with its session while another one takes it over.
#[test]
fn two_homes_at_the_same_time_become_one() {
    holds(&[
        Op::Chat { region: 0, session: 0, key: None, kind: 0 },
        Op::Advance { time: 2 },
        Op::Partition { one: 0, other: 1 },
        Op::Partition { one: 0, other: 2 },
        Op::Chat { region: 0, session: 0, key: Some(3), kind: 0 },
        Op::Advance { time: 5 },
        Op::Chat { region: 1, session: 0, key: Some(3), kind: 0 },
        Op::Chat { region: 0, session: 0, key: None, kind: 4 },
        Op::Chat { region: 2, session: 0, key: Some(0), kind: 4 },
        Op::Advance { time: 0 },
        Op::Heal,
    ]);
}

/// A process that slept beyond its lease wakes up while another one has its turn.
#[test]
fn a_process_that_slept_writes_nothing_that_counts() {
    holds(&[
        Op::Chat { region: 0, session: 0, key: None, kind: 4 },
        Op::Freeze { region: 0 },
        Op::Advance { time: 4 },
        Op::Sweep { region: 0 },
        Op::Thaw,
    ]);
}

/// Two regions accepted one key, each on its own session of the same name. The key's record that was left named the turn
/// that is not visible, so that asked again after a take-over, the key ran once more beside the visible turn.
#[test]
fn a_key_whose_record_names_the_turn_that_lost_leads_to_the_one_that_is_visible() {
    let history = [
        Op::Chat { region: 0, session: 1, key: None, kind: 5 },
        Op::Partition { one: 1, other: 0 },
        Op::Evacuate { from: 1, region: 1 },
        Op::Chat { region: 2, session: 0, key: Some(1), kind: 4 },
        Op::Chat { region: 1, session: 1, key: Some(1), kind: 3 },
        Op::Advance { time: 3 },
        Op::Chat { region: 2, session: 2, key: Some(1), kind: 3 },
    ];
    holds_under(4622..4623, &history);
    holds(&history);
}

/// The store recorded a step, and its answer was lost: the turn recorded the step once more.
#[test]
fn a_step_that_was_recorded_without_an_answer_is_not_recorded_twice() {
    holds(&[Op::LoseAnswer { region: 0, write: 7 }, Op::Chat { region: 0, session: 0, key: None, kind: 5 }]);
    holds(&[
        Op::LoseAnswer { region: 1, write: 11 },
        Op::Chat { region: 1, session: 2, key: Some(1), kind: 1 },
    ]);
}

/// A session moved, and was reset in its new home. What its old home had written looked late to the new transcript, and
/// was copied into it.
#[test]
fn a_transcript_that_was_put_away_after_its_session_moved_does_not_come_back() {
    holds(&[
        Op::Chat { region: 0, session: 0, key: None, kind: 0 },
        Op::Advance { time: 2 },
        Op::Evacuate { from: 1, region: 0 },
        Op::Chat { region: 1, session: 0, key: None, kind: 0 },
        Op::Advance { time: 2 },
        Op::Reset { region: 1, session: 0 },
    ]);
}

/// Two homes that did not see each other both put the session's transcript away. Of one note about it, the old home's would
/// have been left, and the turns that the new home had added could not be found any more.
#[test]
fn a_transcript_that_two_homes_put_away_keeps_what_the_later_home_added() {
    holds(&[
        Op::Chat { region: 0, session: 0, key: None, kind: 0 },
        Op::Advance { time: 2 },
        Op::Partition { one: 0, other: 1 },
        Op::Partition { one: 0, other: 2 },
        Op::Advance { time: 5 },
        Op::Chat { region: 1, session: 0, key: None, kind: 0 },
        Op::Advance { time: 2 },
        Op::Reset { region: 1, session: 0 },
        Op::Advance { time: 1 },
        Op::Reset { region: 0, session: 0 },
        Op::Advance { time: 1 },
        Op::Heal,
    ]);
}

/// An append was done, but its answer was lost; it was made again and doubled the step.
#[test]
fn a_step_whose_answer_was_lost_is_recorded_once() {
    let history =
        [Op::LoseAnswers { region: 1, every: 0 }, Op::Chat { region: 1, session: 1, key: None, kind: 3 }];
    holds_under(128..129, &history);
    holds(&history);
}

/// Region 1 took the session over from region 2, and told nobody else before it was lost for good. Region 0 sent the
/// session's turns to region 2, which refused them for ever.
#[test]
fn a_turn_that_is_sent_to_an_old_home_runs_there_when_the_new_one_is_lost() {
    holds(&[
        Op::Chat { region: 2, session: 0, key: None, kind: 0 },
        Op::Advance { time: 2 },
        Op::Partition { one: 0, other: 1 },
        Op::Evacuate { from: 1, region: 2 },
        Op::Advance { time: 2 },
        Op::Chat { region: 1, session: 0, key: None, kind: 0 },
        Op::Advance { time: 2 },
        Op::LoseRegion { region: 1 },
    ]);
}

/// Regions 1 and 2 both made the session. Of region 1's nothing but its home arrived in region 2 before it was lost for
/// good; the next epoch was counted from that one, and was region 2's own: the take-over was refused for ever.
#[test]
fn a_session_of_a_lost_region_is_taken_over_by_one_that_had_made_it_too() {
    let history = [
        Op::EnqueueJob { region: 0, session: 2, key: Some(2), kind: 4 },
        Op::Reset { region: 2, session: 2 },
        Op::Chat { region: 1, session: 1, key: Some(0), kind: 3 },
        Op::Partition { one: 2, other: 1 },
        Op::Chat { region: 2, session: 1, key: Some(1), kind: 5 },
        Op::Chat { region: 2, session: 1, key: None, kind: 3 },
        Op::Replicate { percent: 13 },
        Op::EnqueueJob { region: 2, session: 2, key: None, kind: 2 },
        Op::Chat { region: 1, session: 1, key: Some(1), kind: 0 },
        Op::Chat { region: 2, session: 0, key: Some(1), kind: 4 },
        Op::Sweep { region: 2 },
        Op::ReturnRegions,
        Op::Heal,
        Op::LoseRegion { region: 0 },
        Op::LoseRegion { region: 1 },
    ];
    holds_under(4122..4123, &history);
    holds(&history);
}

/// Regions 0 and 2 both made the session, and region 2's was the one that stayed. What region 0 had accepted was late, and
/// waited for region 2 to bring it, which was lost for good.
#[test]
fn a_late_turn_of_a_region_that_is_left_does_not_wait_for_a_lost_one() {
    let history = [
        Op::Advance { time: 2 },
        Op::Advance { time: 3 },
        Op::Chat { region: 0, session: 2, key: None, kind: 2 },
        Op::Chat { region: 2, session: 2, key: None, kind: 5 },
        Op::Chat { region: 0, session: 0, key: None, kind: 0 },
        Op::Chat { region: 2, session: 1, key: Some(3), kind: 2 },
        Op::LoseRegion { region: 2 },
    ];
    holds_under(1364..1365, &history);
    holds(&history);
}
