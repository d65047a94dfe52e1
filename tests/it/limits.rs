//! Every bound of `src/limits.rs` and the test that reaches it, held to the tree.

use std::fs;
use std::path::Path;
use std::time::Duration;

use auroraboot::daemon::http;
use auroraboot::limits;
use auroraboot::netboot::event::{Event, Piece};
use auroraboot::netboot::journal::Journal;
use auroraboot::source::client::Timeouts;
use auroraboot::source::retry::Backoff;
use auroraboot::units::MacAddr;

/// Name of the limit, name of the test.
const REACHED: &[(&str, &str)] = &[
    ("SHOWN_CHARS_MAX", "text_of_an_image_is_short_and_harmless"),
    ("MODULE_LIST_BYTES_MAX", "lists_that_are_missing_or_too_large_are_refused"),
    ("DEVICES_MAX", "the_walk_through_devices_is_bounded"),
    ("DEVICES_NESTED_MAX", "the_walk_through_devices_is_bounded"),
    ("MODALIAS_BYTES_MAX", "the_walk_through_devices_is_bounded"),
    ("FAT_ROOT_BYTES_MAX", "a_fat_made_to_be_slow_is_given_up"),
    ("WATCHDOG_TIMEOUT", "the_machine_is_reset_in_time"),
    ("PROCESS_END_TIMEOUT", "the_machine_ends_in_order"),
    ("PROCESS_KILL_TIMEOUT", "the_machine_ends_in_order"),
    ("PROCESS_END_POLL", "the_machine_ends_in_order"),
    ("PARTITION_PATIENCE", "one_that_the_kernel_was_slow_to_show_is_waited_for"),
    ("POWER_BUTTONS_MAX", "only_so_many_buttons_are_listened_to"),
    ("GROWTH_BYTES_MIN", "a_partition_grows_only_for_what_is_worth_it"),
    ("CLOUD_CONFIG_BYTES_MAX", "what_cannot_be_read_says_what_and_why"),
    ("CLOUD_CONFIG_BYTES_WARN", "each_warning"),
    ("CONFIG_FILE_BYTES_MAX", "what_cannot_be_read_says_what_and_why"),
    ("KEY_PARTS_MAX", "a_key_has_a_bounded_number_of_parts"),
    ("YAML_NESTED_MAX", "nesting_is_bounded_before_it_takes_quadratic_time"),
    ("TEMPLATE_IFS_NESTED_MAX", "nesting_and_growth_are_bounded"),
    ("TEMPLATE_FILTERS_MAX", "nesting_and_growth_are_bounded"),
    ("CONNECT_TIMEOUT", "a_server_that_never_shakes_hands_is_given_up_by_name"),
    ("RESPONSE_TIMEOUT", "a_server_that_never_answers_is_given_up_by_name"),
    ("STALL_TIMEOUT", "a_stall_is_noticed_and_resumed"),
    ("ATTEMPTS_MAX", "a_server_that_stays_down_is_told_with_its_words"),
    ("RETRY_WAIT", "the_product_runs_with_its_named_limits"),
    ("RETRY_WAIT_MAX", "retry_after_is_honoured_within_the_bound"),
    ("RETRY_PROGRESS_BYTES", "a_download_that_gains_ground_is_not_given_up"),
    ("REGISTRY_PATIENCE", "an_image_of_an_earlier_run_is_not_waited_for"),
    ("TAG_LINE_BYTES_MAX", "what_a_name_stood_for_is_recalled_unless_it_is_damaged"),
    ("BOOT_SETS_MAX", "a_machine_ends_with_the_set_it_began_with"),
    ("INDEX_BYTES_MAX", "an_index_stays_with_its_image_and_damaged_names_count_for_nothing"),
    ("REDIRECTS_MAX", "redirects_end_somewhere"),
    ("RESPONSE_HEAD_BYTES_MAX", "an_endless_response_head_is_refused"),
    ("MANIFEST_BYTES_MAX", "an_oversized_manifest_is_not_read_to_its_end"),
    ("LAYERS_MAX", "bombs_hit_their_bounds"),
    ("LAYER_BYTES_MAX", "bounds_are_reached"),
    ("TOKEN_BYTES_MAX", "an_endless_token_is_not_read_to_its_end"),
    ("TOKEN_LIFETIME", "tokens_under_either_name_with_a_lifetime_of_a_minute_at_least"),
    ("CREDENTIALS_BYTES_MAX", "a_broken_file_is_an_error_that_shows_no_secret"),
    ("CREDENTIAL_HELPER_TIMEOUT", "a_helper_is_asked_answers_and_is_ended_in_time"),
    ("DOWNLOADS_AT_ONCE", "the_top_layers_come_first_and_only_so_many_at_once"),
    ("BLOB_BUFFER_BYTES", "every_encoding_by_tag_and_by_digest_and_a_second_run_without_the_registry"),
    ("ISO_BYTES_MAX", "what_is_too_large_to_be_an_iso_is_refused_before_it_comes"),
    ("CHECKSUM_BYTES_MAX", "a_checksum_file_that_is_none_is_told"),
    ("FETCH_NOTE_BYTES_MAX", "a_stamp_holds_until_its_file_is_altered"),
    ("GITHUB_ANSWER_BYTES_MAX", "an_endless_api_answer_is_not_read_to_its_end"),
    ("GITHUB_PAGES_MAX", "an_artifact_that_does_not_exist_is_answered_with_those_that_do"),
    ("NAMES_LISTED_MAX", "an_artifact_that_does_not_exist_is_answered_with_those_that_do"),
    ("PROGRESS_REDRAW", "a_terminal_gets_one_line_that_is_redrawn"),
    ("PROGRESS_LOG", "a_log_gets_a_line_at_the_start_now_and_then_and_at_the_end"),
    ("DAEMON_FIND_TIMEOUT", "a_daemon_that_hangs_is_given_up_by_name_and_in_time"),
    ("DAEMON_ANSWER_TIMEOUT", "a_daemon_that_hangs_is_given_up_by_name_and_in_time"),
    ("DAEMON_EXPORT_TIMEOUT", "an_export_that_never_begins_or_stops_is_given_up_by_name"),
    ("DAEMON_STALL_TIMEOUT", "an_export_that_never_begins_or_stops_is_given_up_by_name"),
    ("DAEMON_ANSWER_BYTES_MAX", "an_answer_without_end_is_not_read_to_its_end"),
    ("DAEMON_NAME_BYTES_MAX", "a_name_cannot_steer_the_request"),
    ("DAEMON_LAST_WORDS_BYTES_MAX", "the_last_words_are_found_behind_whatever_came_before"),
    ("ARCHIVE_MEMBERS_MAX", "counts_and_sizes_are_bounded"),
    ("ARCHIVE_LINKS_FOLLOWED_MAX", "names_and_links_stay_inside"),
    ("ARCHIVE_INDEXES_NESTED_MAX", "indexes_are_followed_so_far_and_no_further"),
    ("ARCHIVE_DOCUMENTS_MAX", "indexes_are_followed_so_far_and_no_further"),
    ("ARCHIVE_PADDING_BYTES_MAX", "what_follows_the_end_is_bounded"),
    ("SPOOL_SMALL_BYTES_MAX", "many_small_members_do_not_fill_the_memory"),
    ("SPOOL_MEMORY_BYTES_MAX", "many_small_members_do_not_fill_the_memory"),
    ("SPOOL_PARTS_MAX", "the_number_of_parts_is_bounded"),
    ("SPOOL_BYTES_MAX", "the_bytes_of_all_parts_are_bounded_before_they_come"),
    ("TAR_EXTENSION_BYTES_MAX", "extension_headers_are_bounded_each_and_together"),
    ("TAR_SPARSE_PIECES_MAX", "too_many_sparse_pieces_are_refused"),
    ("PATH_BYTES_MAX", "what_leaves_the_root_or_is_too_long_is_refused"),
    ("NAME_BYTES_MAX", "what_leaves_the_root_or_is_too_long_is_refused"),
    ("DIRECTORY_FILE_XATTR_BYTES_MAX", "attributes_no_image_can_hold_are_refused_by_name"),
    ("DIRECTORY_XATTR_BYTES_MAX", "what_a_tree_takes_of_the_memory_is_bounded"),
    ("TREE_ENTRIES_MAX", "bombs_hit_their_bounds"),
    ("TREE_NAME_BYTES_MAX", "paths_and_their_bytes_are_bounded"),
    ("TREE_XATTR_BYTES_MAX", "equal_attribute_sets_are_kept_once_and_all_of_them_are_bounded"),
    ("IMAGE_BYTES_MAX", "bombs_hit_their_bounds"),
    ("ZSTD_WINDOW_LOG_MAX", "a_zstd_window_above_the_limit_is_refused"),
    ("SYMLINKS_FOLLOWED_MAX", "whiteouts_of_the_root_links_in_circles_and_chains_are_refused"),
    ("LINK_STEPS_MAX", "lookups_that_links_make_long_are_bounded_together"),
    ("ISO_ENTRIES_MAX", "an_image_has_room_for_so_many_entries"),
    ("ISO_DIRECTORIES_MAX", "path_tables_number_so_many_directories"),
    ("ISO_BUFFER_BYTES", "xorriso_takes_out_what_went_in_from_both_sets"),
    ("ISO_BOOT_IMAGE_BYTES_MAX", "what_cannot_be_written_says_why"),
    ("SQUASHFS_BUFFERS_PER_WORKER", "blocks_in_memory_are_bounded_by_the_named_limits"),
    ("SQUASHFS_BUFFERS_EXTRA", "blocks_in_memory_are_bounded_by_the_named_limits"),
    ("SQUASHFS_STEPS_AHEAD", "more_steps_than_may_be_ahead_wait_for_each_other"),
    ("SQUASHFS_BLOCKS_MAX", "what_squashfs_cannot_hold_is_an_error"),
    ("SQUASHFS_LINK_BYTES_MAX", "what_squashfs_cannot_hold_is_an_error"),
    ("SQUASHFS_XATTR_VALUE_BYTES_MAX", "values_and_totals_are_bounded"),
    ("SQUASHFS_XATTRS_BYTES_MAX", "values_and_totals_are_bounded"),
    ("ESP_BYTES_MAX", "what_fat_or_a_boot_catalog_cannot_hold_is_refused"),
    ("EFI_PROGRAM_BYTES_MAX", "what_is_too_large_to_be_a_boot_loader_is_refused"),
    ("IMAGE_TEXT_BYTES_MAX", "a_release_file_too_large_to_be_one_is_not_read"),
    ("IMAGE_FACTS_MAX", "what_an_image_says_of_itself_cannot_steer_a_terminal"),
    ("MEDIUM_NAME_BYTES_MAX", "a_name_cannot_leave_its_directory"),
    ("OVERLAY_ENTRIES_MAX", "the_number_of_entries_is_bounded"),
    ("STAMP_BYTES_MAX", "the_same_image_is_not_built_twice"),
    ("DHCP_COPY_WINDOW", "copies_on_another_interface_are_not_answered_but_repeats_are"),
    ("DHCP_SEEN_MAX", "the_memory_for_copies_is_bounded"),
    ("DHCP_LOOP_TRIES", "a_loader_that_changes_nothing_is_offered_twice"),
    ("DHCP_LOOP_WINDOW", "a_loader_that_changes_nothing_is_offered_twice"),
    ("DHCP_LOOPS_MAX", "the_memory_for_loops_is_bounded"),
    ("TFTP_ACTIVE_MAX", "the_product_takes_as_many_as_its_limits_say"),
    ("TFTP_WAITING_MAX", "the_product_takes_as_many_as_its_limits_say"),
    ("TFTP_WAIT", "more_than_there_are_places_for_wait_their_turn"),
    ("TFTP_WINDOW_BLOCKS_MAX", "what_is_granted"),
    ("TFTP_WINDOW_BYTES_MAX", "bytes_in_flight_are_bounded_whatever_the_order"),
    ("TFTP_BURST_BYTES_MAX", "one_send_is_never_longer_than_udp_carries"),
    ("TFTP_RESEND_FIRST", "the_timer_resends_the_window_and_backs_off_until_it_gives_up"),
    ("TFTP_RESEND_SOONEST", "round_trips_shorten_the_timer_and_resent_blocks_do_not_count"),
    ("TFTP_RESEND_LONGEST", "the_timer_resends_the_window_and_backs_off_until_it_gives_up"),
    ("TFTP_GIVE_UP", "the_timer_resends_the_window_and_backs_off_until_it_gives_up"),
    ("TFTP_GIVE_UP_FINAL", "a_missing_final_ack_is_no_failure"),
    ("TFTP_ERRORS_PER_SECOND", "a_burst_then_a_rate"),
    ("TFTP_ERRORS_BURST", "never_a_party_to_a_flood"),
    ("TFTP_REQUESTS_PER_TURN", "two_thousand_clients_at_once_all_finish"),
    ("TFTP_REQUEST_BYTES_MAX", "refused_at_once_with_the_code_that_fits"),
    ("TFTP_EVENTS_MAX", "never_a_party_to_a_flood"),
    ("HTTP_HEAD_BYTES_MAX", "a_head_is_bounded_in_bytes_and_headers"),
    ("HTTP_HEADERS_MAX", "a_head_is_bounded_in_bytes_and_headers"),
    ("HTTP_CONNECTIONS_MAX", "when_full_the_longest_waiting_makes_room_and_the_busy_are_left_alone"),
    ("HTTP_HEAD_TIMEOUT", "a_slow_head_has_one_deadline_however_it_drips"),
    ("HTTP_IDLE_TIMEOUT", "idle_and_stalled_connections_end_and_progress_counts"),
    ("HTTP_STALL_TIMEOUT", "idle_and_stalled_connections_end_and_progress_counts"),
    ("HTTP_LINGER_TIMEOUT", "the_last_response_is_followed_by_lingering"),
    ("WEB_REQUESTS_MAX", "a_handler_that_hangs_costs_its_client_a_page_and_nobody_else_anything"),
    ("WEB_WAITING_MAX", "more_requests_for_pages_than_there_is_room_for_are_refused_at_once"),
    ("HTTP_ANSWER_TIMEOUT", "an_answer_that_takes_time_has_a_deadline_and_nothing_is_read_meanwhile"),
    ("WEB_ANSWER_BYTES_MAX", "an_answer_is_bounded"),
    ("WEB_RETRY", "without_descriptors_pages_wait_and_downloads_go_on"),
    ("EVENTS_WAITING_MAX", "the_channel_of_the_product_is_bounded"),
    ("CMDLINE_BYTES_MAX", "the_line_is_bounded"),
    ("URL_BYTES_MAX", "the_line_is_bounded"),
    ("MACHINES_WATCHED_MAX", "machines_and_steps_are_bounded"),
    ("MACHINE_STEPS_MAX", "machines_and_steps_are_bounded"),
    ("HEALTH_PATIENCE", "a_loop_that_turns_is_told_from_one_that_hangs"),
    ("CONTROL_PATIENCE", "a_server_that_does_not_answer_is_given_up"),
    ("QUESTION_PATIENCE", "somebody_there_is_waited_for_longer_but_not_for_ever"),
    ("VISITOR_PATIENCE", "nobody_there_is_not_waited_for_long"),
    ("HEALTH_INTERVAL", "the_product_waits_as_its_limits_say"),
    ("UNWELL_MAX", "a_server_that_hangs_is_killed_and_one_that_does_not_end_too"),
    ("SERVER_END_PATIENCE", "a_server_that_hangs_is_killed_and_one_that_does_not_end_too"),
    ("RESTART_WAIT", "a_server_that_ends_is_started_again_counted_and_its_reason_told"),
    ("RESTART_WAIT_MAX", "a_server_that_ends_is_started_again_counted_and_its_reason_told"),
    ("LOG_RING_LINES_MAX", "the_latest_lines_stay"),
    ("LOG_RING_LINE_CHARS_MAX", "the_latest_lines_stay"),
    ("LOG_FILE_BYTES_MAX", "lines_outlive_the_program_and_their_file_is_bounded"),
    ("CONSOLE_SETTINGS_BYTES_MAX", "what_a_server_would_refuse_is_not_kept"),
    ("NETWORK_TRIAL", "a_change_of_the_network_goes_back_unless_it_is_confirmed"),
    ("CONSOLE_LINE_CHARS_MAX", "long_lines_are_a_window_on_themselves_and_bounded"),
    ("CONSOLE_PASTE_BYTES_MAX", "a_paste_that_is_too_long_is_swallowed_to_its_end"),
    ("CONSOLE_ESCAPE_BYTES_MAX", "sequences_that_nobody_knows_leave_nothing_behind"),
    ("CONSOLE_HISTORY_LINES_MAX", "what_was_typed_comes_back_and_secrets_do_not"),
    ("CONSOLE_TYPED_AHEAD_BYTES_MAX", "what_is_typed_ahead_waits_and_is_bounded"),
    ("CONSOLE_OUTPUT_BYTES_MAX", "what_is_typed_ahead_waits_and_is_bounded"),
    ("CONSOLE_ROWS", "the_overview_fills_one_screen_and_no_more"),
    ("CONSOLE_ANSWER_LINES_MAX", "an_answer_without_end_is_cut"),
    ("CONSOLE_IDLE_MAX", "whoever_goes_away_is_logged_off_and_leaves_nothing"),
    ("CONSOLE_LOGIN_IDLE_MAX", "a_password_is_asked_for_and_wrong_ones_take_longer_and_longer"),
    ("CONSOLE_PASSWORDS_MAX", "a_password_is_asked_for_and_wrong_ones_take_longer_and_longer"),
    ("CONSOLE_PASSWORD_WAIT", "a_password_is_asked_for_and_wrong_ones_take_longer_and_longer"),
    ("CONSOLE_PASSWORD_WAIT_MAX", "a_password_is_asked_for_and_wrong_ones_take_longer_and_longer"),
    ("CONSOLE_FOLLOW_INTERVAL", "the_log_is_paged_backwards_and_followed"),
    ("CONSOLE_REFRESH_MIN", "an_empty_line_refreshes_the_status_but_not_a_thousand_times_a_second"),
    ("CONSOLE_NONSENSE_MAX", "another_programs_prompt_is_not_talked_to_for_ever"),
    ("CONSOLE_QUIET", "what_follows_a_paste_that_was_given_up_is_no_choice"),
    ("CONSOLE_STUCK_MAX", "a_line_that_takes_nothing_is_let_go"),
    ("CONSOLE_REOPEN_WAIT", "a_device_that_comes_back_has_its_console_again"),
    ("CONTROL_LINE_BYTES_MAX", "what_is_no_question_is_refused_and_an_endless_one_ends_the_channel"),
    ("MACHINES_MAX", "strangers_cannot_fill_the_memory_or_the_log"),
    ("MACHINE_ADDRESS_AGE_MAX", "an_address_is_not_a_machines_for_ever"),
    ("BOOT_AGE_MAX", "a_machine_that_was_away_for_an_hour_begins_anew"),
    ("COMPLAINT_INTERVAL", "complaints_are_told_once_and_then_counted_each_minute"),
    ("COMPLAINTS_MAX", "strangers_cannot_fill_the_memory_or_the_log"),
    ("LOG_LINES_PER_SECOND_MAX", "strangers_cannot_fill_the_memory_or_the_log"),
    ("PART_AGE_MAX", "a_layer_waits_a_week_to_be_gone_on_with"),
    ("DHCP_RETRY_WAIT", "lost_messages_are_sent_again_ever_more_slowly_and_for_ever"),
    ("DHCP_RETRY_WAIT_MAX", "lost_messages_are_sent_again_ever_more_slowly_and_for_ever"),
    ("DHCP_REQUEST_TRIES", "a_server_that_never_confirms_is_left_for_another"),
    ("DHCP_REBOOT_TRIES", "a_remembered_address_that_nobody_knows_any_more"),
    ("DHCP_RENEW_WAIT_MIN", "renewals_come_closer_and_from_t2_on_go_to_everybody"),
    ("DHCP_DECLINE_WAIT", "an_address_that_somebody_has_is_declined"),
    ("DHCP_LEASE_MIN", "each_reason_not_to_take_an_answer"),
    ("DHCP_SERVERS_MAX", "broken_extras_are_left_out_and_many_are_too_many"),
    ("DHCP_MTU_MIN", "broken_extras_are_left_out_and_many_are_too_many"),
    ("ARP_PROBES", "an_address_is_discovered_requested_probed_and_used"),
    ("ARP_PROBE_WAIT", "an_address_is_discovered_requested_probed_and_used"),
    ("SNTP_AHEAD_MAX", "no_time_before_the_build_nor_far_behind_it"),
    ("SNTP_DISTANCE_MAX", "each_reason_not_to_believe_an_answer"),
    ("NETWORK_SWITCH_AFTER", "others_are_asked_when_the_used_one_has_had_no_link_for_a_while"),
    ("NETWORK_RECEIVE_BUFFER_BYTES", "a_flood_on_the_clients_port_is_got_over"),
    ("NETWORK_BATCHES_PER_TURN", "a_flood_on_the_clients_port_is_got_over"),
    ("NETWORK_DUPLICATE_EVERY", "an_address_in_use_is_looked_for_again"),
    ("NETWORK_COMPLAINT_EVERY", "complaints_are_told_now_and_then_only"),
    ("NETWORK_INTERFACES_MAX", "hardware_by_itself_and_anything_by_name"),
    ("NETWORK_DNS_MAX", "the_resolver_gets_as_many_servers_as_it_reads"),
    ("NTP_PATIENCE", "servers_that_are_silent_are_asked_again_ever_more_slowly"),
    ("NTP_ANSWERS_PER_TURN", "a_flood_of_forgeries_costs_one_turn_little"),
    ("NTP_RETRY_WAIT", "servers_that_are_silent_are_asked_again_ever_more_slowly"),
    ("NTP_RETRY_WAIT_MAX", "servers_that_are_silent_are_asked_again_ever_more_slowly"),
    ("NTP_EVERY", "a_clock_that_is_off_is_set_and_asked_for_again_in_an_hour"),
    ("NTP_OFFSET_MIN", "a_clock_that_is_off_is_set_and_asked_for_again_in_an_hour"),
    ("NTP_ADDRESSES_MAX", "names_are_resolved_beside_the_loop_and_few_of_their_addresses_taken"),
    ("NTP_LEFT_ALONE_MAX", "a_server_that_wants_to_be_left_alone_is"),
    ("PACKET_RECEIVE_BUFFER_BYTES", "a_rack_that_gets_its_power_back_while_we_look_elsewhere_is_answered"),
    ("DHCP_BATCHES_PER_TURN", "bursts_longer_than_one_turn_of_the_loop_are_answered_completely"),
    ("PXE_MESSAGES_PER_TURN", "bursts_longer_than_one_turn_of_the_loop_are_answered_completely"),
    ("PXE_MESSAGE_BYTES_MAX", "bursts_longer_than_one_turn_of_the_loop_are_answered_completely"),
    ("INTERFACE_SETTLE", "an_interface_that_goes_down_or_away_is_served_again_when_it_is_back"),
    ("STOP_PATIENCE", "a_registry_that_swallows_everything_does_not_hold_the_end_up"),
    ("LOG_PATIENCE", "a_stderr_that_nobody_reads_holds_nothing_up"),
    ("FLASH_PIECE_BYTES", "two_pieces_of_each_stick_are_in_memory"),
    ("FLASH_PIECES", "two_pieces_of_each_stick_are_in_memory"),
    ("FLASH_HEAD_BYTES", "the_head_is_withheld_the_body_in_large_pieces_and_the_end_wiped"),
    ("FLASH_TAIL_BYTES", "the_head_is_withheld_the_body_in_large_pieces_and_the_end_wiped"),
    ("FLASH_DEVICES_MAX", "the_same_stick_twice_and_too_many_are_refused"),
    ("FLASH_LOCK_PATIENCE", "a_lock_is_waited_for_and_then_respected"),
    ("DEVICE_TEXT_CHARS_MAX", "device_text_is_short_and_cannot_steer_a_terminal"),
    ("HOLDERS_NESTED_MAX", "a_volume_that_nothing_uses_is_a_usage_and_circles_end"),
    ("GPT_ENTRIES_MAX", "a_hostile_header_with_right_checksums_is_refused"),
    ("ISO_DESCRIPTORS_MAX", "descriptors_without_end_are_refused"),
    ("ISO_DIRECTORY_BYTES_MAX", "an_oversized_directory_is_refused"),
    ("ISO_CONTINUATION_BYTES_MAX", "endless_continuations_are_refused"),
    ("ISO_LOOKUP_BYTES_MAX", "endless_continuations_are_refused"),
    ("ISO_PATH_STEPS_MAX", "links_and_directories"),
    ("ISO_BOOT_CATALOG_BYTES_MAX", "a_boot_catalog_is_one_block"),
    ("ISO_PATH_TABLE_BYTES_MAX", "an_oversized_path_table_is_refused"),
    ("ISO_TAIL_PARTITIONS_MAX", "too_many_partitions_behind_the_volume_are_refused"),
    ("ISO_CHECKSUM_LIST_BYTES_MAX", "a_list_of_checksums_that_is_too_long_is_left_alone"),
    ("STATE_LOCK_PATIENCE", "is_private_locked_and_keeps_its_secret"),
    ("STATE_SECRET_BYTES", "a_cut_secret_is_made_anew"),
];

