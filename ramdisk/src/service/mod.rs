//! Service definitions, in s6-rc's language: what a service is, how a set of them is checked, and how both are read
//! from and written as source directories.
//!
//! The model is that of s6-rc's `s6-rc-compile` page: *longrun* (a process that is kept alive), *oneshot* (a program
//! that is run once to go up and once to go down) and *bundle* (a name for several services).

pub mod definition;
pub mod set;
mod set_checks;
pub mod source;

mod salvage;

pub use definition::{Kind, Pipeline, Program, Service, ServiceError, Timeout};
pub use salvage::read_valid_services;
pub use set::ServiceSet;
pub use source::{
    SourceFile, read_service_dir, read_service_in, read_services_dir, read_services_in, write_source_dir,
};

/// The bundle that the init starts.
pub const DEFAULT_BUNDLE: &str = "default";
