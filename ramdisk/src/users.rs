//! `/etc/passwd`, `/etc/group` and `/etc/shadow`: parsed, cut down to the users that are kept, written again.

use std::path::{Path, PathBuf};

/// A line of passwd(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The password field: `x` where shadow has it.
    pub password: String,
    /// The user's number.
    pub uid: u32,
    /// The primary group's number.
    pub gid: u32,
    /// The comment.
    pub gecos: String,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell; empty means `/bin/sh`.
    pub shell: PathBuf,
}

/// A line of group(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group's name.
    pub name: String,
    /// The password field.
    pub password: String,
    /// The group's number.
    pub gid: u32,
    /// The names of the members, those whose primary group it is usually not among them.
    pub members: Vec<String>,
}

/// A line of shadow(5); the ageing fields are kept as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The login name.
    pub name: String,
    /// The password's hash; `*` or `!` for none.
    pub password: String,
    /// The fields after it, joined by colons.
    pub rest: String,
}

/// The three files together, each in the order of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// passwd(5).
    pub users: Vec<User>,
    /// group(5).
    pub groups: Vec<Group>,
    /// shadow(5).
    pub shadow: Vec<Shadow>,
}

/// A line that is not what its file's format says, or a user that is not there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    /// A line with too few fields, or a number that is none.
    #[error("read {file}, line {line}: expected {expected}, found {found:?}")]
    Malformed {
        /// Which of the three files.
        file: &'static str,
        /// Counted from 1.
        line: usize,
        /// What the format wants there.
        expected: &'static str,
        /// The field, or the line if a field is missing (never a password).
        found: String,
    },
    /// No line of passwd has this name.
    #[error("user {0}: no such user in /etc/passwd")]
    NoSuchUser(String),
    /// No line of group has this name.
    #[error("group {0}: no such group in /etc/group")]
    NoSuchGroup(String),
}

impl User {
    /// The login shell, `/bin/sh` where the field is empty.
    pub fn login_shell(&self) -> &Path {
        if self.shell.as_os_str().is_empty() { Path::new("/bin/sh") } else { &self.shell }
    }
}

