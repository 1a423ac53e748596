//! Who chooses where no majority decides which region is right, as operators do: from what they know besides.
//! This one knows whose memory was damaged.

use std::time::Duration;

use super::checkers::Vectors;
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
    /// Has machines that may be damaged settle the ranges on which nobody can decide: by the state of one that is whole
    /// and knows all that they know, then by their own, then by any.
    pub fn look(
        &mut self,
        world: &World,
        core: &[usize],
        vectors: &Vectors,
        recorder: &Recorder,
        healed: Duration,
    ) {
        let now = recorder.now();
        if now < self.next_look.max(healed + PATIENCE) {
            return;
        }
        self.next_look = now + PATIENCE;
        let is_damaged = |number: usize| recorder.lock().history.may_have_damage(number);
        for number in core.iter().copied().filter(|number| is_damaged(*number)) {
            let machine = world.machine(number);
            let Some(seen) = machine.seen() else { continue };
            let mut sources: Vec<usize> = core.to_vec();
            sources.sort_by_key(|source| {
                let is_best = !is_damaged(*source) && vectors.covers(*source, number);
                (!is_best, *source != number)
            });
            let from = sources[self.turn % sources.len()];
            let is_damage_chosen = is_damaged(from);
            let region = world.machine(from).region();
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
        self.turn += 1;
    }
}
