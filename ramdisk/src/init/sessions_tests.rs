use super::*;

/// Lines of pid, parent, LOGNAME (or -), program's file, name.
fn processes(text: &str) -> Processes {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap();
        let (pid, parent) = (word().parse().unwrap(), word().parse().unwrap());
        let logname = Some(word()).filter(|name| *name != "-").map(str::to_owned);
        let program = Some(PathBuf::from(word()));
        let name = words.collect::<Vec<_>>().join(" ");
        (pid, Process { parent, name, program, logname, is_stuck: false })
    };
    text.lines().filter(|text| !text.trim().is_empty()).map(line).collect()
}

fn who(text: &str, servers: &[i32]) -> Vec<String> {
    who_beside(text, servers, &[])
}

fn who_beside(text: &str, servers: &[i32], others: &[i32]) -> Vec<String> {
    sessions(&processes(text), servers, others).iter().map(Session::to_string).collect()
}

#[test]
fn a_dropbear_connection_is_a_session_only_once_its_shell_runs() {
    let before = "1 0 - /sbin/levitate init\n35 1 - /usr/sbin/dropbear dropbear\n90 35 - /usr/sbin/dropbear dropbear\n";
    assert_eq!(who(before, &[35]), [""; 0]);
    let after = format!("{before}91 90 root /bin/busybox sh\n92 91 root /sbin/levitate levitate\n");
    assert_eq!(who(&after, &[35]), ["root (sh, pid 91)"]);
    let two = format!("{after}95 35 - /usr/sbin/dropbear dropbear\n96 95 ann /bin/busybox cat\n");
    assert_eq!(who(&two, &[35]), ["root (sh, pid 91)", "ann (cat, pid 96)"]);
}

#[test]
fn an_openssh_connection_has_two_processes_before_it_is_authenticated() {
    let before = "1 0 - /sbin/levitate init\n35 1 - /usr/sbin/sshd sshd\n90 35 - /usr/sbin/sshd sshd\n\
                  91 90 - /usr/sbin/sshd sshd\n";
    assert_eq!(who(before, &[35]), [""; 0]);
    // Of root's the monitor goes on itself, of others' a child that is theirs does.
    let root = "1 0 - /sbin/levitate init\n35 1 - /usr/sbin/sshd sshd\n90 35 - /usr/sbin/sshd sshd\n\
                93 90 root /bin/bash bash\n";
    assert_eq!(who(root, &[35]), ["root (bash, pid 93)"]);
    let ann = "1 0 - /sbin/levitate init\n35 1 - /usr/sbin/sshd sshd\n90 35 - /usr/lib/openssh/sshd-session sshd-session\n\
               92 90 - /usr/lib/openssh/sshd-session sshd-session\n93 92 ann /bin/bash bash\n";
    assert_eq!(who(ann, &[35]), ["ann (bash, pid 93)"]);
}

#[test]
fn a_telnet_connection_is_a_session_when_login_has_let_it_in() {
    let server = "1 0 - /sbin/levitate init\n35 1 - /bin/busybox telnetd\n";
    assert_eq!(who(&format!("{server}90 35 - /bin/busybox login\n"), &[35]), [""; 0]);
    assert_eq!(who(&format!("{server}90 35 root /bin/busybox sh\n"), &[35]), ["root (sh, pid 90)"]);
}

#[test]
fn a_console_is_a_session_after_a_login_and_not_with_an_open_shell() {
    let console = |logname: &str, name: &str| {
        format!(
            "1 0 - /sbin/levitate init\n35 1 {logname} /bin/busybox {name}\n40 35 {logname} /bin/busybox vi\n"
        )
    };
    assert_eq!(who(&console("-", "getty"), &[35]), [""; 0]);
    assert_eq!(who(&console("-", "login"), &[35]), [""; 0]);
    assert_eq!(who(&console("-", "sh"), &[35]), [""; 0]);
    assert_eq!(who(&console("root", "sh"), &[35]), ["root (sh, pid 35)"]);
}

#[test]
fn what_a_session_left_behind_is_none() {
    let text = "1 0 - /sbin/levitate init\n35 1 - /usr/sbin/dropbear dropbear\n91 1 root /bin/busybox sh\n\
                92 91 root /bin/busybox sleep\n";
    assert_eq!(who(text, &[35]), [""; 0]);
}

