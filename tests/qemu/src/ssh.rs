//! The only way to the device, as its owner has it: ssh.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::assets::Assets;
use crate::console::POLL;
use crate::process::{self, Finished};
use crate::suite::Failure;

/// How long one command may take unless a caller gives its own limit.
const COMMAND: Duration = Duration::from_secs(30);

/// Whether the client says that the connection ended before anybody was logged in. Of one that ends later it says
/// `Connection to HOST closed by remote host`.
pub(crate) fn never_got_in(stderr: &str) -> bool {
    let before = [
        "kex_exchange_identification: ",
        "banner exchange: ",
        "Connection closed by 127.0.0.1",
        "Connection reset by 127.0.0.1",
    ];
    let refused = "ssh: connect to host ";
    stderr.lines().any(|line| line.starts_with(refused) || before.iter().any(|said| line.contains(said)))
}

/// An ssh client for one device: its port, its key, and the host key it saw first.
#[derive(Debug, Clone)]
pub(crate) struct Ssh {
    assets: Assets,
    key: PathBuf,
    known_hosts: PathBuf,
    port: u16,
}

impl Ssh {
    /// A client that logs in as root by `key`, at 127.0.0.1:`port`. The first host key met is written to `known_hosts`;
    /// any other is refused from then on, as it would be on a user's machine.
    pub(crate) fn new(assets: &Assets, key: &Path, known_hosts: &Path, port: u16) -> Self {
        Self { assets: assets.clone(), key: key.to_owned(), known_hosts: known_hosts.to_owned(), port }
    }

    /// The client's command line, up to and without the remote command.
    pub(crate) fn client(&self) -> Command {
        let mut ssh = self.assets.tool("ssh");
        self.options(&mut ssh);
        ssh.args(["-p", &self.port.to_string(), "root@127.0.0.1"]);
        ssh
    }

    /// What `ssh` and `sftp` are told alike.
    fn options(&self, client: &mut Command) {
        client
            .args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=accept-new"])
            .args(["-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR", "-o", "GlobalKnownHostsFile=/dev/null"])
            .args(["-o", "HostKeyAlias=roof-device", "-o", "ControlMaster=no", "-o", "UpdateHostKeys=no"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.known_hosts.display()))
            .arg("-i")
            .arg(&self.key);
    }

