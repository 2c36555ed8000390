//! A person at the serial console of the maintenance root: who is let in, and how.

use crate::check::check;
use crate::console::Terminal;
use crate::line::{self, BOOT};
use crate::machine::Machine;
use crate::suite::Failure;

/// The door, with the options that a file names: what is configured changes with the next life of its process.
pub(super) const CONSOLE: &str = r#"
[services.console]
run = "exec console-login $(cat /run/console-options 2>/dev/null)"
"#;

/// `mkpasswd -m sha512crypt stars`
const PASSWORD: &str = "stars";
const HASH: &str =
    "$6$roof$KmhdKj.oPyChXzAdbCc8quyMD8.nndjM3bYbmBFNHXG3U5S7guZlsS2T8acUg/pgfcQE2Ocq9j9ZBHX3/v3X6.";

/// Says it in words that the typed line does not have, so that an echo is no answer.
const SPEAK: &str = "echo $((40 + 2)) on $(tty) as $(id -un)";

/// What is configured, tried by typing: nobody without a password, a shell without one, and a password, wrong and right.
pub(super) fn who_is_let_in(machine: &Machine) -> Result<(), Failure> {
    let active = machine.ssh.succeed("cat /sys/class/tty/console/active")?;
    let answer = format!("42 on /dev/{active} as root");
    let terminal_of = "readlink /proc/$(s6-svstat -o pid console)/fd/0";
    line::wait_until(machine, &format!("test \"$({terminal_of})\" = /dev/{active}"), BOOT)?;
    let mut person = machine.console.sit_down()?;

    // Root's password is locked, and the default is to refuse.
    machine.console.wait_for("nobody is let in here without one", 0, BOOT)?;
    let before = machine.console.text().len();
    person.enter("")?;
    person.enter(SPEAK)?;
    // Its echo: the line has arrived.
    person.expect(SPEAK, BOOT)?;
    let name = machine.ssh.succeed("cat /proc/$(s6-svstat -o pid console)/comm")?;
    check!(name == "console-login", "at a closed console runs {name}");

    // A shell for whoever presses enter; what was typed at the closed door does not open this one.
    again(machine, "echo --without-password shell > /run/console-options")?;
    person.expect("root has no password: press enter for a shell", BOOT)?;
    let name = machine.ssh.succeed("cat /proc/$(s6-svstat -o pid console)/comm")?;
    check!(name == "console-login", "nobody pressed enter, and at the console runs {name}");
    person.enter("")?;
    speaks(&mut person, &answer)?;
    let open = machine.console.text();
    let times = open.get(before..).map_or(0, |text| text.matches(&answer).count());
    check!(times == 1, "what was typed at the closed console was done: {times} answers");
    person.enter("exit")?;
    person.expect("press enter for a shell", BOOT)?;

    // With a password there is no other way in.
    again(machine, &format!("sed -i 's|^root:[^:]*:|root:{HASH}:|' /etc/shadow"))?;
    log_in(&mut person, "moon")?;
    person.expect("Login incorrect", BOOT)?;
    log_in(&mut person, PASSWORD)?;
    speaks(&mut person, &answer)?;
    // It counts as a session: the lease does not end under it.
    let status = machine.ssh.succeed("levitate status")?;
    check!(status.matches("root (").count() == 2, "not both sessions are told:\n{status}");
    person.enter("exit")?;
    person.expect("login: ", BOOT)
}

/// Changes what is configured and starts the console's process again.
fn again(machine: &Machine, change: &str) -> Result<(), Failure> {
    machine.ssh.succeed(&format!("{change} && s6-svc -wr -T 20000 -r console")).map(drop)
}

fn log_in(person: &mut Terminal, password: &str) -> Result<(), Failure> {
    person.expect("login: ", BOOT)?;
    person.enter("root")?;
    person.expect("Password: ", BOOT)?;
    person.enter(password)
}

fn speaks(person: &mut Terminal, answer: &str) -> Result<(), Failure> {
    person.expect("# ", BOOT)?;
    person.enter(SPEAK)?;
    person.expect(answer, BOOT)
}
