//! `console-login`: a login on the console that is really active, whatever it is called on this board.
//!
//! With a password for root it hands over to `login`. Without one it does what it is told to: a shell for whoever is at
//! the device (as `sulogin` gives with an empty password), or nothing.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::termios::{ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, tcgetattr, tcsetattr};

use super::{Context, SYSTEM};
use crate::users::Accounts;

pub(super) const HELP: &str =
    "console-login [ --login PROGRAM ] [ --without-password refuse|shell ] [ --shell PROGRAM ]";

/// Where a person begins.
const HOME: &str = "/root";

/// Who is let in where root has no password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WithoutPassword {
    Refuse,
    Shell,
}

/// What to do at the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// `login` asks for name and password.
    Login,
    /// A shell for whoever presses enter.
    Shell,
    /// Nobody.
    Closed,
}

#[derive(Debug, PartialEq, Eq)]
struct Settings {
    login: PathBuf,
    shell: PathBuf,
    without_password: WithoutPassword,
}

fn parse(words: Vec<String>) -> Result<Settings, String> {
    let mut settings = Settings {
        login: "/bin/login".into(),
        shell: "/bin/sh".into(),
        without_password: WithoutPassword::Refuse,
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if !["--login", "--shell", "--without-password"].contains(&word.as_str()) {
            return Err(format!("unknown option {word}"));
        }
        let value = words.next().ok_or_else(|| format!("the option {word} needs a value"))?;
        match (word.as_str(), value.as_str()) {
            ("--login", _) => settings.login = value.into(),
            ("--shell", _) => settings.shell = value.into(),
            ("--without-password", "refuse") => settings.without_password = WithoutPassword::Refuse,
            ("--without-password", "shell") => settings.without_password = WithoutPassword::Shell,
            _ => return Err(format!("{word}: expected refuse or shell, found {value:?}")),
        }
    }
    Ok(settings)
}

/// What the accounts allow; none where they cannot be read: then nobody knows that root has no password.
fn door(accounts: Option<&Accounts>, without_password: WithoutPassword) -> Door {
    match (accounts, without_password) {
        (None, _) => Door::Closed,
        (Some(accounts), _) if accounts.has_password("root") => Door::Login,
        (Some(_), WithoutPassword::Shell) => Door::Shell,
        (Some(_), WithoutPassword::Refuse) => Door::Closed,
    }
}

/// Root's password is in the file `shadow` where `passwd` says so, else in that. A root without these files has no
/// passwords at all.
fn read_accounts(etc: &Path) -> Result<Accounts, String> {
    let text = |name: &str| match fs::read_to_string(etc.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|error| format!("cannot read {}: {error}", etc.join(name).display())),
    };
    let accounts =
        Accounts::parse(&text("passwd")?, "", &text("shadow")?).map_err(|error| error.to_string())?;
    let is_elsewhere = accounts.user("root").is_some_and(|root| root.password == "x");
    if is_elsewhere && !accounts.shadow.iter().any(|line| line.name == "root") {
        return Err(format!("{} has no line for root", etc.join("shadow").display()));
    }
    Ok(accounts)
}

/// The console's device. The kernel lists all that it writes to, the one that /dev/console reads from last; `tty0`
/// stands for the virtual terminal in front.
fn active_console(sys: &Path) -> PathBuf {
    let last = |file: &str| {
        let text = fs::read_to_string(sys.join("class/tty").join(file).join("active")).ok()?;
        text.split_whitespace().next_back().map(str::to_owned)
    };
    let name = match last("console") {
        Some(name) if name == "tty0" => last("tty0").unwrap_or(name),
        Some(name) => name,
        None => "console".to_owned(),
    };
    Path::new("/dev").join(name)
}

pub(super) fn run(context: &mut Context<'_>, words: Vec<String>) -> u8 {
    let settings = match parse(words) {
        Ok(settings) => settings,
        Err(why) => return context.usage(&why),
    };
    let console = active_console(Path::new("/sys"));
    if let Err(error) = take(&console) {
        return context.fatal(SYSTEM, &format!("cannot use the console {}: {error}", console.display()));
    }
    let accounts = read_accounts(Path::new("/etc"));
    let (program, name) = match door(accounts.as_ref().ok(), settings.without_password) {
        Door::Login => (settings.login, "login"),
        Door::Shell => {
            say("\r\nroot has no password: press enter for a shell\r\n");
            let mut line = String::new();
            // An end of file is a hang-up: the next life asks again.
            match BufReader::new(std::io::stdin()).read_line(&mut line) {
                Ok(1..) => {}
                _ => return 0,
            }
            (settings.shell, "-sh")
        }
        Door::Closed => {
            say(&match accounts {
                Ok(_) => "\r\nroot has no password, and nobody is let in here without one\r\n".to_owned(),
                Err(why) => format!("\r\nnobody is let in here: {why}\r\n"),
            });
            loop {
                std::thread::sleep(Duration::from_secs(3_600));
            }
        }
    };
    let term = if console.starts_with("/dev/tty") && is_virtual(&console) { "linux" } else { "vt102" };
    match execute(&program, name, term) {
        Ok(never) => match never {},
        Err(errno) => {
            context.fatal(SYSTEM, &format!("cannot execute {}: {}", program.display(), errno.desc()))
        }
    }
}

