//! What every storage adapter promises: one suite per port, run on every backend.
//!
//! A case is a function over the stores; it gets fresh ones. A new backend is a new module of [`suites`].

#![expect(clippy::expect_used, reason = "a case that cannot be set up fails")]

#[path = "conformance/answers.rs"]
mod answers;
#[path = "conformance/audit.rs"]
mod audit;
#[path = "conformance/files.rs"]
mod files;
#[path = "conformance/index.rs"]
mod index;
#[path = "conformance/jobs.rs"]
mod jobs;
#[path = "conformance/limits.rs"]
mod limits;
#[path = "conformance/resumptions.rs"]
mod resumptions;
#[path = "conformance/retention.rs"]
mod retention;
#[path = "conformance/sessions.rs"]
mod sessions;
#[path = "conformance/tokens.rs"]
mod tokens;

/// The job queue has one more backend.
macro_rules! on_sqs {
    (jobs { $($case:ident),* }) => {
        mod sqs {
            mod jobs {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::jobs::$case(&harness::sqs::sqs().await.stores).await;
                })*
            }
        }
    };
    ($other:ident { $($case:ident),* }) => {};
}

/// Agents' files are no storage port, and have backends of their own.
macro_rules! on_files {
    ($($case:ident),* $(,)?) => {
        mod folder {
            mod files {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::files::$case(&harness::files::Place::in_folders()).await;
                })*
            }
        }
        mod s3 {
            mod files {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::files::$case(&harness::files::Place::in_bucket().await.0).await;
                })*
            }
        }
    };
}

on_files! {
    what_is_written_is_read_and_replaced_as_a_whole,
    a_file_is_read_in_parts,
    an_append_makes_a_file_and_adds_to_it,
    of_many_appends_at_once_each_adds_its_own,
    a_file_grows_to_its_limit_and_no_further,
    what_is_not_there_is_missing,
    a_folder_is_no_file_and_a_file_is_no_folder,
    a_listing_is_sorted_by_name_and_cut,
    a_name_means_only_itself,
    the_files_of_two_agents_are_apart,
}

/// Every case on every backend, each a test of its own: `sqlite::jobs::a_job_is_delivered_when_it_is_due`.
macro_rules! suites {
    ($($suite:ident { $($case:ident),* $(,)? })*) => {
        mod memory {
            $(mod $suite {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::$suite::$case(&harness::stores::memory().stores).await;
                })*
            })*
        }
        $(on_sqs! { $suite { $($case),* } })*
        mod dynamodb {
            $(mod $suite {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::$suite::$case(&harness::dynamo::dynamodb().await.stores).await;
                })*
            })*
        }
        mod sqlite {
            $(mod $suite {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::$suite::$case(&harness::stores::sqlite().stores).await;
                })*
            })*
        }
    };
}

