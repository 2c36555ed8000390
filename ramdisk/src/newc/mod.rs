//! cpio archives in the "new ASCII" format, as the kernel unpacks them into its first root (its
//! `Documentation/driver-api/early-userspace/buffer-format.rst`): a tree is [written](write()) the same byte for byte
//! wherever it is written, and an archive is [read](scan) as if an enemy had made it.

mod error;
mod header;

mod writer;

mod spool;

mod links;
mod reader;

pub use error::{NewcError, Problem};
pub use reader::{Entry, Held, Limits, scan, tree};
pub use spool::{SpoolError, spool};
pub use writer::{WriteError, write};
