//! What makes the device come back where it was: addresses, routes, name servers, hostname.

use std::path::Path;

use ramdisk::network::NetworkState;
use ramdisk::sink::{Content, Meta};
use ramdisk::tree::{Tree, TreeError};

/// Where the maintenance init reads addresses and routes.
pub const STATE: &str = "etc/levitate/network.json";

/// Why the network's settings cannot be staged.
#[derive(Debug, thiserror::Error)]
pub enum NetworkFilesError {
    /// A directory is in the way of a file.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// They cannot be written as JSON.
    #[error("write the network's state")]
    Json(#[from] serde_json::Error),
}

/// Puts the network's settings into the tree: `network.json` for the init, and the files for everybody else. `hosts` is
/// what `/etc/hosts` holds.
///
/// # Errors
///
/// A directory is in the way.
pub fn put(tree: &mut Tree, network: &NetworkState, hosts: Option<&[u8]>) -> Result<(), NetworkFilesError> {
    let hostname = network.hostname.as_ref().map(|h| format!("{h}\n").into_bytes());
    let files = [
        (STATE, Some(serde_json::to_vec(network)?)),
        ("etc/hostname", hostname),
        // often a symlink into /run, which stays behind: carried over by its content
        ("etc/resolv.conf", network.resolv_conf.clone().map(String::into_bytes)),
        ("etc/hosts", hosts.map(<[u8]>::to_vec)),
    ];
    for (path, bytes) in files {
        if let Some(bytes) = bytes {
            tree.file(Path::new(path), Meta::root(0o644), Content::Bytes(bytes))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_init_reads_back_what_was_staged_and_absent_files_stay_absent() {
        let dir = tempfile::tempdir().unwrap();
        let network = NetworkState {
            hostname: Some("attic".into()),
            resolv_conf: Some("nameserver 10.0.2.3\n".into()),
            ..NetworkState::default()
        };
        let mut tree = Tree::new();
        put(&mut tree, &network, None).unwrap();
        let staged: Vec<_> = tree.iter().map(|(p, _)| p.display().to_string()).collect();
        assert_eq!(staged, ["etc", "etc/hostname", "etc/levitate", STATE, "etc/resolv.conf"]);
        let mut sink = ramdisk::dir_sink::DirSink::new(dir.path(), ramdisk::dir_sink::Owners::Mine);
        tree.write_to(&mut sink).unwrap();
        assert_eq!(NetworkState::read(&dir.path().join(STATE)).unwrap(), Some(network));
    }
}