suites! {
    sessions {
        what_was_never_used_is_not_there,
        a_first_turn_makes_its_session,
        a_commit_appends_the_reply_and_releases_the_session,
        a_second_turn_goes_on_in_the_same_transcript,
        an_append_journals_a_step_and_extends_the_lease,
        an_empty_append_only_extends_the_lease,
        a_step_that_is_appended_again_is_recorded_once,
        a_lease_with_other_messages_behind_its_position_is_fenced,
        a_commit_that_is_made_again_is_made_once,
        a_summary_moves_the_prompts_start,
        a_session_at_work_is_busy_for_another_turn,
        a_turn_at_work_is_busy_for_itself,
        an_ended_turn_is_replayed_by_key_and_by_id,
        a_key_with_another_body_is_a_mismatch,
        a_turns_id_with_another_body_is_a_mismatch,
        an_interrupted_turn_is_resumed_behind_its_steps,
        a_resumption_by_key_stays_on_the_first_session,
        an_interrupted_turn_stands_in_the_way_of_others,
        a_lease_has_run_out_from_its_end_on,
        a_lease_that_ends_later_than_it_can_has_run_out,
        a_turn_that_failed_for_now_runs_again_under_its_old_id,
        a_turn_that_runs_again_stays_on_its_session_and_behind_what_came_since,
        a_turn_that_runs_again_can_be_interrupted_and_resumed,
        a_turn_that_failed_for_good_is_replayed,
        keys_belong_to_one_principal_of_one_tenant,
        tenants_do_not_see_each_other,
        a_key_of_another_request_is_a_mismatch,
        an_old_lease_is_fenced_and_writes_nothing,
        a_lease_is_worth_nothing_after_the_commit,
        a_lease_of_a_deleted_session_is_worth_nothing_on_the_next_one,
        a_session_never_changes_its_agent,
        of_many_turns_at_once_one_starts,
        of_many_requests_with_one_key_one_starts,
        of_many_who_take_over_one_resumes,
        windows_are_the_newest_messages_that_fit,
        everything_comes_back_as_it_was_stored,
    }
    resumptions {
        resumptions_without_a_step_between_them_are_counted,
        a_turn_that_runs_again_is_counted_anew,
    }
    retention {
        a_turns_key_is_known_until_its_end_and_then_free,
        a_turn_is_known_by_its_id_when_its_key_is_forgotten,
        a_turn_that_runs_again_keeps_its_key_for_longer,
        a_turn_that_runs_again_by_its_id_brings_no_key_back,
        a_turn_that_did_not_end_holds_its_session_when_its_key_is_forgotten,
        a_deletion_leaves_a_key_that_names_another_sessions_turn_by_now,
        an_answer_is_given_until_its_end_and_then_forgotten,
        a_large_answer_is_forgotten_as_a_whole,
        a_claim_without_an_answer_is_forgotten_like_one,
        a_free_key_may_be_used_by_the_other_kind,
    }
    index {
        sessions_are_listed_last_changed_first,
        a_session_may_have_the_longest_name_of_any_characters,
        listings_are_filtered,
        interrupted_turns_are_found_in_every_tenant_oldest_first,
        a_turn_whose_lease_ends_later_than_it_can_is_interrupted,
        interrupted_turns_that_were_resumed_in_vain_hide_no_others,
        an_interrupted_turn_says_how_often_it_was_resumed_since_its_last_step,
        parked_turns_are_found_newest_first,
        a_reset_gives_an_empty_transcript,
        a_session_at_work_or_interrupted_is_neither_reset_nor_deleted,
        a_newer_transcript_is_neither_reset_nor_deleted,
        a_reset_is_done_once,
        a_deletion_takes_everything_but_the_audit_trail,
        a_deletion_leaves_everything_else,
        a_deletion_takes_the_sessions_jobs_along,
        a_session_whose_job_is_at_work_is_not_deleted,
    }
    jobs {
        a_job_is_delivered_when_it_is_due,
        the_same_job_is_enqueued_once,
        due_jobs_come_longest_due_first_and_no_more_than_asked_for,
        a_delivered_job_is_hidden_until_its_delivery_ends,
        a_delivery_can_be_extended,
        jobs_of_those_who_have_their_share_are_left_and_hide_no_others,
        a_clock_that_was_ahead_for_a_moment_hides_no_job,
        a_backlog_says_how_much_waits_and_for_how_long,
        a_job_of_a_megabyte_stays_as_it_was_enqueued,
        an_older_receipt_is_fenced,
        a_receipt_settles_once,
        a_retry_comes_after_its_wait,
        a_retry_that_was_no_attempt_is_not_counted,
        a_dead_job_waits_for_its_redrive,
        only_a_dead_job_is_redriven,
        a_job_that_is_done_is_kept_until_its_end_and_then_forgotten,
        a_large_job_that_is_done_is_forgotten_as_a_whole,
        a_job_that_is_not_done_is_kept,
        a_job_that_is_redriven_after_a_year_meets_its_turn,
        jobs_are_listed_newest_first_and_filtered,
        jobs_of_two_tenants_share_nothing_but_the_queue,
        many_workers_get_each_job_once,
        a_job_that_is_done_keeps_nothing_of_what_was_said,
    }
    limits {
        an_idle_subject_may_send_its_burst_and_one_more,
        a_denial_says_when_and_is_not_counted,
        subjects_are_independent,
        an_allowance_comes_back_at_the_steady_rate,
        of_many_calls_at_once_as_many_pass_as_may,
        thousands_of_subjects_are_counted_exactly,
        a_clock_that_was_ahead_for_a_moment_locks_nobody_out,
        a_limit_that_was_raised_counts_at_once,
    }
    tokens {
        a_token_comes_back_as_it_was_stored,
        an_id_is_taken_once,
        of_many_first_tokens_at_once_one_is_stored,
        tokens_are_listed_oldest_first_for_their_tenant,
        a_revocation_keeps_its_first_time,
        a_token_of_another_tenant_is_not_there,
    }
    answers {
        a_claimed_key_is_busy_until_its_claim_ends,
        a_claim_that_ran_out_can_be_claimed_again,
        a_claim_that_ends_later_than_it_can_has_run_out,
        an_answer_is_given_again,
        an_answer_of_a_megabyte_is_given_again,
        the_first_answer_stays,
        a_key_with_another_body_is_a_mismatch,
        only_a_claimed_key_can_be_answered,
        a_released_key_is_free_again,
        an_answered_key_is_not_released,
        keys_belong_to_one_principal_of_one_tenant,
        a_turns_key_is_a_mismatch,
        of_many_claims_at_once_one_gets_it,
    }
    audit {
        rows_are_written_with_what_they_record_and_form_a_chain,
        a_refused_write_leaves_no_row,
        rows_are_listed_newest_first_counted_and_filtered,
        rows_are_found_by_agent_caller_and_action,
        each_transcript_has_a_chain_of_its_own,
        rows_before_a_time_are_pruned,
        a_chain_goes_on_after_its_rows_were_pruned,
        details_come_back_as_they_were_hashed,
    }
}
