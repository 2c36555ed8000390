use super::*;

const LENGTH: u64 = 900_000;

fn nobody() -> Facts {
    Facts::default()
}

fn somebody() -> Facts {
    let session = Session { user: "root".into(), pid: 7, program: "sh".into() };
    Facts { sessions: vec![session], ..Facts::default() }
}

fn at_risk() -> Facts {
    Facts { flash: Flash::AtRisk, ..Facts::default() }
}

/// Of that length whatever flash is like.
fn leased(length: u64) -> Lease {
    Lease::new(&Terms { lease_ms: Some(length), lease_unverified_ms: Some(length), ways_in: vec![] })
}

fn as_found() -> Facts {
    Facts { flash: Flash::AsFound, ..Facts::default() }
}

/// Steps whenever the lease asks for it, from `from` until `until`; what it said, with when.
fn watch(lease: &mut Lease, from: u64, until: u64, facts: &Facts) -> Vec<(u64, Step)> {
    let mut said = Vec::new();
    let mut now = from;
    while now <= until {
        said.extend(lease.step(now, facts).into_iter().map(|step| (now, step)));
        let next = lease.next_look().unwrap();
        assert!(next > now, "it would spin at {now}");
        now = next;
    }
    said
}

fn expiries(said: &[(u64, Step)]) -> Vec<u64> {
    said.iter().filter(|(_, step)| matches!(step, Step::Expire(_))).map(|(at, _)| *at).collect()
}

#[test]
fn with_nobody_logged_in_it_warns_a_minute_before_and_expires_on_time() {
    let mut lease = leased(LENGTH);
    let said = watch(&mut lease, 5, LENGTH + 5, &nobody());
    assert_eq!(
        said,
        [
            (5, Step::Note("lease: runs; reboot in 15 min unless somebody logs in".into())),
            (
                LENGTH + 5 - WARNING_MS,
                Step::Warn(
                    "nobody is logged in: rebooting into the system on flash in 60 s (log in, or `levitate hold`, to stay)"
                        .into()
                )
            ),
            (
                LENGTH + 5,
                Step::Expire(
                    "the lease is over: nobody was logged in for 15 min; rebooting into the system on flash".into()
                )
            ),
        ]
    );
}

#[test]
fn a_short_lease_warns_at_its_half() {
    let said = watch(&mut leased(8_000), 0, 8_000, &nobody());
    assert!(matches!(said[1], (4_000, Step::Warn(_))), "{said:?}");
    assert_eq!(expiries(&said), [8_000]);
}

#[test]
fn a_session_stops_it_and_it_runs_from_its_full_length_when_the_last_one_ends() {
    let mut lease = leased(LENGTH);
    watch(&mut lease, 0, LENGTH - 1_000, &nobody());
    let said = watch(&mut lease, LENGTH - 999, 10 * LENGTH, &somebody());
    assert_eq!(said, [(LENGTH - 999, Step::Note("lease: stopped: logged in: root (sh, pid 7)".into()))]);
    assert_eq!(lease.status(10 * LENGTH).state, LeaseState::LoggedIn { sessions: somebody().sessions });
    let end = 10 * LENGTH + 1;
    let said = watch(&mut lease, end, end + LENGTH, &nobody());
    assert_eq!(expiries(&said), [end + LENGTH]);
    assert_eq!(said.len(), 3, "the warning comes again: {said:?}");
}

#[test]
fn a_hold_without_a_time_lasts_until_it_is_released() {
    let mut lease = leased(LENGTH);
    watch(&mut lease, 0, 10, &nobody());
    lease.hold(10, None);
    assert_eq!(expiries(&watch(&mut lease, 10, 100 * LENGTH, &nobody())), [0_u64; 0]);
    assert_eq!(lease.status(5).state, LeaseState::Held { left_ms: None });
    let now = 100 * LENGTH + 1;
    assert!(lease.release(now) && !lease.release(now));
    assert_eq!(expiries(&watch(&mut lease, now, now + LENGTH, &nobody())), [now + LENGTH]);
}

