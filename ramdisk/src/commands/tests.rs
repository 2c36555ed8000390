//! The commands against a PID 1 that is a thread with a fixed answer, and a folder of definitions.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::*;
use crate::init::snapshot::Entry;

fn entry(name: &str, state: &str, needs: &[&str]) -> Entry {
    Entry {
        name: name.into(),
        kind: "longrun".into(),
        state: state.into(),
        wanted: state == "up",
        pid: (state == "up").then_some(42),
        seconds: 5,
        at_boot: true,
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        members: vec![name.to_owned()],
        ..Entry::default()
    }
}

/// `net` and `plug` are up, `sshd` and `web` need `net`; `modem` is controlled by `plug` and down, `wan` needs it and
/// `net`.
fn entries() -> Vec<Entry> {
    let mut modem = entry("modem", "down", &["plug"]);
    modem.controlled_by = Some("plug".into());
    modem.at_boot = false;
    let bundle = Entry {
        kind: "bundle".into(),
        members: vec!["sshd".into(), "web".into()],
        ..entry("doors", "", &[])
    };
    vec![
        bundle,
        modem,
        entry("net", "up", &[]),
        entry("plug", "up", &[]),
        entry("sshd", "up", &["net"]),
        entry("wan", "down", &["modem", "net"]),
        entry("web", "down", &["net"]),
    ]
}

/// What a command printed, its errors, its code, and the orders that it gave.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: u8,
    out: String,
    err: String,
    orders: Vec<String>,
}

/// Runs a command line. `answers` are PID 1's to the orders, in turn.
fn ran(line: &str, answers: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("init.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut answers: Vec<String> = answers.iter().rev().map(|answer| (*answer).to_owned()).collect();
    let server = std::thread::spawn(move || {
        let mut orders = Vec::new();
        loop {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => return orders,
                "services" => {
                    for entry in entries() {
                        writeln!(&stream, "{}", serde_json::to_string(&entry).unwrap()).unwrap();
                    }
                    writeln!(&stream, "exit 0").unwrap();
                }
                order => {
                    orders.push(order.to_owned());
                    let answer = answers.pop().unwrap_or_else(|| "exit 0\n".to_owned());
                    (&stream).write_all(answer.as_bytes()).unwrap();
                }
            }
        }
    });
    let (code, out, err) = run_with(line, &socket, Path::new("/nonexistent"));
    drop(std::os::unix::net::UnixStream::connect(&socket).unwrap());
    Ran { code, out, err, orders: server.join().unwrap() }
}

