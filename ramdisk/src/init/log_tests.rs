use super::*;

const NOW: Duration = Duration::from_secs(1_700_000_000);

fn small() -> LogLimits {
    LogLimits { file_bytes: 1_000, archived: 3 }
}

/// The lines of a file without their stamps, which are checked for their form.
fn lines(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .map(|line| {
            let (stamp, rest) = line.split_once(' ').unwrap();
            assert_eq!(stamp.len(), 25, "{line}");
            assert!(stamp.starts_with("@40000000"), "{line}");
            rest.to_owned()
        })
        .collect()
}

#[test]
fn every_line_carries_a_stamp_and_the_services_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), None, LogLimits::default());
    log.output("sshd", b"one\ntw", NOW);
    log.output("net", b"up\n", NOW);
    log.output("sshd", b"o\n\nthree", NOW);
    log.note("hello", NOW);
    log.flush("sshd", NOW);
    log.flush("net", NOW);
    assert_eq!(
        lines(&dir.path().join("current")),
        ["sshd one", "net up", "sshd two", "sshd ", "init hello", "sshd three"]
    );
    for file in ["lock", "state"] {
        assert_eq!(fs::metadata(dir.path().join(file)).unwrap().len(), 0);
    }
}

#[test]
fn a_line_longer_than_the_buffer_is_split_and_no_byte_of_it_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), None, LogLimits::default());
    let long: Vec<u8> = (0..2 * MAX_LINE + 5).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    log.output("x", &long[..10], NOW);
    log.output("x", &long[10..], NOW);
    log.output("x", b"\n", NOW);
    let lines = lines(&dir.path().join("current"));
    let lengths: Vec<usize> = lines.iter().map(|line| line.len() - 2).collect();
    assert_eq!(lengths, [MAX_LINE, MAX_LINE, 5]);
    let joined: String = lines.iter().map(|line| &line[2..]).collect();
    assert_eq!(joined.as_bytes(), long);
}

#[test]
fn binary_output_is_passed_through() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), None, LogLimits::default());
    log.output("x", b"\0\xff\x1b[0m\r\n", NOW);
    let bytes = fs::read(dir.path().join("current")).unwrap();
    assert_eq!(&bytes[25..], b" x \0\xff\x1b[0m\r\n");
}

#[test]
fn a_full_file_is_archived_and_only_so_many_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), None, small());
    for n in 0..200u32 {
        log.output("x", format!("line {n}\n").as_bytes(), NOW);
    }
    let archived = log.archived();
    assert_eq!(archived.len(), 3);
    for path in &archived {
        let meta = fs::metadata(path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o744);
        assert!((1_000..1_100).contains(&meta.len()), "{}", meta.len());
    }
    // What is kept is the end of the story, without a gap.
    let mut kept: Vec<String> = archived.iter().flat_map(|path| lines(path)).collect();
    kept.extend(lines(&dir.path().join("current")));
    let expected: Vec<String> = (200 - kept.len()..200).map(|n| format!("x line {n}")).collect();
    assert_eq!(kept, expected);
}

#[test]
fn a_log_that_cannot_be_written_drops_and_counts_and_goes_on_when_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("log");
    // A file where the directory should be: works as root too, unlike permissions.
    fs::write(&blocked, "").unwrap();
    let mut log = Log::open(&blocked, None, small());
    log.output("x", b"1\n2\n3\n", NOW);
    assert_eq!(log.dropped(), 3);
    fs::remove_file(&blocked).unwrap();
    log.output("x", b"4\n", NOW);
    assert_eq!(lines(&blocked.join("current")), ["init 3 log lines lost", "x 4"]);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_log_that_is_there_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    Log::open(dir.path(), None, small()).note("before", NOW);
    let mut log = Log::open(dir.path(), None, small());
    log.note("after", NOW);
    assert_eq!(lines(&dir.path().join("current")), ["init before", "init after"]);
    let link = dir.path().join("uncaught-logs");
    log.link_at(&link).unwrap();
    log.link_at(&link).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), dir.path());
}

#[test]
fn the_lines_go_to_pstore_too_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let pmsg = dir.path().join("pmsg0");
    fs::write(&pmsg, "").unwrap();
    let mut log = Log::open(&dir.path().join("log"), Some(&pmsg), small());
    log.output("x", b"kept over a reset\n", NOW);
    assert_eq!(lines(&pmsg), ["x kept over a reset"]);
}
