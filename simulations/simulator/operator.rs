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
    /// How often something was chosen.
    turn: usize,
}

impl Operator {
    /// Has machines that may be damaged take the ranges on which nobody can decide from another one: first from those that
    /// are whole, then, where these cannot help, from any, or has them keep their own.
    pub fn look(&mut self, world: &World, core: &[usize], recorder: &Recorder, healed: Duration) {
        let now = recorder.now();
        if now < self.next_look.max(healed + PATIENCE) {
            return;
        }
        self.next_look = now + PATIENCE;
        let is_damaged = |number: &usize| recorder.lock().history.may_have_damage(*number);
        let (damaged, whole): (Vec<usize>, Vec<usize>) = core.iter().partition(|it| is_damaged(it));
        let sources: Vec<usize> = whole.into_iter().chain(damaged.iter().copied()).collect();
        let from = sources[self.turn % sources.len()];
        self.turn += 1;
        let is_damage_chosen = damaged.contains(&from);
        let region = world.machine(from).region();
        for number in damaged {
            let machine = world.machine(number);
            let Some(seen) = machine.seen() else { continue };
            let disputes = seen.audits.disputes().into_iter();
            for dispute in disputes.filter(|dispute| dispute.is_undecided) {
                recorder.tell(format!(
                    "the operator has {} take range {} from {region}",
                    machine.name(),
                    dispute.range
                ));
                recorder.lock().history.is_damage_chosen |= is_damage_chosen;
                machine.command(Command::Repair(dispute.range, region.to_owned()));
            }
        }
    }
}
