//! Where PID 1 finds things. The kernel hands words of its command line to the first process, so nothing that is not
//! understood is an error here.

use std::ffi::OsString;
use std::path::PathBuf;

/// PID 1's places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The service source directories; `--services DIR`, by default `/etc/levitate/services`.
    pub services: PathBuf,
    /// The network state; `--network FILE`, by default `/etc/levitate/network.json`.
    pub network: PathBuf,
    /// The staged root's manifest, with the lease's terms; `--manifest FILE`, by default `/etc/levitate/manifest.json`.
    pub manifest: PathBuf,
    /// The run directory, with the log, the control socket and the flash record; `--run DIR`, by default `/run`.
    pub run: PathBuf,
    /// The console; `--console FILE`, by default `/dev/console`.
    pub console: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            services: "/etc/levitate/services".into(),
            network: "/etc/levitate/network.json".into(),
            manifest: "/etc/levitate/manifest.json".into(),
            run: "/run".into(),
            console: "/dev/console".into(),
        }
    }
}

impl Options {
    /// Takes what it knows from `args` and leaves the rest alone.
    pub fn parse(args: impl Iterator<Item = OsString>) -> Self {
        let mut options = Self::default();
        let mut args = args;
        while let Some(arg) = args.next() {
            let place = match arg.to_str() {
                Some("--services") => &mut options.services,
                Some("--network") => &mut options.network,
                Some("--manifest") => &mut options.manifest,
                Some("--run") => &mut options.run,
                Some("--console") => &mut options.console,
                _ => continue,
            };
            if let Some(path) = args.next() {
                *place = path.into();
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_the_kernels_command_line_are_left_alone() {
        let args = ["single", "--init", "--run", "/r", "quiet", "--services"].map(OsString::from);
        let expected = Options { run: "/r".into(), ..Options::default() };
        assert_eq!(Options::parse(args.into_iter()), expected);
    }
}