fn run_with(line: &str, socket: &Path, services: &Path) -> (u8, String, String) {
    let mut words = line.split(' ').map(str::to_owned);
    let name = words.next().unwrap();
    let name = NAMES.iter().find(|known| **known == name).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut context = Context {
        name,
        socket: socket.into(),
        services: services.into(),
        help: "",
        out: &mut out,
        err: &mut err,
    };
    let code = dispatch(&mut context, words.collect());
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn list(line: &str) -> String {
    let ran = ran(line, &[]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}");
    ran.out.replace('\n', " ").trim_end().to_owned()
}

#[test]
fn lists_are_s6_rcs() {
    assert_eq!(list("s6-rc -a list"), "net plug sshd");
    assert_eq!(list("s6-rc -da list"), "modem wan web");
    assert_eq!(list("s6-rc list"), "");
    assert_eq!(list("s6-rc list doors"), "sshd web");
    assert_eq!(list("s6-rc -d list doors"), "modem net plug wan");
    assert_eq!(list("s6-rc listall wan"), "modem net plug wan");
    assert_eq!(list("s6-rc -d listall net"), "net sshd wan web");
    assert_eq!(list("s6-rc --down --add list web"), "modem wan");
    assert_eq!(list("s6-rc diff"), "");
}

#[test]
fn a_change_tells_its_closure_in_order_and_hands_on_what_became_of_it() {
    let orders = |line: &str| ran(line, &[]).orders;
    assert_eq!(orders("s6-rc -u change wan"), ["up wait -- wan"]);
    assert_eq!(orders("s6-rc change doors"), ["up wait -- sshd web"]);
    assert_eq!(orders("s6-rc -d change net"), ["down wait -- net"]);
    assert_eq!(orders("s6-rc stop net"), orders("s6-rc -d change net"));
    assert_eq!(orders("s6-rc start doors"), orders("s6-rc -u change doors"));
    // All that runs, as at a shutdown, with all that needs it.
    assert_eq!(orders("s6-rc -da change"), ["down wait -- net plug"]);
    // First the unwanted go down, then the wanted come up.
    assert_eq!(orders("s6-rc -pu change web"), ["down wait -- plug sshd", "up wait -- web"]);
    // Everything but these; what only a controller starts stays down.
    assert_eq!(orders("s6-rc -pd change web"), ["down wait -- web", "up wait -- plug sshd"]);
    assert_eq!(orders("s6-rc change"), [""; 0]);

    let failed = "info net: up\nwarning web: marked down: not ready in time\nexit 1\n";
    let done = ran("s6-rc change web", &[failed]);
    assert_eq!((done.code, done.err.as_str()), (1, "s6-rc: warning: web: marked down: not ready in time\n"));
    assert_eq!(ran("s6-rc -v0 change web", &[failed]).err, "");
    let loud = ran("s6-rc -v2 change web", &[failed]).err;
    assert!(loud.starts_with("s6-rc: info: net: up\ns6-rc: warning: "), "{loud}");

    let late = ran("s6-rc -t 60000 change web", &["exit 2\n"]);
    assert_eq!((late.code, late.err.as_str()), (2, "s6-rc: fatal: timed out\n"));
    assert!(late.orders[0].starts_with("up wait="), "{late:?}");
    // -t 0 is no limit.
    assert_eq!(orders("s6-rc -t 0 change web"), ["up wait -- web"]);
}

#[test]
fn a_dry_run_prints_the_steps_and_orders_nothing() {
    let done = ran("s6-rc -n0 change wan", &[]);
    assert_eq!((done.out.as_str(), done.orders), ("up modem\nup wan\n", vec![]));
    assert_eq!(ran("s6-rc -dn0 change net", &[]).out, "down sshd\ndown net\n");
}

#[test]
fn wrong_usage_is_100_an_unknown_name_3_and_no_pid_1_is_111() {
    for line in ["s6-rc", "s6-rc -x list", "s6-rc reload net", "s6-rc -t soon change net", "s6-rc -l"] {
        let (code, out, err) = run_with(line, Path::new("/nonexistent"), Path::new("/nonexistent"));
        assert_eq!((code, out.as_str()), (100, ""), "{line}");
        assert!(err.starts_with("s6-rc: fatal: ") && err.contains("listall"), "{line}: {err}");
    }
    let unknown = ran("s6-rc -u change wombat", &[]);
    assert_eq!(
        (unknown.code, unknown.err.as_str()),
        (3, "s6-rc: fatal: there is no service named wombat (s6-rc-db list all names them)\n")
    );
    for line in ["s6-rc -a list", "s6-rc-up-tree net", "s6-svc -r net", "s6-svstat net"] {
        let (code, _, err) = run_with(line, Path::new("/nonexistent/init.sock"), Path::new("/"));
        assert_eq!(code, 111, "{line}");
        assert!(err.contains("process 1 does not listen at /nonexistent/init.sock"), "{err}");
    }
}

#[test]
fn every_command_tells_how_it_is_used_and_that_is_no_error() {
    for name in NAMES {
        let (code, out, err) = run_with(&format!("{name} --help"), Path::new("/none"), Path::new("/none"));
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        assert!(out.starts_with(&format!("usage: {name} ")), "{out}");
        let (code, out, err) = run_with(&format!("{name} -?"), Path::new("/none"), Path::new("/none"));
        assert_eq!((code, out.as_str()), (100, ""), "{name}");
        assert!(err.starts_with(&format!("{name}: fatal: unknown option -?\nusage: {name} ")), "{err}");
    }
}

#[test]
fn up_tree_leaves_alone_what_is_below_a_controlled_service_that_is_down() {
    let net = ran("s6-rc-up-tree net", &[]);
    assert_eq!((net.code, net.err.as_str()), (0, ""));
    assert_eq!(net.orders, ["up wait -- sshd web"]);
    // Asked for by its name it is started, and so is what needs it.
    assert_eq!(ran("s6-rc-up-tree modem", &[]).orders, ["up wait -- wan"]);
    let wan = ran("s6-rc-up-tree wan", &[]);
    assert_eq!((wan.code, wan.orders.len()), (1, 0));
    assert_eq!(
        wan.err,
        "s6-rc-up-tree: warning: wan is left alone: it needs modem, which is controlled and not running\n"
    );
    assert_eq!(ran("s6-rc-up-tree -t 5 net", &["exit 2\n"]).code, 2);
    assert_eq!(ran("s6-rc-up-tree wombat", &[]).code, 3);
    assert_eq!(ran("s6-rc-up-tree", &[]).code, 100);
}

#[test]
fn s6_svc_speaks_to_one_process() {
    let orders = |line: &str| ran(line, &[]).orders;
    assert_eq!(orders("s6-svc -r net"), ["restart -- net"]);
    assert_eq!(orders("s6-svc -d /run/service/net/"), ["down -- net"]);
    assert_eq!(orders("s6-svc -hu net"), ["SIGHUP -- net", "up -- net"]);
    assert_eq!(orders("s6-svc -o net"), ["once -- net"]);
    // Waiting orders nothing.
    assert_eq!(orders("s6-svc -wD -T 1 -t net"), ["SIGTERM -- net"]);
    assert_eq!(orders("s6-svc -wU net"), [""; 0]);
    assert_eq!(orders("s6-svc -s usr1 net"), ["SIGUSR1 -- net"]);
    assert_eq!(ran("s6-svc -wu net", &[]).code, 0);
    assert_eq!(ran("s6-svc -wd -T 1 -d net", &[]).code, 99);
    assert_eq!(ran("s6-svc -u wombat", &["there is no service named wombat\nexit 3\n"]).code, 100);
    for line in ["s6-svc -x net", "s6-svc -r", "s6-svc -w x net", "s6-svc -r a b"] {
        assert_eq!(ran(line, &[]).code, 100, "{line}");
    }
}

#[test]
fn s6_svstat_shows_a_sentence_or_fields() {
    assert_eq!(list("s6-svstat net"), "up (pid 42 pgid 42) 5 seconds");
    assert_eq!(list("s6-svstat modem"), "down 5 seconds, ready 5 seconds");
    assert_eq!(list("s6-svstat web"), "down 5 seconds, normally up, ready 5 seconds");
    assert_eq!(list("s6-svstat -o up,wantedup,normallyup,ready,paused net"), "true true true false false");
    assert_eq!(list("s6-svstat -upest modem"), "false -1 -1 NA 5");
    assert_eq!(ran("s6-svstat wombat", &[]).code, 1);
    assert_eq!(ran("s6-svstat doors", &[]).code, 1);
    assert_eq!(ran("s6-svstat -o nonsense net", &[]).code, 100);
}

/// A folder of definitions; the names end with `/` for bundles' contents.
fn definitions() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("net/type", "oneshot"),
        ("net/up", "ip link set \"my lan\" up"),
        ("net/timeout-up", "5000"),
        ("sshd/type", "longrun"),
        ("sshd/run", ""),
        ("sshd/dependencies.d/net", ""),
        ("sshd/producer-for", "sshd-log"),
        ("sshd-log/type", "longrun"),
        ("sshd-log/run", ""),
        ("sshd-log/consumer-for", "sshd"),
        ("sshd-log/pipeline-name", "ssh"),
        ("web/type", "longrun"),
        ("web/run", ""),
        ("web/dependencies", "ssh\n"),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

#[test]
fn s6_rc_db_reads_the_definitions() {
    let dir = definitions();
    let db = |line: &str| {
        let (code, out, err) = run_with(&format!("s6-rc-db {line}"), Path::new("/none"), dir.path());
        (code, out.replace('\n', " ").trim_end().to_owned(), err)
    };
    for (line, expected) in [
        ("check", ""),
        ("list all", "net ssh sshd sshd-log web"),
        ("list services", "net sshd sshd-log web"),
        ("list oneshots", "net"),
        ("list longruns", "sshd sshd-log web"),
        ("list bundles", "ssh"),
        ("type net", "oneshot"),
        ("timeout net", "5000"),
        ("-d timeout net", "10000"),
        ("contents ssh", "sshd sshd-log"),
        ("atomics ssh net", "net sshd sshd-log"),
        ("dependencies web", "sshd sshd-log"),
        ("all-dependencies web", "net sshd sshd-log web"),
        ("-d dependencies net", "sshd"),
        ("-d all-dependencies net", "net sshd web"),
        ("pipeline sshd-log", "sshd sshd-log"),
        ("pipeline sshd", "sshd sshd-log"),
        ("pipeline web", "web"),
        ("script net", "ip\0link\0set\0my lan\0up\0"),
        ("-d script net", ""),
    ] {
        assert_eq!(db(line), (0, expected.to_owned(), String::new()), "{line}");
    }
    for (line, code) in [
        ("dependencies wombat", 3),
        ("contents sshd", 5),
        ("timeout ssh", 5),
        ("script sshd", 5),
        ("pipeline net", 5),
        ("flags sshd", 100),
        ("list", 100),
        ("list everything", 100),
        ("type", 100),
        ("type a b", 100),
        ("", 100),
        ("-c /nonexistent/folder check", 111),
    ] {
        let (found, out, err) = db(line);
        assert_eq!((found, out.as_str()), (code, ""), "{line}");
        assert!(err.starts_with("s6-rc-db: fatal: "), "{line}: {err}");
    }
    fs::write(dir.path().join("web/dependencies"), "wombat\n").unwrap();
    let (code, _, err) = db("check");
    assert_eq!(code, 4);
    assert!(err.contains("service web: ") && err.ends_with("names wombat, which does not exist\n"), "{err}");
}
