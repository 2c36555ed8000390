//! What a user can do about a failure. The library says what happened; this says what next.

use crate::error::Error;
use crate::guard::{Conflict, Use};
use crate::report::{Failure, Flash};

/// What stands behind the error's text, one line each.
pub(super) fn hints(failure: &Failure) -> Vec<&'static str> {
    let mut hints = Vec::new();
    match &failure.error {
        Error::InUse { verdict, .. } => {
            let stayed = |conflict: &Conflict| matches!(conflict.user.how, Use::Stayed { .. });
            hints.push(if verdict.unread.is_some() || verdict.conflicts.iter().any(stayed) {
                "what the old system left behind ends with a reset: `reboot`, then `levitate` and `reboot` again"
            } else {
                "to write the flash that the system runs from: run `levitate`, then `reboot`, log in, flash there"
            });
            hints.push("(--allow-in-use writes it all the same, and whatever uses it breaks)");
        }
        Error::Content { .. } | Error::Damaged { .. } => hints.push("if that is meant: --any-content"),
        Error::UbiOnNand { .. } => hints.push("(--raw-ubi writes its bytes all the same, and the counters are lost)"),
        Error::VolumeInTheWay { .. } => {
            hints.push("if nobody needs it: remove it with ubirmvol; or name the target by its number, ubiN_V");
        }
        Error::StreamToStatic { .. } => hints.push("say its size: --size"),
        Error::BadBlock { .. } => hints.push(
            "if the boot loader skips bad blocks, --bad-blocks=skip writes the image that way",
        ),
        Error::Worn { .. } => hints.push(
            "--bad-blocks=mark marks it bad, for ever, and the image moves on by a block: if the boot loader skips \
             bad blocks, and the supply voltage is good",
        ),
        Error::Protected { .. } => hints.push("if a jumper or a pin protects the chip, release it"),
        _ => {}
    }
    hints.push(match failure.flash {
        Flash::Untouched => "nothing was changed",
        Flash::Unverified => {
            "the flash was changed and is not verified: do not reboot, run the same command again"
        }
    });
    hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::guard::Verdict;

    #[test]
    fn every_failure_ends_with_what_the_flash_is_now() {
        let in_use = Error::InUse { target: "mtd5".to_owned(), verdict: Box::new(Verdict::default()) };
        assert_eq!(
            hints(&Failure::from(in_use)),
            [
                "to write the flash that the system runs from: run `levitate`, then `reboot`, log in, flash there",
                "(--allow-in-use writes it all the same, and whatever uses it breaks)",
                "nothing was changed",
            ]
        );
        let unread = Verdict { unread: Some("x".to_owned()), ..Verdict::default() };
        let in_use = Error::InUse { target: "mtd5".to_owned(), verdict: Box::new(unread) };
        assert!(hints(&in_use.into())[0].ends_with("`reboot`, then `levitate` and `reboot` again"));
        let content = Error::Content {
            target: "mtd5".to_owned(),
            expected: Content::Fit,
            image: "x".to_owned(),
            found: None,
        };
        assert_eq!(hints(&content.into()), ["if that is meant: --any-content", "nothing was changed"]);
        let protected = Error::Protected { what: "erase", offset: 0 };
        assert_eq!(
            hints(&Failure::unverified(protected)),
            [
                "if a jumper or a pin protects the chip, release it",
                "the flash was changed and is not verified: do not reboot, run the same command again",
            ]
        );
    }

    #[test]
    fn what_can_be_overridden_or_is_missing_is_named_by_its_option() {
        let (target, image) = (|| "mtd5".to_owned(), || "x".to_owned());
        let source = crate::device::MtdError::Unsupported;
        for (error, option) in [
            (Error::UbiOnNand { target: target(), image: image() }, "--raw-ubi"),
            (Error::StreamToStatic { target: target() }, "--size"),
            (Error::VolumeInTheWay { target: target(), other: target(), shapes: Box::default() }, "ubirmvol"),
            (Error::BadBlock { target: target(), offset: 0 }, "--bad-blocks=skip"),
            (Error::Worn { offset: 0, source }, "--bad-blocks=mark"),
        ] {
            let hints = hints(&error.into());
            assert!(hints.len() == 2 && hints[0].contains(option), "{hints:?}");
        }
    }
}
