//! Who chooses where no majority decides which region is right, as operators do: from what they know besides.
//! This one knows whose memory was damaged.

use std::time::Duration;

use super::history::Recorder;
use super::world::World;
use super::world::machine::Command;

/// What regions can settle by themselves is settled by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Default)]
pub struct Operator {
    next_look: Duration,
}

impl Operator {
    /// Has damaged machines take the ranges on which nobody can decide from one that is whole.
    pub fn look(&mut self, world: &World, core: &[usize], recorder: &Recorder, healed: Duration) {
        let now = recorder.now();
        if now < self.next_look.max(healed + PATIENCE) {
            return;
        }
        self.next_look = now + PATIENCE;
        let is_damaged = |number: usize| recorder.lock().history.may_have_damage(number);
        let Some(whole) = core.iter().find(|number| !is_damaged(**number)) else {
            return;
        };
        let whole = world.machine(*whole).region();
        for number in core.iter().filter(|number| is_damaged(**number)) {
            let machine = world.machine(*number);
            let Some(seen) = machine.seen() else { continue };
            let disputes = seen.audits.disputes().into_iter();
            for dispute in disputes.filter(|dispute| dispute.is_undecided) {
                recorder.tell(format!(
                    "the operator has {} take range {} from {whole}",
                    machine.name(),
                    dispute.range
                ));
                machine.command(Command::Repair(dispute.range, whole.to_owned()));
            }
        }
    }
}