    /// The server's first line.
    pub(crate) fn greeting(&self) -> Result<String, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(Failure::harness)?;
        stream.set_read_timeout(Some(COMMAND)).map_err(Failure::harness)?;
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .map_err(|e| Failure::test(format!("no greeting of an ssh server: {e}")))?;
        Ok(line.trim_end().to_owned())
    }

    /// Copies so many bytes to the device and back by `sftp`; they have to be the same.
    pub(crate) fn there_and_back_by_sftp(&self, bytes: usize) -> Result<(), Failure> {
        let folder = tempfile::tempdir_in(&self.assets.scratch).map_err(Failure::harness)?;
        let [there, back, batch] = ["there", "back", "batch"].map(|name| folder.path().join(name));
        // every byte in every place, so that a shift or a translated line end shows
        let sent: Vec<u8> =
            (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 11).to_le_bytes()[0]).collect();
        let lines = format!("put {} /tmp/carried\nget /tmp/carried {}\n", there.display(), back.display());
        for (path, text) in [(&there, sent.as_slice()), (&batch, lines.as_bytes())] {
            std::fs::write(path, text).map_err(|e| Failure::file("write", path, e))?;
        }
        let mut sftp = self.assets.tool("sftp");
        self.options(&mut sftp);
        sftp.arg("-S").arg(self.assets.tool("ssh").get_program());
        sftp.arg("-b").arg(&batch).args(["-P", &self.port.to_string(), "root@127.0.0.1"]);
        let done = process::run(sftp, None, 2 * COMMAND)?;
        let received = std::fs::read(&back).unwrap_or_default();
        if done.code != Some(0) || received != sent {
            let same = sent.iter().zip(&received).take_while(|(a, b)| a == b).count();
            return Err(Failure::test(format!(
                "sftp of {bytes} bytes: {} came back, the first {same} are the same: {done}",
                received.len()
            )));
        }
        Ok(())
    }

    /// What a person types to get in with the machine's own client.
    pub(crate) fn by_hand(&self) -> String {
        format!(
            "ssh -i {} -p {} -o UserKnownHostsFile={} -o HostKeyAlias=roof-device root@127.0.0.1",
            self.key.display(),
            self.port,
            self.known_hosts.display()
        )
    }

    /// The port on 127.0.0.1 that leads to the device.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until the device's ssh server says its name.
    pub(crate) fn wait_for_server(&self, limit: Duration) -> Result<(), Failure> {
        self.connect(limit).map(drop)
    }

    /// Whether an ssh server answers now. QEMU accepts at once for a guest that is not there yet, so the greeting counts.
    fn greeted(&self) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).ok()?;
        (&greeting == b"SSH-").then_some(stream)
    }

    /// A connection to the ssh server that has been greeted and says nothing itself.
    pub(crate) fn connect(&self, limit: Duration) -> Result<TcpStream, Failure> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(stream) = self.greeted() {
                return Ok(stream);
            }
            std::thread::sleep(POLL);
        }
        Err(Failure::test(format!("no ssh server answered within {} s", limit.as_secs())))
    }

    /// Waits until a command can be run, and gives the boot's id.
    pub(crate) fn wait_for_login(&self, limit: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            self.wait_for_server(limit.saturating_sub(start.elapsed()))?;
            let done =
                self.run_for("true", limit.saturating_sub(start.elapsed()).max(Duration::from_secs(1)))?;
            match done.code {
                Some(0) => return Ok(()),
                // Refused for good: no wait can help.
                _ if done.stderr.contains("Permission denied")
                    || done.stderr.contains("HOST IDENTIFICATION") =>
                {
                    return Err(Failure::test(format!("login refused: {}", done.stderr.trim())));
                }
                _ if start.elapsed() > limit => {
                    return Err(Failure::test(format!("no login within {} s: {done}", limit.as_secs())));
                }
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// Runs a shell command on the device, whatever it exits with.
    pub(crate) fn run(&self, command: &str) -> Result<Finished, Failure> {
        self.run_for(command, COMMAND)
    }

    /// Like [`Ssh::run`], with a limit of its own.
    pub(crate) fn run_for(&self, command: &str, limit: Duration) -> Result<Finished, Failure> {
        let mut client = self.client();
        client.arg(command);
        process::run(client, None, limit).map_err(|failure| failure.context(format!("`{command}`")))
    }

    /// Runs a command that must succeed, and gives what it printed, trimmed.
    pub(crate) fn succeed(&self, command: &str) -> Result<String, Failure> {
        self.succeed_for(command, COMMAND)
    }

    /// Like [`Ssh::succeed`], with a limit of its own.
    pub(crate) fn succeed_for(&self, command: &str, limit: Duration) -> Result<String, Failure> {
        let done = self.run_for(command, limit)?;
        if done.code != Some(0) {
            return Err(Failure::test(format!("`{command}` on the device: {done}")));
        }
        Ok(done.stdout.trim().to_owned())
    }

    /// Copies a file to the device, the way the README says.
    pub(crate) fn put(&self, local: &Path, remote: &str) -> Result<(), Failure> {
        let mut client = self.client();
        client.arg(format!("cat > {remote}"));
        let done = process::run(client, Some(local), Duration::from_secs(120))?;
        if done.code != Some(0) {
            return Err(Failure::harness(format!("copying {} to the device: {done}", local.display())));
        }
        Ok(())
    }

    /// Starts a command and leaves it running; its output goes to `output`.
    pub(crate) fn start(&self, command: &str, output: &Path) -> Result<Child, Failure> {
        let file = std::fs::File::create(output).map_err(|e| Failure::file("create", output, e))?;
        let errors = file.try_clone().map_err(Failure::harness)?;
        let mut client = self.client();
        client.arg(command).stdin(Stdio::null()).stdout(file).stderr(errors);
        client.spawn().map_err(|e| Failure::harness(format!("cannot start ssh: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ends_before_a_login_is_told_from_one_that_ends_later() {
        for said in [
            "kex_exchange_identification: Connection closed by remote host\nConnection closed by 127.0.0.1 port 2222",
            "Connection reset by 127.0.0.1 port 2222",
            "banner exchange: Connection to 127.0.0.1 port 2222: invalid format",
            "ssh: connect to host 127.0.0.1 port 2222: Connection refused",
        ] {
            assert!(never_got_in(said), "{said}");
        }
        for said in [
            "",
            "Connection to 127.0.0.1 closed by remote host.",
            "Read from remote host 127.0.0.1: Connection reset by peer",
            "reboot: refused",
        ] {
            assert!(!never_got_in(said), "{said}");
        }
    }
}
