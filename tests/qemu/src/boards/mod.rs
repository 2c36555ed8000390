//! The boards that QEMU emulates for us, one file each.

pub(crate) mod virt;
