//! `levitate build`: the maintenance root as an archive, made on a build machine from an unpacked root of any processor,
//! without root. The same root, configuration and time give the same bytes. What only a device knows (its keys, its
//! network, its boot, what RAM the image to come needs) is not in it: `levitate --image` adds that. The archive is also
//! an initramfs.

mod output;

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use ramdisk::closure::{ClosureError, find_program};
use ramdisk::newc::{self, Limits, NewcError, WriteError};
use ramdisk::path::{PathError, Root};
use ramdisk::sink::{Content, Meta};
use ramdisk::tree::{Size, Tree, TreeError};

use crate::config::{CONFIG, Config, ConfigError};
use crate::facts::{FactsError, SystemFacts};
use crate::manifest::{MANIFEST, Manifest};
use crate::plan::{self, Plan, PlanError};
use crate::select::{SelectError, image::on_build_machine};
pub use output::{Compression, write};

/// Where an image carries its own configuration.
pub const CARRIED: &str = "etc/levitate/levitate.toml";
/// The kernel starts this in an initramfs (`rdinit=`).
const INITRAMFS_INIT: &str = "init";
/// What a device takes ([`crate::image`]); more entries are no small root.
pub const MOST_ENTRIES: u64 = 65_536;

/// What to build from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The unpacked root.
    pub sysroot: PathBuf,
    /// The configuration; none: the one in the root.
    pub config: Option<PathBuf>,
    /// `levitate` for the device; none: the one in the root.
    pub levitate: Option<PathBuf>,
    /// Seconds since 1970 that every entry carries: `SOURCE_DATE_EPOCH`, or 0.
    pub time: u32,
}

/// An archive, and what is in it.
#[derive(Clone, Debug)]
pub struct Built {
    /// The archive, not compressed.
    pub archive: Vec<u8>,
    /// What it says of itself.
    pub manifest: Manifest,
    /// What it will take in RAM, in pages of 4096 bytes.
    pub size: Size,
    /// What is worth knowing.
    pub warnings: Vec<String>,
}

/// Why there is no archive. Nothing is left half-made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The unpacked root is not there.
    #[error("read the sysroot {path}")]
    Sysroot {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration's name leads nowhere in the root.
    #[error("find the configuration in the sysroot")]
    NoConfig(#[source] PathError),
    /// There is no `levitate` for the device.
    #[error("find levitate for the device in the sysroot (or name one by --levitate)")]
    NoLevitate(#[source] ClosureError),
    /// Users and groups of the root.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// Something is missing.
    #[error(transparent)]
    Select(Box<SelectError>),
    /// Two things in one place.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// As before.
    #[error("plan the archive")]
    Tree(#[from] TreeError),
    /// A file cannot be put into the archive.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A device would refuse the archive.
    #[error("a device would refuse it")]
    Refused(#[from] NewcError),
    /// The manifest cannot be written as JSON.
    #[error("write the manifest")]
    Json(#[from] serde_json::Error),
    /// The output cannot be written.
    #[error("{what} {path}")]
    Output {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Builds the archive and reads it back as a device would.
///
/// # Errors
///
/// Something is missing in the sysroot or wrong in the configuration.
pub fn build(request: &Request) -> Result<Built, BuildError> {
    let sysroot = request.sysroot.canonicalize();
    let sysroot = sysroot.map_err(|source| BuildError::Sysroot { path: request.sysroot.clone(), source })?;
    let root = Root::new(sysroot);
    let (config, text) = configuration(request, &root)?;
    let search = SystemFacts::of_sysroot(&root, Path::new(""))?;
    let binary = match &request.levitate {
        Some(file) => file.clone(),
        None => {
            let found = find_program(&root, "levitate", &search.path).map_err(BuildError::NoLevitate)?;
            root.host(&root.resolve(&found).map_err(BuildError::NoConfig)?.real)
        }
    };
    let facts = SystemFacts { binary, ..search };
    let selected = on_build_machine(&config, &facts).map_err(|e| BuildError::Select(Box::new(e)))?;

    let mut without_network = config.clone();
    // the build machine's is nobody's business
    without_network.keep.network = false;
    let Plan { mut tree, manifest, warnings } =
        plan::plan_in(Tree::of_root(), &without_network, &facts, &selected)?;
    let staged_at = u64::from(request.time);
    let manifest = Manifest { staged_at, state_home: None, watchdogs: vec![], ..manifest };
    plan::text(&mut tree, MANIFEST, 0o644, &serde_json::to_string(&manifest)?)?;
    // it may hold keys
    tree.file(Path::new(CARRIED), Meta::root(0o600), Content::Bytes(text.into_bytes()))?;
    tree.symlink(Path::new(INITRAMFS_INIT), Path::new("sbin/init"))?;

    let mut archive = Vec::new();
    newc::write(&tree, request.time, &mut archive)?;
    let limits = Limits { entries: MOST_ENTRIES, bytes: u64::MAX };
    newc::scan(&mut Cursor::new(&archive), &limits)?;
    let warnings = selected.warnings.into_iter().chain(warnings).collect();
    Ok(Built { archive, manifest, size: tree.size(facts.page)?, warnings })
}

fn configuration(request: &Request, root: &Root) -> Result<(Config, String), BuildError> {
    let file = match &request.config {
        Some(file) => file.clone(),
        None => root.host(&root.resolve(Path::new(CONFIG)).map_err(BuildError::NoConfig)?.real),
    };
    let text =
        std::fs::read_to_string(&file).map_err(|source| ConfigError::Read { path: file.clone(), source })?;
    Ok((Config::parse(&file, &text)?, text))
}

#[cfg(test)]
mod tests;