#[test]
fn jobs_of_services_that_let_nobody_in_are_none() {
    let text = "1 0 - /sbin/levitate init\n35 1 - /usr/sbin/dropbear dropbear\n36 1 - /bin/busybox crond\n\
                91 36 root /bin/busybox sh\n";
    assert_eq!(who(text, &[35]), [""; 0]);
    assert_eq!(who(text, &[35, 36]), ["root (sh, pid 91)"]);
}

#[test]
fn a_job_of_another_service_of_the_same_program_is_none() {
    let text = "1 0 - /sbin/levitate init\n2 0 - - kthreadd\n3 2 - - kworker\n35 1 - /bin/busybox telnetd\n\
                36 1 - /bin/busybox crond\n91 36 root /bin/busybox sh\n90 1 - /bin/busybox telnetd\n\
                92 90 ann /bin/busybox sh\n";
    assert_eq!(who_beside(text, &[35], &[36]), ["ann (sh, pid 92)"]);
    assert_eq!(worth_a_look(&processes(text), &[35], &[36]), [35, 90, 92]);
}

#[test]
fn a_session_outlives_its_server() {
    // 35 died, 99 was started in its place; the connection 90 has PID 1 as its parent now.
    let text = "1 0 - /sbin/levitate init\n99 1 - /usr/sbin/dropbear dropbear\n90 1 - /usr/sbin/dropbear dropbear\n\
                91 90 root /bin/busybox sh\n";
    assert_eq!(who(text, &[99]), ["root (sh, pid 91)"]);
}

#[test]
fn a_server_behind_a_script_is_found() {
    let text = "1 0 - /sbin/levitate init\n35 1 - /bin/busybox run\n36 35 - /usr/sbin/dropbear dropbear\n\
                90 36 - /usr/sbin/dropbear dropbear\n91 90 root /bin/busybox sh\n";
    assert_eq!(who(text, &[35]), ["root (sh, pid 91)"]);
}

#[test]
fn a_table_that_is_torn_or_has_a_ring_ends() {
    assert_eq!(who("5 6 root /a a\n6 5 - /b b\n7 9 root /a a\n", &[35]), [""; 0]);
    assert_eq!(sessions(&Processes::new(), &[], &[]), []);
}

fn process(dir: &Path, pid: &str, stat: &str, environ: &[u8]) {
    let dir = dir.join(pid);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("stat"), stat).unwrap();
    fs::write(dir.join("environ"), environ).unwrap();
    std::os::unix::fs::symlink("/bin/busybox", dir.join("exe")).unwrap();
}

#[test]
fn the_table_is_read_from_proc_without_the_dead() {
    let dir = tempfile::tempdir().unwrap();
    let login = b"USER=root\0LOGNAME=root\0HOME=/root\0";
    process(dir.path(), "7", "7 (a) (b) S 35 7 7", login);
    process(dir.path(), "8", "8 (gone) Z 35 7 7", login);
    process(dir.path(), "10", "10 (stuck) D 35 7 7", login);
    process(dir.path(), "11", "11 (plain) S 35 7 7", b"PATH=/bin\0XLOGNAME=x\0LOGNAME=\0");
    process(dir.path(), "12", "torn", login);
    fs::create_dir(dir.path().join("sys")).unwrap();
    let table = table(dir.path());
    assert_eq!(table.keys().copied().collect::<Vec<_>>(), [7, 10, 11]);
    assert_eq!(table[&7], Process { parent: 35, name: "a) (b".into(), ..Process::default() });
    assert!(table[&10].is_stuck);
    let program = Some(PathBuf::from("/bin/busybox"));
    let expected = Look { pid: 7, program: program.clone(), logname: Some("root".into()) };
    assert_eq!(look(dir.path(), 7), expected);
    assert_eq!(look(dir.path(), 11), Look { pid: 11, program, logname: None });
}

#[test]
fn this_very_process_is_in_the_kernels_table() {
    let own = i32::try_from(std::process::id()).unwrap();
    assert!(table(Path::new("/proc")).contains_key(&own));
    assert_eq!(look(Path::new("/proc"), own).program, std::env::current_exe().ok());
}
