//! What an upgrade must cost, what it does cost with each tool, and the time that data sheets give for it. Shared by
//! the bench program, which prints it for an 8 MiB image, and by the tests, which hold a smaller one to the bound.

pub(crate) mod measure;
pub(crate) mod peers;
pub(crate) mod sheet;
