//! What every store promises, as one suite: a store runs it by implementing [`Subject`] and naming itself to
//! [`contract!`](crate::ledger::contract::contract).
//!
//! | [rule](crate::design::architecture::ledger_state) | tests |
//! | --- | --- |
//! | never told is unknown, not absent | `telling::who_was_never_told_is_told_that_they_left` |
//! | pending is sticky | `telling::a_value_that_flips_back_in_a_call_is_sent_again`, `…_after_a_call_that_nobody_answered_…` |
//! | settle, release and park compare the claimed version | `telling::what_is_newer_than_what_was_claimed_stays_pending` |
//! | a settle of a forgotten row creates nothing | `deletions::a_settle_after_the_row_was_erased_creates_nothing` |
//! | a call without an answer is told once more after its successor | `silence::whoever_was_in_a_call_that_nobody_answered_is_told_once_more`, `silence::a_re_assertion_that_is_due_survives_a_crash_and_a_restart`, `silence::whoever_is_deleted_before_the_re_assertion_is_removed_once_more` |
//! | so is who was claimed when the process died | `silence::after_a_kill_in_a_call_its_members_are_told_once_more_and_no_others`, `silence::a_clean_stop_leaves_nothing_unheard` |
//! | opening the ledger releases all claims | `silence::a_restart_ends_every_claim` |
//! | a value that was told lately is not sent again | `telling::a_repeat_is_sent_again_after_the_window_and_not_before` |
//! | a resync forgets what was told | `telling::a_resync_tells_every_member_again_including_those_that_left` |
//! | who left, and was told so, is remembered for a while | `telling::a_told_tombstone_keeps_a_late_entry_out_for_its_time` |
//! | what was told went to one environment | `destinations::what_was_told_is_forgotten_when_the_environment_changes` |
//! | a deletion counts at its own time, finds the person, and keeps older events out | `deletions::*` |
//! | where entries expire, they do so by event time, and a later event decides anew | `expiry::*` |
//! | an audience that too many leave at once waits for an operator | `guard::*` |
//! | a snapshot outdoes what is older, whenever it arrives | `standings::what_is_older_than_a_snapshot_…` |
//! | what is left of a reconciliation is kept until it is recorded | `reconciling::…` |
//! | members of an older mapping are recognisable | `operations::only_stale_members_are_retracted` |
//! | the latest event time wins ([P2](crate::design::P2)) | `telling::the_latest_event_time_wins_and_a_tie_goes_to_the_later_arrival` |
//! | a member is in one batch at a time ([P3](crate::design::P3)) | `claims::*` |
//! | all of it together, in any order ([P4](crate::design::P4)) | `story` |
//!
//! [`story`] gives a store and the model random operations, and both must look the same.

pub(crate) mod claims;
pub(crate) mod deletions;
pub(crate) mod destinations;
pub(crate) mod expiry;
pub(crate) mod guard;
pub(crate) mod operations;
pub(crate) mod reconciling;
pub(crate) mod silence;
pub(crate) mod standings;
mod story;
pub(crate) mod subject;
pub(crate) mod telling;

pub(crate) use story::{acts, play};
pub(crate) use subject::{START, Setup, Subject};