impl Accounts {
    /// Parses the three files' texts; a file that does not exist is an empty text. Empty lines, comments and NIS
    /// lines (`+`, `-`) are dropped.
    ///
    /// # Errors
    ///
    /// The first line that is malformed.
    pub fn parse(passwd: &str, group: &str, shadow: &str) -> Result<Self, UsersError> {
        Ok(Self {
            users: lines(passwd).map(|(n, line)| user(n, line)).collect::<Result<_, _>>()?,
            groups: lines(group).map(|(n, line)| self::group(n, line)).collect::<Result<_, _>>()?,
            shadow: lines(shadow).map(|(n, line)| self::shadow(n, line)).collect::<Result<_, _>>()?,
        })
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|u| u.name == name)
    }

    /// What remains if only `names` are kept: their lines, their primary groups, and the groups that have them as
    /// members, with the other members struck out. The order of the files is kept.
    ///
    /// # Errors
    ///
    /// A name that is not in passwd.
    pub fn only(&self, names: &[&str]) -> Result<Self, UsersError> {
        if let Some(name) = names.iter().find(|n| self.user(n).is_none()) {
            return Err(UsersError::NoSuchUser((*name).to_owned()));
        }
        let kept = |name: &str| names.contains(&name);
        let users: Vec<User> = self.users.iter().filter(|u| kept(&u.name)).cloned().collect();
        let groups = self
            .groups
            .iter()
            .filter(|g| users.iter().any(|u| u.gid == g.gid) || g.members.iter().any(|m| kept(m)))
            .map(|g| Group { members: g.members.iter().filter(|m| kept(m)).cloned().collect(), ..g.clone() })
            .collect();
        let shadow = self.shadow.iter().filter(|s| kept(&s.name)).cloned().collect();
        Ok(Self { users, groups, shadow })
    }

    /// Adds groups of `all` to those that came with their users, or strikes them out: each name with whether it is to be
    /// there. Members that are not among the users are struck out; a user's primary group always stays.
    ///
    /// # Errors
    ///
    /// A name that is not in group.
    pub fn choose_groups(&mut self, all: &Self, names: &[(&str, bool)]) -> Result<(), UsersError> {
        for (name, keep) in names {
            let known = all.groups.iter().find(|g| g.name == *name);
            let group = known.ok_or_else(|| UsersError::NoSuchGroup((*name).to_owned()))?;
            let is_primary = self.users.iter().any(|u| u.gid == group.gid);
            if !keep && !is_primary {
                self.groups.retain(|g| g.name != *name);
            } else if *keep && !self.groups.iter().any(|g| g.name == *name) {
                let kept = |member: &&String| self.user(member).is_some();
                let members = group.members.iter().filter(kept).cloned().collect();
                self.groups.push(Group { members, ..group.clone() });
            }
        }
        Ok(())
    }

    /// Whether a password lets this user in: a hash that is neither empty (the usual ssh servers refuse that) nor
    /// locked.
    pub fn has_password(&self, name: &str) -> bool {
        self.hash(name).is_some_and(|hash| !hash.is_empty() && !hash.starts_with(['*', '!']))
    }

    /// Whether the account is locked by a `!`, as `passwd -l` does it: some servers then take no key either. A `*` says
    /// only that there is no password.
    pub fn is_locked(&self, name: &str) -> bool {
        self.hash(name).is_some_and(|hash| hash.starts_with('!'))
    }

    /// The names of a user's groups.
    pub fn groups_of(&self, user: &User) -> Vec<&str> {
        let is_in = |group: &&Group| group.gid == user.gid || group.members.contains(&user.name);
        self.groups.iter().filter(is_in).map(|group| group.name.as_str()).collect()
    }

    fn hash(&self, name: &str) -> Option<&str> {
        let user = self.user(name)?;
        Some(match self.shadow.iter().find(|s| s.name == name) {
            Some(line) if user.password == "x" => line.password.as_str(),
            _ if user.password == "x" => "",
            _ => user.password.as_str(),
        })
    }

    /// Takes the password from a user: the account stays, keys can still open it.
    pub fn lock_password(&mut self, name: &str) {
        for user in self.users.iter_mut().filter(|u| u.name == name) {
            user.password = "x".to_owned();
        }
        self.shadow.retain(|s| s.name != name);
        self.shadow.push(Shadow {
            name: name.to_owned(),
            password: "*".to_owned(),
            rest: "::::::".to_owned(),
        });
    }

    /// The text of `/etc/passwd`.
    pub fn passwd_text(&self) -> String {
        let line = |u: &User| {
            let (home, shell) = (u.home.display(), u.shell.display());
            format!("{}:{}:{}:{}:{}:{home}:{shell}\n", u.name, u.password, u.uid, u.gid, u.gecos)
        };
        self.users.iter().map(line).collect()
    }

    /// The text of `/etc/group`.
    pub fn group_text(&self) -> String {
        let line = |g: &Group| format!("{}:{}:{}:{}\n", g.name, g.password, g.gid, g.members.join(","));
        self.groups.iter().map(line).collect()
    }

    /// The text of `/etc/shadow`.
    pub fn shadow_text(&self) -> String {
        self.shadow.iter().map(|s| format!("{}:{}:{}\n", s.name, s.password, s.rest)).collect()
    }
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.trim_end()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', '+', '-']))
}

fn user(n: usize, line: &str) -> Result<User, UsersError> {
    let file = "/etc/passwd";
    let fields: Vec<&str> = line.splitn(7, ':').collect();
    let &[name, password, uid, gid, gecos, home, shell] = fields.as_slice() else {
        return Err(malformed(file, n, "seven fields", &without_password(line)));
    };
    Ok(User {
        name: name.to_owned(),
        password: password.to_owned(),
        uid: number(file, n, "a user's number", uid)?,
        gid: number(file, n, "a group's number", gid)?,
        gecos: gecos.to_owned(),
        home: home.into(),
        shell: shell.into(),
    })
}

fn group(n: usize, line: &str) -> Result<Group, UsersError> {
    let file = "/etc/group";
    let fields: Vec<&str> = line.splitn(4, ':').collect();
    let (name, password, gid, members) = match *fields.as_slice() {
        [name, password, gid, members] => (name, password, gid, members),
        // busybox reads groups without the last colon
        [name, password, gid] => (name, password, gid, ""),
        _ => return Err(malformed(file, n, "four fields", &without_password(line))),
    };
    Ok(Group {
        name: name.to_owned(),
        password: password.to_owned(),
        gid: number(file, n, "a group's number", gid)?,
        members: members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect(),
    })
}

fn shadow(n: usize, line: &str) -> Result<Shadow, UsersError> {
    let mut fields = line.splitn(3, ':');
    let (Some(name), Some(password)) = (fields.next(), fields.next()) else {
        return Err(malformed("/etc/shadow", n, "nine fields", &without_password(line)));
    };
    let rest = fields.next().unwrap_or("::::::");
    Ok(Shadow { name: name.to_owned(), password: password.to_owned(), rest: rest.to_owned() })
}

