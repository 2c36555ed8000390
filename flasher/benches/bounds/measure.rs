//! One tool on one case: what the simulated chip saw, and whether it holds the image now.

use flasher::estimate::Done;
use flasher::options::{Head, Options};
use flasher::record::RecordDir;
use flasher::sim::Nor;
use flasher::sim::cases::{Bound, Case};

use super::peers;
use super::sheet::Sheet;
use crate::common::flash;

/// Who brings the image onto the flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// This crate with `--head=keep`.
    Ours,
    /// This crate with `--head=auto`, the default.
    OursSafe,
    /// Erase all, write all, read all back.
    Plain,
    /// Compare block by block, rewrite those that differ.
    Blockwise,
}

impl Tool {
    pub(crate) const ALL: [Self; 4] = [Self::Ours, Self::OursSafe, Self::Plain, Self::Blockwise];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursSafe => "ours-safe",
            Self::Plain => "plain",
            Self::Blockwise => "blockwise",
        }
    }
}

/// One line of the table.
pub(crate) struct Measured {
    pub(crate) case: &'static str,
    pub(crate) tool: Tool,
    pub(crate) erase_size: u64,
    /// Bytes of a program page.
    pub(crate) page: u64,
    /// Bytes from the flash's start to the end of the image's last block.
    pub(crate) range: u64,
    /// What the chip saw.
    pub(crate) count: Done,
    pub(crate) bound: Bound,
    pub(crate) seconds: f64,
}

/// Runs the tool on a fresh chip. The error says what went wrong, contents included.
pub(crate) fn measure(
    sheet: &Sheet,
    case: &Case,
    tool: Tool,
    records: &RecordDir,
) -> Result<Measured, String> {
    let geometry = sheet.geometry(case.old.len() as u64, case.erase_size);
    let failed = |what: String| format!("{}, {}: {what}", case.name, tool.name());
    let mut chip = Nor::new(geometry.clone(), case.old.clone()).with_pages(sheet.page());
    let run = |chip: &mut Nor, head| {
        let options = Options { head, ..Options::default() };
        flash(chip, &case.image, &options, records).map(|_| ()).map_err(|error| error.to_string())
    };
    match tool {
        Tool::Ours => run(&mut chip, Head::Keep),
        Tool::OursSafe => run(&mut chip, Head::Auto),
        Tool::Plain => peers::plain(&mut chip, &case.image).map_err(|error| error.to_string()),
        Tool::Blockwise => peers::blockwise(&mut chip, &case.image).map_err(|error| error.to_string()),
    }
    .map_err(failed)?;
    let range = geometry.round_up(case.image.len() as u64);
    let end = usize::try_from(range).expect("the simulation's chips fit in memory");
    let (head, padding) = chip.bytes()[..end].split_at(case.image.len());
    if head != case.image || padding.iter().any(|byte| *byte != 0xff) {
        return Err(failed("the flash does not hold the image afterwards".to_owned()));
    }
    if chip.bytes()[end..] != case.old[end..] {
        return Err(failed("bytes behind the image's last block were changed".to_owned()));
    }
    let seen = chip.counts();
    let count = Done {
        erases: seen.erases,
        erase_size: geometry.erase_size,
        pages: chip.page_programs(),
        sent: seen.programmed,
        read: seen.read,
    };
    Ok(Measured {
        case: case.name,
        tool,
        erase_size: geometry.erase_size,
        page: sheet.page(),
        range,
        count,
        bound: sheet.bound(&geometry, case),
        seconds: sheet.seconds(&count),
    })
}

impl Measured {
    /// What the bound promises of our own runs, and this one does not keep.
    pub(crate) fn broken_promise(&self) -> Option<String> {
        let (erases, pages) = match self.tool {
            Tool::Ours => (0, 0),
            Tool::OursSafe => (1, self.erase_size / self.page),
            Tool::Plain | Tool::Blockwise => return None,
        };
        // The survey, one read-back, blocks in which bits are to be cleared once more, a few bytes here and there.
        let reads = 2 * self.range + self.bound.clears * self.erase_size + 1024;
        let kept = self.count.erases <= self.bound.erases + erases
            && self.count.pages <= self.bound.pages + pages
            && self.count.read <= reads;
        (!kept).then(|| {
            format!(
                "{}, {}: {} erases and {} pages of {} bytes, where {} and {} are the bound and {erases} and {pages} \
                 more are allowed; {} bytes read, where {reads} are allowed",
                self.case,
                self.tool.name(),
                self.count.erases,
                self.count.pages,
                self.page,
                self.bound.erases,
                self.bound.pages,
                self.count.read,
            )
        })
    }
}
