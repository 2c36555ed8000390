//! The network as it is, to be the same in the maintenance root: read from the kernel, kept as JSON, set again.

pub mod state;

mod netlink;

mod message;

mod link;

pub mod snapshot;

mod plan;

pub mod apply;

pub use apply::apply;
pub use snapshot::snapshot;
pub use state::{Address, Kind, Link, NetworkError, NetworkState, Route};