#[test]
fn a_hold_with_a_time_ends_by_itself_and_then_the_whole_lease_runs() {
    let mut lease = leased(LENGTH);
    lease.hold(0, Some(3 * LENGTH));
    let said = watch(&mut lease, 0, 3 * LENGTH - 1, &nobody());
    assert_eq!(said, [(0, Step::Note("lease: stopped: held for 45 min".into()))]);
    assert_eq!(lease.status(LENGTH).state, LeaseState::Held { left_ms: Some(2 * LENGTH) });
    assert!(
        !lease.asks_for_sessions(LENGTH, Flash::Safe) && lease.asks_for_sessions(3 * LENGTH, Flash::Safe)
    );
    let said = watch(&mut lease, 3 * LENGTH, 4 * LENGTH, &nobody());
    assert_eq!(expiries(&said), [4 * LENGTH]);
}

#[test]
fn from_the_first_change_of_flash_it_never_expires_until_flash_is_verified() {
    let mut lease = leased(LENGTH);
    watch(&mut lease, 0, LENGTH - 1, &nobody());
    let said = watch(&mut lease, LENGTH - 1, 1_000 * LENGTH, &at_risk());
    assert_eq!(expiries(&said), [0_u64; 0]);
    assert_eq!(lease.status(LENGTH).state, LeaseState::Flash);
    let now = 1_000 * LENGTH + 1;
    assert_eq!(expiries(&watch(&mut lease, now, now + LENGTH, &nobody())), [now + LENGTH]);
}

#[test]
fn flash_at_risk_outweighs_a_hold_that_ends() {
    let mut lease = leased(LENGTH);
    lease.hold(0, Some(1_000));
    assert_eq!(expiries(&watch(&mut lease, 0, 10 * LENGTH, &at_risk())), [0_u64; 0]);
}

#[test]
fn one_that_is_off_does_nothing_and_asks_for_nothing() {
    let mut lease = Lease::new(&Terms { lease_ms: None, ..Terms::default() });
    assert_eq!(lease.step(u64::MAX, &nobody()), []);
    assert_eq!(lease.next_look(), None);
    assert!(!lease.asks_for_sessions(0, Flash::Safe));
    assert_eq!(lease.status(0), LeaseStatus { state: LeaseState::Off, lease_ms: None });
}

#[test]
fn it_never_expires_without_the_whole_warning_however_late_it_is_asked() {
    let mut lease = leased(LENGTH);
    lease.step(0, &nobody());
    let late = 5 * LENGTH;
    assert!(matches!(lease.step(late, &nobody())[..], [Step::Warn(_)]));
    assert_eq!(lease.step(late + WARNING_MS - 1, &nobody()), []);
    assert!(matches!(lease.step(late + WARNING_MS, &nobody())[..], [Step::Expire(_)]));
}

#[test]
fn a_reboot_that_was_refused_is_asked_for_again_after_another_lease() {
    let mut lease = leased(LENGTH);
    let said = watch(&mut lease, 0, 3 * LENGTH, &nobody());
    assert_eq!(expiries(&said), [LENGTH, 2 * LENGTH, 3 * LENGTH]);
}

#[test]
fn after_a_sign_of_a_login_it_looks_ten_times_a_second_for_a_second() {
    let mut lease = leased(LENGTH);
    lease.step(0, &nobody());
    assert_eq!(lease.next_look(), Some(2_000));
    lease.look_closely(500);
    assert_eq!(lease.next_look(), Some(600));
    lease.step(600, &nobody());
    assert_eq!(lease.next_look(), Some(700));
    lease.step(1_500, &nobody());
    assert_eq!(lease.next_look(), Some(3_500));
}

#[test]
fn numbers_at_their_limits_do_not_overflow() {
    let mut lease = leased(u64::MAX);
    lease.step(u64::MAX, &nobody());
    lease.hold(u64::MAX, Some(u64::MAX));
    lease.step(u64::MAX, &nobody());
    lease.look_closely(u64::MAX);
    assert_eq!(lasting(u64::MAX), "5124095576030 h 25 min");
}

