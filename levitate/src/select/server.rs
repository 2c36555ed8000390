//! The server that a service runs, and the options on its command line.

use std::path::Path;

use ramdisk::service::{Kind, Service};

use super::services::{own_programs, words};

/// Programs through which people log in.
const LOGIN_PROGRAMS: [&str; 8] =
    ["dropbear", "sshd", "tinysshd", "telnetd", "getty", "agetty", "mgetty", "console-login"];
/// The options of dropbear(8) that take a value; `d` is that of versions before 2013.
const WITH_VALUE_DROPBEAR: &str = "bcdrADGlpPWKIT";
/// Those of sshd(8).
const WITH_VALUE_SSHD: &str = "CEbcfghkopu";

/// A server's program and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// One of the known programs' names.
    pub(super) program: &'static str,
    /// Whether it is started by its whole path, as OpenSSH insists on: it executes itself again for each connection.
    pub(super) by_path: bool,
    options: Vec<(char, String)>,
}

impl Server {
    /// The login server that the service runs, if it is a known one.
    pub(super) fn of(service: &Service) -> Option<Self> {
        match service.kind {
            Kind::Longrun { .. } => Self::find(&own_programs(service).next().map(words)?),
            Kind::Oneshot { .. } | Kind::Bundle { .. } => None,
        }
    }

    fn find(words: &[String]) -> Option<Self> {
        let named = |(at, word): (usize, &String)| {
            let path = Path::new(word);
            let program =
                LOGIN_PROGRAMS.into_iter().find(|known| path.file_name().is_some_and(|n| n == *known))?;
            let directory = path.parent().and_then(Path::file_name).map(|d| d.to_string_lossy().into_owned());
            Some((at, program, directory.is_none_or(|d| d.ends_with("bin"))))
        };
        let mut found = words.iter().enumerate().filter_map(named);
        let first = found.next()?;
        // a script may make the directory /etc/dropbear before it executes dropbear
        let (at, program, _) = found.rfind(|f| f.2).unwrap_or(first);
        let by_path = words.get(at).is_some_and(|word| word.starts_with('/'));
        Some(Self { program, by_path, options: options(program, words.get(at + 1..).unwrap_or_default()) })
    }

    /// Whether the option is there, alone or bundled with others.
    pub(super) fn has(&self, option: char) -> bool {
        self.options.iter().any(|(o, _)| *o == option)
    }

    /// The values of an option.
    pub(super) fn values(&self, option: char) -> impl Iterator<Item = &str> {
        self.options.iter().filter(move |(o, _)| *o == option).map(|(_, value)| value.as_str())
    }
}

/// The options up to the end of the command: none of the servers has other arguments, so the first plain word of a
/// script belongs to its next command.
fn options(program: &str, arguments: &[String]) -> Vec<(char, String)> {
    let with_value = match program {
        "dropbear" => WITH_VALUE_DROPBEAR,
        "sshd" => WITH_VALUE_SSHD,
        _ => "",
    };
    let mut options = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        if word.contains(['<', '>']) {
            if word.ends_with(['<', '>']) {
                rest.next();
            }
            continue;
        }
        if word == "\\" || word.starts_with('$') {
            continue;
        }
        let Some(flags) = word.strip_prefix('-') else { break };
        for (at, flag) in flags.char_indices() {
            if !with_value.contains(flag) {
                options.push((flag, String::new()));
                continue;
            }
            let attached = flags.get(at + flag.len_utf8()..).filter(|value| !value.is_empty());
            let mut value =
                attached.or_else(|| rest.next().map(String::as_str)).unwrap_or_default().to_owned();
            // the words of a script are cut at blanks, quoted ones too
            if (program, flag) == ("sshd", 'o') && !value.contains(['=', ' ', '\t']) {
                value = format!("{value} {}", rest.next().map(String::as_str).unwrap_or_default());
            }
            options.push((flag, value));
            break;
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(line: &str) -> Server {
        Server::find(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    fn flags(server: &Server) -> String {
        server.options.iter().map(|(flag, _)| *flag).collect()
    }

    #[test]
    fn bundled_options_and_attached_values_are_told_apart() {
        let server = server("/usr/sbin/dropbear -FEs -p22 -Rr /data/key -P /run/sw.pid");
        assert_eq!((server.program, flags(&server).as_str()), ("dropbear", "FEspRrP"));
        assert_eq!(server.values('r').collect::<Vec<_>>(), ["/data/key"]);
        assert!(!server.has('w'));
    }

    #[test]
    fn in_a_script_only_the_servers_own_command_counts() {
        let server = server(
            "mkdir -s /etc/dropbear \\ [ -w x ] && exec dropbear 2>&1 -F $MORE > /dev/null -R test -g",
        );
        assert_eq!(flags(&server), "FR");
    }

    #[test]
    fn a_setting_that_was_cut_at_its_blank_is_joined_again() {
        let server = server("exec /usr/sbin/sshd -o PasswordAuthentication no -De -oPort=22");
        assert_eq!(server.values('o').collect::<Vec<_>>(), ["PasswordAuthentication no", "Port=22"]);
        assert_eq!(flags(&server), "oDeo");
    }
}
