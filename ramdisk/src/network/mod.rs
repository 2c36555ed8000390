//! The network as it is, to be the same in the maintenance root: read from the kernel, kept as JSON, set again.

pub mod state;

mod netlink;

pub mod snapshot;

pub mod apply;

pub use apply::apply;
pub use snapshot::snapshot;
pub use state::{Address, Link, NetworkError, NetworkState, Route};
