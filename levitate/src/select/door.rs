//! Whom a service's server would turn away, although there is a key or a password.

use ramdisk::path::Root;
use ramdisk::service::Service;
use ramdisk::users::User;

use super::server::Server;
use super::sshd_config::Settings;

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
}

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
        // PAM asks for passwords in a dialogue of its own
        let dialogue = is("UsePAM", "yes")
            && !is("KbdInteractiveAuthentication", "no")
            && !is("ChallengeResponseAuthentication", "no");
        let takes_none = is("PasswordAuthentication", "no") && !dialogue;
        // sshd_config(5): the default since OpenSSH 7.0
        let root = settings.get("PermitRootLogin").unwrap_or("prohibit-password");
        let because = |is_so: bool, why: String| is_so.then_some(why);
        Self {
            no_passwords: because(takes_none, "PasswordAuthentication no".to_owned()),
            no_root_password: because(!root.eq_ignore_ascii_case("yes"), format!("PermitRootLogin {root}")),
            no_root: because(root.eq_ignore_ascii_case("no"), format!("PermitRootLogin {root}")),
            ..self
        }
    }

    /// Why a user with a key, or with a password only, is turned away; none if not.
    pub(super) fn refuses(&self, user: &User, has_key: bool) -> Option<String> {
        let is_root = user.uid == 0;
        let service = &self.service;
        if let Some(why) = self.no_root.as_ref().filter(|_| is_root) {
            return Some(format!("service {service} does not let {} in ({why})", user.name));
        }
        if has_key {
            return None;
        }
        if let Some(why) = &self.no_passwords {
            return Some(format!("service {service} takes no passwords ({why})"));
        }
        let why = self.no_root_password.as_ref().filter(|_| is_root)?;
        Some(format!("service {service} takes no password from {} ({why})", user.name))
    }
}
