//! What OpenSSH's server opens by name while it runs: its settings, the account and the empty directory into which it
//! gives up its privileges, the programs that it hands each connection to, and, where it asks PAM, what that reads.
//! Without one of them it starts and lets nobody in, or does not start; so they come along by themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ramdisk::path::Root;
use ramdisk::service::Service;
use ramdisk::users::Accounts;

use super::pam;
use super::server::Server;
use super::sshd_config::Settings;

/// The account without rights that every build of it uses. Its home, by custom, is the empty directory.
pub(crate) const USER: &str = "sshd";

/// The empty directories of Debian, Fedora, Alpine, Buildroot, SUSE and older builds. One that is writable for others than
/// root, or missing, keeps the server from starting.
const EMPTY: [&str; 6] = [
    "/run/sshd",
    "/var/run/sshd",
    "/usr/share/empty.sshd",
    "/var/empty/sshd",
    "/var/empty",
    "/var/lib/empty",
];

/// What it executes for a connection since 9.8 and 10.0, and where builds have it.
const HELPERS: [&str; 2] = ["sshd-session", "sshd-auth"];
const HELPERS_IN: [&str; 5] =
    ["/usr/lib/openssh", "/usr/libexec/openssh", "/usr/libexec", "/usr/lib/ssh", "/usr/libexec/ssh"];
/// The settings that name such a program.
const HELPER_SETTINGS: [&str; 2] = ["SshdSessionPath", "SshdAuthPath"];

/// Settings that name a file. Without the last one every key is refused.
const FILE_SETTINGS: [&str; 5] =
    ["Banner", "HostCertificate", "TrustedUserCAKeys", "AuthorizedPrincipalsFile", "RevokedKeys"];
/// Read by builds with TCP wrappers: without them more would be let in.
const WRAPPERS: [&str; 2] = ["/etc/hosts.allow", "/etc/hosts.deny"];

/// What comes along for the sake of such servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Copied as they are.
    pub(super) files: BTreeSet<PathBuf>,
    /// Programs with their libraries.
    pub(super) programs: BTreeSet<PathBuf>,
    /// PAM's modules.
    pub(super) modules: BTreeSet<pam::Module>,
    /// Empty directories, root's, by the names under which the server looks for them.
    pub(super) empty: BTreeSet<PathBuf>,
}

/// Of all services together, in the system below `root`.
pub(super) fn needs(services: &[Service], root: &Root) -> Needs {
    let mut needs = Needs::default();
    for server in servers(services) {
        needs.of(&server, root);
    }
    needs
}

fn servers(services: &[Service]) -> impl Iterator<Item = Server> {
    services.iter().filter_map(Server::of).filter(|server| server.program == "sshd")
}

/// The name of the account without rights, where one of the services needs it and there is one.
pub(super) fn user<'a>(services: &[Service], accounts: &'a Accounts) -> Option<&'a str> {
    servers(services).next()?;
    accounts.user(USER).map(|user| user.name.as_str())
}

/// Whether its setting `UsePAM` says yes.
pub(super) fn asks_pam(settings: &Settings) -> bool {
    settings.get("UsePAM").is_some_and(|value| value.eq_ignore_ascii_case("yes"))
}

/// Whether the server has its sftp built in.
pub(super) fn has_sftp_built_in(services: &[Service], root: &Root) -> bool {
    let built_in = |value: &str| {
        let mut words = value.split_whitespace();
        words.next() == Some("sftp") && words.next() == Some("internal-sftp")
    };
    servers(services).any(|server| Settings::read(&server, root).all("Subsystem").any(built_in))
}

impl Needs {
    fn of(&mut self, server: &Server, root: &Root) {
        let settings = Settings::read(server, root);
        self.files.extend(settings.files.iter().cloned());
        let told = FILE_SETTINGS.iter().filter_map(|keyword| settings.get(keyword));
        let there = |name: &&str| name.starts_with('/') && is_file(root, Path::new(name));
        self.files.extend(told.chain(WRAPPERS).filter(there).map(PathBuf::from));
        let helpers =
            HELPERS_IN.iter().flat_map(|dir| HELPERS.iter().map(move |name| Path::new(dir).join(name)));
        let told = HELPER_SETTINGS.iter().filter_map(|keyword| settings.get(keyword)).map(PathBuf::from);
        self.programs.extend(helpers.chain(told).filter(|path| is_file(root, path)));
        let is_directory =
            |path: &&Path| root.resolve(path).is_ok_and(|found| root.host(&found.real).is_dir());
        self.empty.extend(EMPTY.iter().map(Path::new).filter(is_directory).map(Path::to_owned));
        if asks_pam(&settings) {
            let name = settings.get("PAMServiceName").unwrap_or("sshd");
            let pam::Found { files, modules } = pam::look(root, name);
            self.files.extend(files);
            self.modules.extend(modules);
        }
    }
}

fn is_file(root: &Root, path: &Path) -> bool {
    root.resolve(path).is_ok_and(|found| root.host(&found.real).is_file())
}
