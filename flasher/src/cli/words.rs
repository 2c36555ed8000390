//! What is said in whole lines, beside progress.

use crate::device::Ecc;
use crate::event::Retry;
use crate::options::Mode;
use crate::report::{Outcome, Report, Unfinished};

/// How the image is compressed, and the memory that takes.
pub(super) fn input(format: &str, window: u64, memory: u64) -> String {
    let [window, memory] = [window, memory].map(|bytes| bytes.div_ceil(1024));
    format!(
        "the image is {format} data, window {window} KiB: up to {memory} KiB of memory to decompress it\n"
    )
}

/// Bytes that read back wrong.
pub(super) fn retry(offset: u64, what: Retry) -> String {
    let what = match what {
        Retry::Reread => "wrong bytes, right when read again",
        Retry::Rewrite => "wrong bytes, erased and written again",
    };
    format!("{offset:#x}: {what}\n")
}

/// The end of a plan of several images that ended well, with the worst of their exit codes.
pub(super) fn plan_is_done(images: usize, mode: Mode, exit_code: u8) -> String {
    let what = match (mode, exit_code) {
        (Mode::Write, _) => "verified",
        (Mode::DryRun, _) => "possible",
        (Mode::VerifyOnly, 0) => "equal",
        (Mode::VerifyOnly, _) => "not all equal",
    };
    format!("the plan's {images} images are {what}\n")
}

/// Locks that are not as they were.
pub(super) fn not_locked(error: &str) -> String {
    format!("flashcp: verified, but the locks could not be restored: {error}\n")
}

/// What a successful run ends with.
pub(super) fn summary(report: &Report) -> String {
    let Report { target, image, image_bytes, sha256, plan, operations, .. } = report;
    let seconds = format!("{}.{} s", report.elapsed.as_secs(), report.elapsed.subsec_millis() / 100);
    let digest = format!("sha256 {sha256}\n");
    let mut text = match &report.outcome {
        Outcome::Written => format!(
            "verified: {image_bytes} bytes of {image} on {target} in {seconds}\n\
             {digest}{} of {} blocks kept, {} erased, {} bytes programmed\n",
            plan.kept, plan.blocks, operations.erases, operations.programmed
        ),
        Outcome::Unchanged => format!(
            "verified: {image_bytes} bytes of {image} were on {target} already, nothing was changed ({seconds})\n\
             {digest}"
        ),
        Outcome::Possible => format!("possible: {image_bytes} bytes of {image} onto {target}\n{digest}"),
        Outcome::Equal => format!("equal: {image_bytes} bytes of {image} on {target}\n{digest}"),
        Outcome::Differs { blocks, first } => {
            format!(
                "different: {image} and {target}, in {blocks} of {} blocks, first in that at {first:#x}\n",
                plan.blocks
            )
        }
    };
    if report.retries > 0 {
        text.push_str(&format!(
            "{} times bytes read back wrong and were read or written again\n",
            report.retries
        ));
    }
    let Ecc { corrected, failed, refreshed } = report.ecc;
    if report.ecc != Ecc::default() {
        text.push_str(&format!(
            "ECC: {corrected} flipped bits corrected, {failed} times too many; {refreshed} blocks refreshed\n"
        ));
    }
    if let Some(Unfinished { device, name, same_device, command }) = &report.unfinished {
        let what = if *same_device {
            format!("an earlier run changed more of {device} \"{name}\" than this one, and that")
        } else {
            format!("another partition, {device} \"{name}\",")
        };
        text.push_str(&format!("{what} is still not verified, run again: {command}\n"));
    }
    text
}
