//! Whom a service's server would turn away, although there is a key or a password.

use std::path::{Path, PathBuf};

use ramdisk::path::Root;
use ramdisk::service::Service;
use ramdisk::users::{Accounts, User};
use ramdisk::wildcard;

use super::openssh;
use super::server::Server;
use super::sshd_config::Settings;

/// Where the keys of every user lie in the maintenance root, below the home.
const KEYS: &str = ".ssh/authorized_keys";

/// A service to log in through; each restriction with the option or setting that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Door {
    service: String,
    /// Nobody with a password.
    no_passwords: Option<String>,
    /// Root not with a password.
    no_root_password: Option<String>,
    /// Root not at all.
    no_root: Option<String>,
    /// Nobody with a key.
    no_keys: Option<String>,
    /// Nobody whose password is locked.
    no_locked: Option<String>,
    /// The files with the keys that open it, where they are not the usual one: `%h` is the home, `%u` the name.
    key_files: Vec<String>,
    /// sshd's lists of users and groups: a keyword in lower case, and its patterns.
    lists: Vec<(&'static str, Vec<String>)>,
}

/// sshd_config(5): who is on the first or third is turned away; where there is one of the others, who is not on it.
const LISTS: [&str; 4] = ["DenyUsers", "AllowUsers", "DenyGroups", "AllowGroups"];

impl Door {
    /// The service's door in the system below `root`.
    pub(super) fn of(service: &Service, root: &Root) -> Self {
        let open = Self { service: service.name.clone(), ..Self::default() };
        match Server::of(service) {
            Some(server) if server.program == "dropbear" => {
                let option = |option: char| server.has(option).then(|| format!("-{option}"));
                Self {
                    no_passwords: option('s'),
                    no_root_password: option('g'),
                    no_root: option('w'),
                    ..open
                }
            }
            Some(server) if server.program == "sshd" => open.with(&Settings::read(&server, root)),
            _ => open,
        }
    }

    fn with(self, settings: &Settings) -> Self {
        if settings.conditional {
            return self;
        }
        let is =
            |keyword: &str, value: &str| settings.get(keyword).is_some_and(|v| v.eq_ignore_ascii_case(value));
        let asks_pam = openssh::asks_pam(settings);
        // PAM asks for passwords in a dialogue of its own
        let dialogue = asks_pam
            && !is("KbdInteractiveAuthentication", "no")
            && !is("ChallengeResponseAuthentication", "no");
        let takes_none = is("PasswordAuthentication", "no") && !dialogue;
        // sshd_config(5): the default since OpenSSH 7.0
        let root = settings.get("PermitRootLogin").unwrap_or("prohibit-password");
        let because = |is_so: bool, why: String| is_so.then_some(why);
        let words = |value: &str| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let list =
            |keyword: &'static str| (keyword, settings.all(keyword).flat_map(words).collect::<Vec<_>>());
        Self {
            no_passwords: because(takes_none, "PasswordAuthentication no".to_owned()),
            no_root_password: because(!root.eq_ignore_ascii_case("yes"), format!("PermitRootLogin {root}")),
            no_root: because(root.eq_ignore_ascii_case("no"), format!("PermitRootLogin {root}")),
            no_keys: because(is("PubkeyAuthentication", "no"), "PubkeyAuthentication no".to_owned()),
            no_locked: because(!asks_pam, "without UsePAM yes".to_owned()),
            key_files: settings.get("AuthorizedKeysFile").map(words).unwrap_or_default(),
            lists: LISTS.map(list).into_iter().filter(|(_, patterns)| !patterns.is_empty()).collect(),
            ..self
        }
    }

    /// Why a user with a key, or with a password only, is turned away; none if not.
    pub(super) fn refuses(&self, user: &User, accounts: &Accounts, has_key: bool) -> Option<String> {
        let is_root = user.uid == 0;
        let (service, name) = (&self.service, &user.name);
        if let Some(why) = self.no_root.as_ref().filter(|_| is_root) {
            return Some(format!("service {service} does not let {name} in ({why})"));
        }
        if let Some(why) =
            self.lists.iter().find_map(|(keyword, patterns)| listed(keyword, patterns, user, accounts))
        {
            return Some(format!("service {service} does not let {name} in ({why})"));
        }
        if let Some(why) = self.no_locked.as_ref().filter(|_| accounts.is_locked(name)) {
            return Some(format!(
                "service {service} does not let {name} in, whose password is locked by a ! ({why})"
            ));
        }
        let takes_no_key = has_key.then(|| self.takes_no_key(user)).flatten();
        if has_key && takes_no_key.is_none() {
            return None;
        }
        if takes_no_key.is_some() && !accounts.has_password(name) {
            return takes_no_key;
        }
        if let Some(why) = &self.no_passwords {
            return Some(format!("service {service} takes no passwords ({why})"));
        }
        let why = self.no_root_password.as_ref().filter(|_| is_root)?;
        Some(format!("service {service} takes no password from {name} ({why})"))
    }

    fn takes_no_key(&self, user: &User) -> Option<String> {
        let service = &self.service;
        if let Some(why) = &self.no_keys {
            return Some(format!("service {service} takes no keys ({why})"));
        }
        let staged = user.home.join(KEYS);
        let home = user.home.display().to_string();
        let file = |file: &String| {
            let file = file.replace("%h", &home).replace("%u", &user.name).replace("%%", "%");
            let path = PathBuf::from(file);
            if path.is_absolute() { path } else { user.home.join(path) }
        };
        let is_read = self.key_files.is_empty() || self.key_files.iter().map(file).any(|path| path == staged);
        (!is_read).then(|| {
            let files = self.key_files.join(" ");
            format!(
                "service {service} looks for keys in {files} and not in {}, where they are staged (AuthorizedKeysFile)",
                Path::new("~").join(KEYS).display()
            )
        })
    }
}

/// Why a list keeps a user out. What a pattern says of the client's host is not known here: it may fit.
fn listed(keyword: &str, patterns: &[String], user: &User, accounts: &Accounts) -> Option<String> {
    let names = if keyword.ends_with("Users") { vec![user.name.as_str()] } else { accounts.groups_of(user) };
    let on = |pattern: &&String| {
        let (pattern, host) = pattern.split_once('@').map_or((pattern.as_str(), None), |(p, h)| (p, Some(h)));
        let fits = names.iter().any(|name| wildcard::matches(pattern, name));
        fits && (host.is_none() || keyword.starts_with("Allow"))
    };
    let hit = patterns.iter().find(on);
    match keyword.starts_with("Deny") {
        true => hit.map(|pattern| format!("{keyword} {pattern}")),
        false => hit.is_none().then(|| format!("{keyword} {}", patterns.join(" "))),
    }
}
