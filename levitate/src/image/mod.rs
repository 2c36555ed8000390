//! `levitate --image`: a maintenance root from an archive that `levitate build` made, for a device that was not prepared
//! when its firmware was built. Only this program has to be on it.
//!
//! The archive is taken for hostile until it is staged: it is read to its end and measured before anything is written,
//! and what of it decides who can log in is the device's own (`laid_over`).

mod laid_over;
mod source;

use std::io;
use std::path::{Path, PathBuf};

use ramdisk::newc::{NewcError, SpoolError};
use ramdisk::path::Root;
use ramdisk::tree::TreeError;

use crate::arming::{LevitateError, Origin, Prepared};
use crate::config::{Config, ConfigError};
use crate::facts::SystemFacts;
use crate::manifest::MANIFEST;
use crate::select;
pub use source::Image;

/// An archive that cannot be staged.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be opened.
    #[error("open the archive {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path}: expected a newc archive, plain or compressed with gzip, xz or zstd, found {found:?}")]
    Format {
        /// The file.
        path: PathBuf,
        /// How it begins.
        found: String,
    },
    /// It cannot be kept.
    #[error("{path}")]
    Spool {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SpoolError,
    },
    /// Its contents are refused.
    #[error("{path}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: NewcError,
    },
    /// It is a newc archive, and none of `levitate build`'s.
    #[error("{path}: expected an archive of levitate build, but {what}")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The configuration that it carries.
    #[error("the configuration in the archive")]
    Config(#[from] ConfigError),
    /// It is made for another processor.
    #[error("{path}: the archive's programs are for {theirs}, this device runs {ours}")]
    Processor {
        /// The file.
        path: PathBuf,
        /// The archive's.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// Something of the device has no place in it.
    #[error("lay the device's files over the archive's")]
    Tree(#[from] TreeError),
    /// Something that was staged cannot be read again, or written.
    #[error("{what} {path}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Origin for Image {
    fn prepare(&mut self, config: &Config, facts: &SystemFacts) -> Result<Prepared, LevitateError> {
        laid_over::prepare(self, config, facts)
    }

    /// Who can log in is seen from what lies there, services and all.
    fn check(
        &mut self,
        config: &Config,
        prepared: &mut Prepared,
        staged: &Root,
    ) -> Result<(), LevitateError> {
        let users = select::image::check(config, &prepared.selected, staged)?;
        prepared.selected.can_log_in.clone_from(&users);
        prepared.plan.manifest.users = users;
        let at = staged.host(&staged.resolve(Path::new(MANIFEST))?.real);
        let written = serde_json::to_vec(&prepared.plan.manifest)
            .map_err(io::Error::from)
            .and_then(|bytes| std::fs::write(&at, bytes));
        written.map_err(|source| ImageError::Io { what: "write", path: at, source })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
