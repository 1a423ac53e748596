//! Who chooses where no majority decides which region is right, as operators do: from what they know besides.
//! This one knows whose memory was damaged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::checkers::Vectors;
use super::history::Recorder;
use super::world::World;
use super::world::machine::Command;

/// What regions can settle by themselves is settled by then.
const PATIENCE: Duration = Duration::from_secs(20);
/// A choice has had its effect by then.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub struct Operator {
    /// By machine and range, when something was chosen last, and how often.
    chosen: BTreeMap<(usize, usize), (Duration, usize)>,
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
        if now < healed + PATIENCE {
            return;
        }
        let is_damaged = |number: usize| recorder.lock().history.may_have_damage(number);
        for number in core.iter().copied().filter(|number| is_damaged(*number)) {
            let machine = world.machine(number);
            let Some(seen) = machine.seen() else { continue };
            let mut sources: Vec<usize> = core.to_vec();
            sources.sort_by_key(|source| {
                let is_best = !is_damaged(*source) && vectors.covers(*source, number);
                (!is_best, *source != number)
            });
            let disputes = seen.audits.disputes().into_iter();
            for dispute in disputes.filter(|dispute| dispute.is_undecided) {
                let chosen = self.chosen.entry((number, dispute.range));
                let (last, times) = chosen.or_default();
                if *times > 0 && now < *last + AGAIN_AFTER {
                    continue;
                }
                let from = sources[*times % sources.len()];
                (*last, *times) = (now, *times + 1);
                let region = world.machine(from).region();
                recorder.tell(format!(
                    "the operator has {} take range {} from {region}",
                    machine.name(),
                    dispute.range
                ));
                recorder.lock().history.is_damage_chosen |= is_damaged(from);
                machine.command(Command::Repair(dispute.range, region.to_owned()));
            }
        }
    }
}