fn number(file: &'static str, line: usize, expected: &'static str, found: &str) -> Result<u32, UsersError> {
    found.trim().parse().map_err(|_| malformed(file, line, expected, found))
}

fn malformed(file: &'static str, line: usize, expected: &'static str, found: &str) -> UsersError {
    UsersError::Malformed { file, line, expected, found: found.to_owned() }
}

/// The name alone: what follows may be a hash, and errors are logged.
fn without_password(line: &str) -> String {
    line.split(':').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\ndaemon:*:1:1::/:/bin/false\nann:$6$h:1000:100::/home/ann:\n+::::::\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,ann\nusers:x:100:\nstaff:x:50:bob\n";
    const SHADOW: &str = "root:$6$abc:19000:0:99999:7:::\ndaemon:*:19000::::::\n";

    fn accounts() -> Accounts {
        Accounts::parse(PASSWD, GROUP, SHADOW).unwrap()
    }

    #[test]
    fn what_is_parsed_is_written_again_line_by_line() {
        let all = accounts();
        assert_eq!(
            all.passwd_text(),
            "root:x:0:0:root:/root:/bin/sh\ndaemon:*:1:1::/:/bin/false\nann:$6$h:1000:100::/home/ann:\n"
        );
        assert_eq!(all.group_text(), GROUP);
        assert_eq!(all.shadow_text(), SHADOW);
    }

    #[test]
    fn a_kept_user_keeps_its_groups_and_no_other_user_comes_along() {
        let kept = accounts().only(&["root"]).unwrap();
        assert_eq!(kept.passwd_text(), "root:x:0:0:root:/root:/bin/sh\n");
        assert_eq!(kept.group_text(), "root:x:0:\nwheel:x:10:root\n");
        assert_eq!(kept.shadow_text(), "root:$6$abc:19000:0:99999:7:::\n");
        let ann = accounts().only(&["ann"]).unwrap();
        assert_eq!(ann.group_text(), "wheel:x:10:ann\nusers:x:100:\n");
        assert_eq!(accounts().only(&["bob"]), Err(UsersError::NoSuchUser("bob".into())));
    }

    #[test]
    fn groups_are_added_and_left_out_by_name_and_a_users_own_group_stays() {
        let all = accounts();
        let mut kept = all.only(&["ann"]).unwrap();
        kept.choose_groups(&all, &[("staff", true), ("wheel", false), ("users", false)]).unwrap();
        assert_eq!(kept.group_text(), "users:x:100:\nstaff:x:50:\n");
        kept.choose_groups(&all, &[("wheel", true), ("staff", true)]).unwrap();
        assert_eq!(kept.group_text(), "users:x:100:\nstaff:x:50:\nwheel:x:10:ann\n");
        let unknown = kept.choose_groups(&all, &[("emus", false)]);
        assert_eq!(unknown, Err(UsersError::NoSuchGroup("emus".into())));
    }

    #[test]
    fn only_a_hash_that_can_match_is_a_password() {
        let mut all = accounts();
        assert!(all.has_password("root"), "in shadow");
        assert!(all.has_password("ann"), "in passwd, as old systems have it");
        assert!(!all.has_password("daemon"));
        assert!(!all.has_password("nobody"));
        all.lock_password("root");
        assert!(!all.has_password("root"));
        assert!(all.shadow_text().ends_with("root:*:::::::\n"), "{}", all.shadow_text());
        let open = Accounts::parse("root::0:0::/root:/bin/sh\n", "", "").unwrap();
        assert!(!open.has_password("root"), "ssh servers refuse an empty one");
        let lost = Accounts::parse("root:x:0:0::/root:/bin/sh\n", "", "").unwrap();
        assert!(!lost.has_password("root"));
    }

    #[test]
    fn a_malformed_line_is_named_without_its_password() {
        let e = Accounts::parse("root:x:zero:0::/:/bin/sh\n", "", "").unwrap_err();
        assert_eq!(e.to_string(), r#"read /etc/passwd, line 1: expected a user's number, found "zero""#);
        let e = Accounts::parse("", "", "ok:*:1\nroot-secret\n").unwrap_err();
        assert!(e.to_string().contains("line 2"), "{e}");
        let e = Accounts::parse("root:$6$secret:0\n", "", "").unwrap_err();
        assert!(!e.to_string().contains("secret"), "{e}");
    }

    #[test]
    fn an_empty_shell_is_the_bourne_shell() {
        assert_eq!(accounts().user("ann").unwrap().login_shell(), Path::new("/bin/sh"));
    }
}
