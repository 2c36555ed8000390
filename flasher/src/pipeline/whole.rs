//! The checks of content that take more than a magic number: an image that a boot loader would not take, and a target
//! that holds U-Boot's environment.

use crate::content::environment::{self, Start};
use crate::content::{Content, uimage};
use crate::device::Mtd;
use crate::error::Error;
use crate::pipeline::Job;
use crate::retry;
use crate::source::ImageError;

/// Looks at an image for a target that starts like this (`None`: nothing is to be looked at). `size` is the image's where it
/// is known; its first `there` bytes can be read by `read`.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Content`], and what reading the image says.
pub(crate) fn check_whole(
    chip: &mut dyn Mtd,
    start: Option<&Start>,
    name: &str,
    size: Option<u64>,
    there: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), ImageError>,
    job: &Job<'_>,
) -> Result<(), Error> {
    let Some(start) = start else { return Ok(()) };
    let mut head = [0; uimage::HEADER];
    let head = &mut head[..usize::try_from(there).unwrap_or(usize::MAX).min(uimage::HEADER)];
    read(0, head)?;
    let image = name.to_owned();
    if let Some(what) = uimage::damage(head, size) {
        return Err(Error::Damaged { image, kind: "uImage", what });
    }
    let room = chip.geometry().size;
    let of_target = |at, buf: &mut [u8]| retry::read(chip, at, buf, &mut 0).is_ok();
    if !environment::is_one(start, room, of_target) {
        return Ok(());
    }
    let is_one = match size {
        Some(size) if size == there => environment::is_one(head, there, |at, buf| read(at, buf).is_ok()),
        _ => environment::can_be_one(head),
    };
    if is_one {
        return Ok(());
    }
    let (target, found) = (job.target.to_string(), Content::of(head));
    Err(Error::Content { target, expected: Content::Environment, image, found })
}