/// Runs the suite on a store.
macro_rules! contract {
    ($subject:ty) => {
        $crate::ledger::contract::contract! { $subject:
            claims::a_member_is_in_one_batch_at_a_time_and_the_longest_pending_goes_first,
            claims::a_call_may_be_made_and_finished_as_long_as_nobody_else_owns_the_destination,
            claims::what_was_parked_travels_alone_until_it_is_taken,
            claims::the_halves_of_a_refused_batch_stay_apart_across_a_kill_until_they_are_taken,
            claims::a_request_is_one_whole_and_its_later_item_wins_a_tie,
            claims::an_audience_keeps_its_context_kind_and_follows_its_name,
            claims::somebody_who_was_told_can_be_claimed_again_one_after_the_other,
            telling::who_was_never_told_is_told_that_they_left,
            telling::the_latest_event_time_wins_and_a_tie_goes_to_the_later_arrival,
            telling::a_value_that_flips_back_in_a_call_is_sent_again,
            telling::a_value_that_flips_back_after_a_call_that_nobody_answered_is_sent_again,
            telling::what_is_newer_than_what_was_claimed_stays_pending,
            telling::a_repeat_is_sent_again_after_the_window_and_not_before,
            telling::a_resync_tells_every_member_again_including_those_that_left,
            telling::a_told_tombstone_keeps_a_late_entry_out_for_its_time,
            telling::arrival_never_runs_backwards_not_even_across_a_crash,
            silence::whoever_was_in_a_call_that_nobody_answered_is_told_once_more,
            silence::after_a_kill_in_a_call_its_members_are_told_once_more_and_no_others,
            silence::a_re_assertion_that_is_due_survives_a_crash_and_a_restart,
            silence::a_re_assertion_in_a_call_is_told_after_it,
            silence::whoever_is_deleted_before_the_re_assertion_is_removed_once_more,
            silence::a_clean_stop_leaves_nothing_unheard,
            silence::a_restart_ends_every_claim,
            deletions::a_deletion_finds_a_person_under_other_keys_and_keeps_older_events_out,
            deletions::a_deletion_counts_at_its_own_time_and_a_later_return_stays,
            deletions::a_deletion_that_comes_again_does_not_undo_a_return,
            deletions::an_operators_deletion_takes_along_whatever_is_stored,
            deletions::a_settle_after_the_row_was_erased_creates_nothing,
            deletions::a_removal_that_is_refused_for_good_erases_the_person_all_the_same,
            deletions::whoever_may_still_be_in_the_segment_is_parked_and_not_erased,
            deletions::everything_of_a_request_is_there_after_a_crash,
            destinations::a_request_for_several_destinations_is_recorded_for_all_or_none,
            destinations::a_destination_comes_and_goes_and_its_rows_stay,
            destinations::what_was_told_is_forgotten_when_the_environment_changes,
            destinations::rows_of_a_removed_destination_are_kept_and_shown_until_they_are_erased,
            destinations::requests_that_come_together_get_as_many_places_as_there_are,
            destinations::an_erased_audience_frees_its_place_once_its_calls_are_over,
            expiry::whose_entry_has_expired_leaves_by_event_time,
            expiry::a_repeated_entry_renews_and_an_exit_is_an_exit,
            expiry::only_a_later_event_brings_back_whose_entry_has_expired,
            expiry::an_entry_that_arrives_expired_is_told_as_an_exit,
            expiry::entries_expire_across_a_crash_and_a_restart,
            expiry::entries_of_other_audiences_do_not_expire,
            expiry::who_is_deleted_stays_deleted_whatever_expires,
            guard::too_many_exits_hold_an_audience_across_a_crash_and_others_go_on,
            guard::what_is_released_is_told_and_a_new_window_begins,
            guard::what_is_discarded_is_taken_back_and_nobody_else_is,
            guard::a_later_event_outranks_what_was_taken_back,
            guard::deletions_and_a_retraction_do_not_count,
            guard::a_small_audience_and_a_first_fill_are_not_held,
            guard::a_request_is_judged_as_a_whole,
            guard::whoever_is_removed_otherwise_is_told_although_the_audience_is_held,
            guard::a_kill_counts_nothing_twice,
            guard::who_is_out_because_an_entry_has_expired_has_not_left,
            guard::ordinary_streams_are_not_held,
            guard::a_confirmed_snapshot_passes_and_is_not_taken_back,
            guard::who_is_out_by_a_newer_snapshot_too_is_not_taken_back,
            operations::the_turnover_counts_changes_once_and_repeats_never,
            operations::the_counters_say_what_became_of_deltas,
            operations::parked_members_are_listed_with_launchdarklys_words_until_they_are_taken,
            operations::parked_members_are_tried_again_and_nobody_else,
            operations::parked_members_can_be_given_up_and_nobody_else,
            operations::a_refusal_that_was_everybodys_is_taken_back,
            operations::parked_members_are_bounded_and_the_oldest_go_first,
            operations::rejected_events_are_bounded_and_the_oldest_go_first,
            operations::what_is_parked_or_rejected_goes_when_it_is_too_old,
            operations::rejected_events_are_discarded_by_number,
            operations::an_erased_audience_is_gone_at_once_and_its_name_is_free,
            operations::a_retracted_audience_is_told_that_everybody_left_and_then_forgotten,
            operations::a_retracted_audience_leaves_its_place_to_a_new_one,
            operations::who_waits_to_be_told_is_told_before_a_retraction_erases_it,
            operations::only_stale_members_are_retracted,
            operations::a_person_is_shown_under_every_key,
            standings::members_are_listed_in_the_order_of_their_keys_with_all_that_was_recorded,
            standings::what_is_older_than_a_snapshot_loses_to_it_from_its_first_delta_on,
            reconciling::a_piece_is_there_until_it_is_recorded_across_a_kill,
            reconciling::of_an_audience_one_reconciliation_is_under_way,
            reconciling::a_reconciliation_that_is_stopped_records_no_more,
            reconciling::it_is_known_who_writes_a_reconciliation_down,
            reconciling::who_erases_an_audience_stops_its_reconciliation,
            operations::a_pause_lasts_across_a_restart_and_wakes_the_courier_when_it_ends,
            operations::a_note_is_for_the_next_start,
        }
    };
    ($subject:ty: $($room:ident :: $test:ident,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                $crate::ledger::contract::$room::$test::<$subject>().await;
            }
        )*

        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig {
                cases: <$subject as $crate::ledger::contract::Subject>::STORIES,
                max_shrink_time: 30_000, // milliseconds
                ..$crate::seeds::kept_in("tests/seeds/contract.txt")
            })]

            /// Random operations, crashes and restarts beside the model.
            #[test]
            fn it_looks_like_the_model_whatever_happens(acts in $crate::ledger::contract::acts()) {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let story = $crate::ledger::contract::play::<$subject>(acts);
                runtime.expect("a small runtime").block_on(story);
            }
        }
    };
}

pub(crate) use contract;

/// Whoever has no PostgreSQL reads what was left out.
#[cfg(not(has_postgresql))]
#[test]
#[ignore = "PostgreSQL is not installed: apt-get install postgresql"]
fn the_ledger_on_postgresql_keeps_it() {
    unreachable!("it is compiled where PostgreSQL is missing, and nothing can be shown there");
}

#[test]
fn it_is_kept_on_postgresql_where_every_test_is_demanded() {
    let is_demanded = std::env::var_os("DEMAND_EVERY_TEST").is_some();
    assert!(cfg!(has_postgresql) || !is_demanded, "PostgreSQL is not installed");
}
