//! Failures on request, for tests on a board. Only the cargo feature `fault-injection` makes a binary that has this, and
//! no such binary goes onto a device: a test looks for [`MARK`] in what does.
//!
//! The file `etc/levitate/fault` of the staged root names a stage and what happens when it is entered: `bind hang`.

use super::journey::{Run, Step, Stop};
use super::seam::{HandoverSys, Weight};
use super::stage::Stage;

/// Said before every injected fault.
pub const MARK: &str = "levitate fault injection";

impl<S: HandoverSys> Run<'_, S> {
    /// Does what the file asks for, if it names this stage.
    #[allow(clippy::panic, reason = "the panic hook is what is tested")]
    pub(crate) fn inject(&mut self, stage: Stage) -> Step {
        let file = self.journey.staged.join("etc/levitate/fault");
        let Ok(text) = self.sys.read_text(&file) else { return Ok(()) };
        let mut words = text.split_whitespace();
        if words.next() != Some(stage.name()) {
            return Ok(());
        }
        let kind = words.next().unwrap_or("fail").to_owned();
        self.sys.say(Weight::Note, &format!("{MARK}: {kind} at {stage}"));
        match kind.as_str() {
            // nobody feeds the watchdog meanwhile, and only the guard ends it
            "hang" => loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
            },
            "panic" => panic!("injected at stage {stage}"),
            _ => Err(Stop::Failed(format!("injected at stage {stage}"))),
        }
    }
}