fn is_virtual(console: &Path) -> bool {
    let name = console.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("tty").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Opens the console as this session's terminal, with the settings that a person expects, and makes it input, output
/// and error output.
fn take(console: &Path) -> std::io::Result<()> {
    // A serial line without carrier would make open(2) wait.
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(console)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_RDWR))?;
    let mut settings = tcgetattr(&file)?;
    settings.control_flags |= ControlFlags::CLOCAL | ControlFlags::CREAD;
    settings.input_flags |= InputFlags::ICRNL;
    settings.input_flags &= !(InputFlags::INLCR | InputFlags::IGNCR);
    settings.output_flags |= OutputFlags::OPOST | OutputFlags::ONLCR;
    settings.local_flags |=
        LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::ECHO | LocalFlags::ECHOE | LocalFlags::ECHOK;
    tcsetattr(&file, SetArg::TCSANOW, &settings)?;
    nix::unistd::dup2_stdin(file.as_fd())?;
    nix::unistd::dup2_stdout(file.as_fd())?;
    nix::unistd::dup2_stderr(file.as_fd())?;
    Ok(())
}

fn say(text: &str) {
    let mut out = std::io::stdout();
    // Nobody is there to read it, then.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn execute(program: &Path, name: &str, term: &str) -> Result<std::convert::Infallible, nix::errno::Errno> {
    use std::os::unix::ffi::OsStrExt;
    // Out of the service's directory; a root without a home is one to work in all the same.
    let _ = std::env::set_current_dir(HOME).or_else(|_| std::env::set_current_dir("/"));
    let string = |bytes: &[u8]| CString::new(bytes).map_err(|_| nix::errno::Errno::EINVAL);
    let env = [
        string(format!("PATH={}", crate::sys::process::PATH).as_bytes())?,
        string(format!("HOME={HOME}").as_bytes())?,
        string(format!("TERM={term}").as_bytes())?,
    ];
    nix::unistd::execve(&string(program.as_os_str().as_bytes())?, &[string(name.as_bytes())?], &env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_is_the_one_that_the_kernel_reads_from() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(active_console(dir.path()), Path::new("/dev/console"));
        for (console, front, expected) in [
            ("ttyAMA0\n", "", "/dev/ttyAMA0"),
            ("tty0 ttyS1\n", "tty1\n", "/dev/ttyS1"),
            ("ttyS1 tty0\n", "tty3\n", "/dev/tty3"),
            ("", "", "/dev/console"),
        ] {
            for (name, text) in [("console", console), ("tty0", front)] {
                let folder = dir.path().join("class/tty").join(name);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join("active"), text).unwrap();
            }
            assert_eq!(active_console(dir.path()), Path::new(expected));
        }
    }

    #[test]
    fn without_a_password_the_configuration_decides() {
        use WithoutPassword::{Refuse, Shell};
        let dir = tempfile::tempdir().unwrap();
        let doors = |passwd: Option<&str>, shadow: Option<&str>| {
            for (name, text) in [("passwd", passwd), ("shadow", shadow)] {
                let path = dir.path().join(name);
                let _ = fs::remove_file(&path);
                if let Some(text) = text {
                    fs::write(&path, text).unwrap();
                }
            }
            let accounts = read_accounts(dir.path()).ok();
            [Refuse, Shell].map(|how| door(accounts.as_ref(), how))
        };
        let x = Some("root:x:0:0::/root:/bin/sh\n");
        for shadow in ["root:*:1:0:::::\n", "root:!$6$x:1:0:::::\n", "root::1:0:::::\n"] {
            assert_eq!(doors(x, Some(shadow)), [Door::Closed, Door::Shell], "{shadow}");
        }
        assert_eq!(doors(None, None), [Door::Closed, Door::Shell]);
        // Whatever a hash looks like, and wherever it is: a password is one.
        for (passwd, shadow) in [
            (x, Some("root:$6$salt$hash:1:0:::::\n")),
            (x, Some("a:*:1:0:::::\nroot:xyJ3k.hash:1:0:::::\n")),
            (Some("root:$1$salt$hash:0:0::/root:/bin/sh\n"), None),
        ] {
            assert_eq!(doors(passwd, shadow), [Door::Login; 2], "{passwd:?} {shadow:?}");
        }
        // Where it cannot be told, nobody is let in.
        for (passwd, shadow) in
            [(x, None), (x, Some("a:*:1:0:::::\n")), (x, Some("root\n")), (Some("root\n"), None)]
        {
            assert_eq!(doors(passwd, shadow), [Door::Closed; 2], "{passwd:?} {shadow:?}");
        }
        doors(x, None);
        fs::create_dir(dir.path().join("shadow")).unwrap();
        assert!(read_accounts(dir.path()).unwrap_err().starts_with("cannot read "));
    }

    #[test]
    fn the_command_line_is_read() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parse(vec![]).unwrap().without_password, WithoutPassword::Refuse);
        let settings = parse(words("--without-password shell --shell /bin/ash")).unwrap();
        assert_eq!((settings.without_password, settings.shell), (WithoutPassword::Shell, "/bin/ash".into()));
        for bad in ["--without-password", "--without-password maybe", "--speed 9600"] {
            assert!(parse(words(bad)).is_err(), "{bad}");
        }
    }
}
