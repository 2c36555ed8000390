//! Programs from the unpacked packages, each started with an environment of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Where the host's tools come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tools {
    /// The folder into which the packages were unpacked; none where this machine's own tools are used.
    pub(crate) root: Option<PathBuf>,
}

/// Debian's name of this machine's library folders.
const TRIPLET: &str = "x86_64-linux-gnu";

impl Tools {
    /// The tool's path: from the unpacked packages, else the bare name for a search in `PATH`.
    #[must_use]
    pub(crate) fn find(&self, name: &str) -> PathBuf {
        self.root
            .iter()
            .flat_map(|root| ["usr/bin", "usr/sbin", "bin", "sbin"].map(|dir| root.join(dir).join(name)))
            .find(|path| path.exists())
            .unwrap_or_else(|| PathBuf::from(name))
    }

    /// A command line for the tool. Only children get the library path: this process and the user's own programs
    /// keep the system's libraries.
    #[must_use]
    pub(crate) fn command(&self, name: &str) -> Command {
        self.command_at(&self.find(name))
    }

    /// A command line that starts QEMU (its ROMs are found) and ends it with the thread that started it.
    #[must_use]
    pub(crate) fn qemu(&self, program: &Path) -> Command {
        let mut command = self.command_at(Path::new("setpriv"));
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        if let Some(root) = self.root.as_deref().filter(|root| program.starts_with(root)) {
            command.arg("-L").arg(root.join("usr/share/qemu"));
        }
        command
    }

    /// The same for a program that is not one of the packages', or is named by its path.
    pub(crate) fn command_at(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(root) = &self.root {
            command.envs(self.variables());
            let own = std::env::var_os("PATH").unwrap_or_default();
            let folders = ["usr/bin", "usr/sbin", "bin", "sbin"].map(|dir| root.join(dir));
            if let Ok(path) = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&own))) {
                command.env("PATH", path);
            }
        }
        command
    }

    fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        let Some(root) = &self.root else { return Vec::new() };
        let mut libraries = root.join("usr/lib").join(TRIPLET).into_os_string();
        libraries.push(":");
        libraries.push(root.join("lib").join(TRIPLET));
        vec![
            ("LD_LIBRARY_PATH", libraries.into()),
            ("BISON_PKGDATADIR", root.join("usr/share/bison")),
            ("M4", root.join("usr/bin/m4")),
        ]
    }
}