/// Limits that no test reaches, and why.
const NOT_REACHED: &[(&str, &str)] = &[
    ("RESOLVE_TIMEOUT", "the C library asks the host's own DNS server, which a test cannot replace"),
    ("COPY_STEP_BYTES", "a pace and not a bound: how soon a copy is stopped"),
    ("FLUSH_BYTES", "a pace and not a bound: what is not on the disk by then is brought there in the end"),
    ("POLL_EVENTS", "what does not fit is in the next turn of the loop"),
    ("BOOT_PARTITION_PATIENCE", "an appliance without its disk; tests/lab has the disk come late, as a USB stick"),
    ("STICK_PATIENCE", "which sticks are too late; an appliance and a second disk"),
    ("CLOCK_PATIENCE", "only boards without a battery wait for the time"),
    ("READY_POLL", "a pace and not a bound"),
    ("WATCHDOG_INTERVAL", "a pace and not a bound: the watchdog's own time is the bound"),
    ("UEVENT_PATIENCE", "a pace and not a bound: it waits again"),
    ("PANIC_PAUSE", "how long the last words of a process 1 that failed can be read"),
    ("INTERFACE_RETRY", "only a kernel that refuses a socket it granted before leads there"),
];

fn read_tree(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_tree(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_limit_has_a_test_that_reaches_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut all, mut wrong) = (String::new(), Vec::new());
    read_tree(&root.join("src"), &mut all);
    read_tree(&root.join("tests/it"), &mut all);
    let text = fs::read_to_string(root.join("src/limits.rs")).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()).collect();
    let listed: Vec<&str> = REACHED.iter().chain(NOT_REACHED).map(|(name, _)| *name).collect();
    for name in &names {
        match listed.iter().filter(|listed| *listed == name).count() {
            0 => wrong.push(format!("{name} is not listed here")),
            1 => {}
            _ => wrong.push(format!("{name} is listed twice")),
        }
    }
    wrong.extend(listed.iter().filter(|name| !names.contains(name)).map(|name| format!("{name} is no limit any more")));
    for (name, test) in REACHED {
        if all.matches(&format!("fn {test}()")).count() != 1 {
            wrong.push(format!("{name}: there is no test {test}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tests shorten waits; the product's own are those that are named.
#[test]
fn the_product_runs_with_its_named_limits() {
    let network = Timeouts::default();
    assert_eq!(
        [network.resolve, network.connect, network.response, network.stall],
        [limits::RESOLVE_TIMEOUT, limits::CONNECT_TIMEOUT, limits::RESPONSE_TIMEOUT, limits::STALL_TIMEOUT]
    );
    let waits: Vec<_> = (1..=limits::ATTEMPTS_MAX).map(|faults| Backoff::default().wait_after(faults, None)).collect();
    assert_eq!((waits[0], waits.last()), (Some(limits::RETRY_WAIT), Some(&None)));
    assert_eq!(Backoff::default().wait_after(1, Some(Duration::MAX)), Some(limits::RETRY_WAIT_MAX));
    let http::Options { timeouts, connections_max } = http::Options::default();
    assert_eq!(connections_max, limits::HTTP_CONNECTIONS_MAX);
    assert_eq!(
        [timeouts.head, timeouts.idle, timeouts.stall, timeouts.linger, timeouts.answer],
        [
            limits::HTTP_HEAD_TIMEOUT,
            limits::HTTP_IDLE_TIMEOUT,
            limits::HTTP_STALL_TIMEOUT,
            limits::HTTP_LINGER_TIMEOUT,
            limits::HTTP_ANSWER_TIMEOUT
        ]
    );
}

#[test]
fn a_machine_that_was_away_for_an_hour_begins_anew() {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let sent = |piece| Event::FileSent {
        mac,
        piece,
        to: ([10, 0, 0, 9], 1000).into(),
        bytes: 1,
        took: Duration::from_secs(1),
    };
    for (away, is_one_boot) in [(limits::BOOT_AGE_MAX / 2, true), (limits::BOOT_AGE_MAX * 2, false)] {
        let mut journal = Journal::new(false);
        journal.handle_input(Duration::ZERO, Event::Offered { mac, client: "x64 UEFI".into() });
        journal.handle_input(Duration::ZERO, sent(Piece::Kernel));
        journal.handle_input(Duration::ZERO, sent(Piece::Initrd));
        journal.handle_input(away, sent(Piece::Rootfs));
        let mut lines = std::iter::from_fn(|| journal.poll_output());
        assert_eq!(lines.any(|line| line.text.contains("has everything")), is_one_boot, "{away:?}");
    }
}
