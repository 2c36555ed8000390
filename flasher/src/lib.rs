//! From a firmware image to verified flash.
//!
//! The modules, in the order in which an upgrade passes them:
//!
//! 1. [`source`], [`image`]: the image, readable at any offset, as often as needed.
//! 2. [`device`]: what a flash chip can do ([`device::Mtd`]) and how it is divided; [`kernel`] is the kernel's
//!    character device, [`sim`] the simulated chip; [`skip`] is NAND without its bad blocks.
//! 3. [`target`]: which partition is meant; [`ubi`] is a run onto a UBI volume, which goes another way.
//! 4. [`guard`]: who uses these bytes of the chip, and whether they may be written.
//! 5. [`survey`], [`decide`], [`plan`]: what is there, what each erase block needs, in which order;
//!    [`map`], [`estimate`]: what that looks like and how long it takes.
//! 6. `execute`, [`readback`], `verify`: erase and program, then read back and prove; between [`hold`] (nobody else gets in, nothing
//!    ends the process) and `locks` (the chip's own protection, restored afterwards).
//! 7. [`record`], [`report`], [`event`]: what is told while it runs, and after.
//! 8. [`pipeline`]: all of it in one call, behind seams that tests can replace.
//! 9. [`stream`]: the same for an image that can be read once only; [`plan_file`], [`batch`]: for several images.
//!
//! The promise: from any failure a caller learns whether the flash is untouched, changed and unverified, or verified
//! (see [`pipeline::Failure`] and [`record::State`]); a power cut at any point leaves the whole old image, the whole
//! new one, or a head that is neither's, and a second run completes the job.

pub mod source;

pub mod image;

pub mod device;

pub mod kernel;

pub mod skip;

mod retry;

pub mod target;

pub mod ubi;

pub mod content;

pub mod guard;

pub mod options;

pub mod survey;

pub mod decide;

pub mod plan;

pub mod map;

pub mod estimate;

mod execute;

pub mod readback;

mod verify;

pub mod hold;

mod locks;

pub mod record;

pub mod report;

pub mod event;

pub mod error;

pub mod pipeline;

pub mod stream;

pub mod plan_file;

pub mod batch;

pub mod cli;

pub mod sim;

mod digest;
mod sys;