#[test]
fn the_terms_are_the_manifests_and_a_root_without_one_has_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manifest.json");
    assert_eq!(Terms::read(&path).unwrap(), None);
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        Terms::read(&path)
    };
    assert_eq!(read(r#"{"version":1}"#).unwrap(), Some(Terms::default()));
    let off = Terms { lease_ms: None, lease_unverified_ms: None, ways_in: vec!["sshd".into()] };
    let text = r#"{"lease_ms":null,"lease_unverified_ms":null,"ways_in":["sshd"]}"#;
    assert_eq!(read(text).unwrap(), Some(off));
    let error = read("{").unwrap_err().to_string();
    assert!(error.starts_with("cannot read the lease's terms in /"), "{error}");
}

#[test]
fn times_are_told_as_people_say_them() {
    for (ms, text) in [
        (0, "0 s"),
        (59_600, "60 s"),
        (90_000, "90 s"),
        (120_000, "2 min"),
        (899_000, "14 min 59 s"),
        (3_600_000, "1 h"),
        (7_500_000, "2 h 5 min"),
    ] {
        assert_eq!(lasting(ms), text);
    }
}

#[test]
fn the_status_is_one_object_that_reads_back() {
    let status = LeaseStatus { state: LeaseState::Runs { left_ms: 5 }, lease_ms: Some(9) };
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(text, r#"{"state":"runs","left_ms":5,"lease_ms":9}"#);
    assert_eq!(serde_json::from_str::<LeaseStatus>(&text).unwrap(), status);
}

#[test]
fn flash_as_the_old_system_left_it_lets_the_lease_run_and_says_so() {
    let mut lease = leased(LENGTH);
    let said = watch(&mut lease, 0, LENGTH, &as_found());
    assert_eq!(expiries(&said), [LENGTH]);
    let Some((_, Step::Expire(text))) = said.last() else { panic!("{said:?}") };
    assert!(text.ends_with("(it left flash changed and not verified, and did run with that)"), "{text}");
    assert!(matches!(&said[0].1, Step::Note(text) if text.ends_with("did run with that)")), "{said:?}");
}

#[test]
fn with_such_flash_the_lease_is_a_day_and_never_shorter_than_the_other_or_none_at_all() {
    let mut day = Lease::new(&Terms { lease_ms: Some(LENGTH), ..Terms::default() });
    let said = watch(&mut day, 0, DEFAULT_UNVERIFIED_MS, &as_found());
    assert_eq!(expiries(&said), [DEFAULT_UNVERIFIED_MS]);
    assert!(matches!(&said[0].1, Step::Note(text) if text.contains("reboot in 24 h unless")), "{said:?}");

    let terms =
        |unverified| Terms { lease_ms: Some(LENGTH), lease_unverified_ms: unverified, ways_in: vec![] };
    let mut shorter = Lease::new(&terms(Some(1)));
    assert_eq!(expiries(&watch(&mut shorter, 0, LENGTH, &as_found())), [LENGTH]);
    let mut none = Lease::new(&terms(None));
    assert_eq!(expiries(&watch(&mut none, 0, 10 * LENGTH, &as_found())), [0; 0]);
    assert_eq!(none.status(10 * LENGTH).state, LeaseState::Flash);
}

#[test]
fn once_somebody_was_there_flash_that_is_not_verified_ends_the_lease_whoever_changed_it() {
    let logged_in = Facts { flash: Flash::AsFound, ..somebody() };
    let mut lease = leased(LENGTH);
    assert!(lease.asks_for_sessions(0, Flash::AsFound));
    lease.step(0, &logged_in);
    assert!(!lease.asks_for_sessions(1, Flash::AsFound));
    assert_eq!(expiries(&watch(&mut lease, 2_000, 10 * LENGTH, &as_found())), [0; 0]);
    assert_eq!(lease.status(10 * LENGTH).state, LeaseState::Flash);
    // it was completed
    assert_eq!(expiries(&watch(&mut lease, 11 * LENGTH, 12 * LENGTH, &nobody())).len(), 1);

    let mut held = leased(LENGTH);
    held.hold(0, Some(1_000));
    assert_eq!(expiries(&watch(&mut held, 0, 10 * LENGTH, &as_found())), [0; 0]);
}

#[test]
fn flash_that_is_changed_here_ends_the_lease_that_ran_with_the_old_systems() {
    let mut lease = leased(LENGTH);
    watch(&mut lease, 0, LENGTH / 2, &as_found());
    assert_eq!(expiries(&watch(&mut lease, LENGTH / 2 + 1, 10 * LENGTH, &at_risk())), [0; 0]);
}
