//! From a file to a scenario, and from a scenario and a seed to a plan.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use likewise::ids::Region;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use toml::Spanned;

use super::chaos;
use super::error::{Mistake, ScenarioError};
use super::file::{Distance, FaultEntry, FaultKind, File, Load, Node, Span};
use super::plan::{
    Fault, Link, NodePlan, OperationMix, Plan, PlannedFault, RegionPlan, Site, WorkloadPlan,
};

const REGIONS_MAX: usize = 9;
const CLIENTS_MAX: usize = 64;
const LASTS_MAX: Duration = Duration::from_secs(3_600);

/// A scenario that was read and makes sense.
pub struct Scenario {
    file: File,
}

impl Scenario {
    /// Reads a file, and tries it with one seed.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path).map_err(|error| ScenarioError::Unreadable {
            path: path.to_owned(),
            error,
        })?;
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ScenarioError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            Mistake::at(span, error.message()).in_text(path, text)
        })?;
        check(&file).map_err(|mistake| mistake.in_text(path, text))?;
        Ok(Self { file })
    }

    /// From so many seeds on, everything that the summary counts must have been reached.
    pub fn reach_all_from(&self) -> Option<u64> {
        self.file.reach_all_from
    }

    /// Everything that this seed makes of it.
    pub fn plan(&self, seed: u64) -> Plan {
        let mut chance = StdRng::seed_from_u64(seed ^ 0x9_1a_2b);
        plan(&self.file, seed, &mut chance)
            .unwrap_or_else(|mistake| unreachable!("checked before: {}", mistake.problem))
    }
}

type Checked<T> = Result<T, Mistake>;

fn check(file: &File) -> Checked<()> {
    let names = file.regions.get_ref();
    if names.is_empty() || names.len() > REGIONS_MAX {
        let problem =
            format!("regions: there must be from 1 to {REGIONS_MAX}, such as [\"eu\", \"us\"]");
        return Err(Mistake::at(file.regions.span(), problem));
    }
    for (place, name) in names.iter().enumerate() {
        if let Err(error) = Region::new(name.get_ref()) {
            return Err(Mistake::at(name.span(), format!("regions: {error}")));
        }
        if names[..place]
            .iter()
            .any(|other| other.get_ref() == name.get_ref())
        {
            let problem = format!("regions: {:?} is there twice", name.get_ref());
            return Err(Mistake::at(name.span(), problem));
        }
    }
    let lasts = file.lasts.get_ref().0;
    if lasts.is_zero() || lasts > LASTS_MAX {
        return Err(Mistake::at(
            file.lasts.span(),
            "lasts: must be from 1ms to 60m",
        ));
    }
    if let Some(part) = &file.taking_part {
        let [least, most] = *part.get_ref();
        if least == 0 || least > most || most > names.len() {
            let problem = format!(
                "taking_part: must be [least, most] with 1 ≤ least ≤ most ≤ {}",
                names.len()
            );
            return Err(Mistake::at(part.span(), problem));
        }
        if !file.faults.is_empty() || !file.joins.is_empty() || file.core.is_some() {
            let problem =
                "taking_part: regions that are drawn cannot be named in fault, joins or core";
            return Err(Mistake::at(part.span(), problem));
        }
    }
    check_load(&file.load)?;
    check_node(&file.node)?;
    if let Some(chaos) = &file.chaos {
        let [least, most] = *chaos.faults.get_ref();
        if least > most || most > 200 {
            let problem = "chaos.faults: must be [least, most], at most 200";
            return Err(Mistake::at(chaos.faults.span(), problem));
        }
        let longest = chaos.longest.get_ref().0;
        if longest < Duration::from_millis(200) || longest > lasts / 2 {
            let problem = "chaos.longest: must be from 200ms to half of lasts";
            return Err(Mistake::at(chaos.longest.span(), problem));
        }
        if let Some(share) = &chaos.liveness {
            check_share("chaos.liveness", share)?;
        }
        if !chaos.weights.is_empty() && chaos.weights.values().all(|weight| *weight == 0) {
            let problem = "chaos.weights: at least one kind must have a weight above 0";
            return Err(Mistake::at(chaos.faults.span(), problem));
        }
    }
    plan(file, 0, &mut StdRng::seed_from_u64(0)).map(|_| ())
}

fn check_load(load: &Load) -> Checked<()> {
    let counted = [
        ("load.clients", &load.clients, 0, CLIENTS_MAX),
        ("load.posts", &load.posts, 1, 10_000),
        ("load.shared_users", &load.shared_users, 1, 10_000),
        ("load.own_users", &load.own_users, 1, 10_000),
    ];
    for (name, value, least, most) in counted {
        if !(least..=most).contains(value.get_ref()) {
            let problem = format!("{name}: must be from {least} to {most}");
            return Err(Mistake::at(value.span(), problem));
        }
    }
    let rate = &load.operations_per_second;
    if !(0.1..=10_000.0).contains(rate.get_ref()) {
        let problem = "load.operations_per_second: must be from 0.1 to 10000";
        return Err(Mistake::at(rate.span(), problem));
    }
    check_share("load.shared", &load.shared)?;
    check_share("load.travel", &load.travel)?;
    check_share("load.request_ids", &load.request_ids)?;
    check_share("load.repeated", &load.repeated)?;
    if load.like == 0 {
        return Err(Mistake::at(
            load.clients.span(),
            "load.like: must be above 0",
        ));
    }
    Ok(())
}

fn check_node(node: &Node) -> Checked<()> {
    let segment = &node.log_segment_kib;
    if !(16..=65_536).contains(segment.get_ref()) || !segment.get_ref().is_multiple_of(4) {
        let problem = "node.log_segment_kib: must be a multiple of 4 from 16 to 65536";
        return Err(Mistake::at(segment.span(), problem));
    }
    let retain = &node.log_retain_kib;
    if *retain.get_ref() < 2 * segment.get_ref() {
        let problem = "node.log_retain_kib: must be at least twice node.log_segment_kib";
        return Err(Mistake::at(retain.span(), problem));
    }
    Ok(())
}

fn check_share(name: &str, share: &Spanned<f64>) -> Checked<()> {
    if (0.0..=1.0).contains(share.get_ref()) {
        return Ok(());
    }
    let problem = format!("{name}: must be from 0.0 to 1.0");
    Err(Mistake::at(share.span(), problem))
}

fn plan(file: &File, seed: u64, chance: &mut StdRng) -> Checked<Plan> {
    let mut names: Vec<&str> = file
        .regions
        .get_ref()
        .iter()
        .map(|name| name.get_ref().as_str())
        .collect();
    if let Some(part) = &file.taking_part {
        let [least, most] = *part.get_ref();
        // The smaller of two throws: what a run costs grows with the square of its regions, what it finds does not.
        let mut throw = || chance.random_range(least..=most);
        names.truncate(throw().min(throw()));
    }
    let sites = Sites(names.clone());
    let lasts = file.lasts.get_ref().0;
    let mut regions: Vec<RegionPlan> = names
        .iter()
        .map(|name| RegionPlan {
            name: (*name).to_owned(),
            joins_at: Duration::ZERO,
        })
        .collect();
    for join in &file.joins {
        let at = join.at.get_ref().0;
        if at >= lasts {
            return Err(Mistake::at(
                join.at.span(),
                "joins.at: must be before lasts",
            ));
        }
        regions[sites.find("joins.region", &join.region)?].joins_at = at;
    }
    if regions.iter().all(|region| !region.joins_at.is_zero()) {
        let problem = "regions: at least one must be there from the beginning";
        return Err(Mistake::at(file.regions.span(), problem));
    }
    let mut core: Vec<Site> = (0..regions.len()).collect();
    if let Some(named) = &file.core {
        core = named
            .iter()
            .map(|name| sites.find("core", name))
            .collect::<Checked<_>>()?;
    }
    let mut faults = Vec::new();
    for entry in &file.faults {
        faults.push(planned(entry, &sites, lasts)?);
    }
    if let Some(chaos) = &file.chaos {
        let mix = chaos::Mix {
            kinds: FaultKind::ALL
                .into_iter()
                .map(|kind| {
                    (
                        kind,
                        chaos
                            .weights
                            .get(&kind)
                            .copied()
                            .unwrap_or(u32::from(chaos.weights.is_empty())),
                    )
                })
                .collect(),
            longest: chaos.longest.get_ref().0,
            lasts,
            regions: regions.len(),
        };
        let [least, most] = *chaos.faults.get_ref();
        let count = chance.random_range(least..=most);
        chaos::draw(&mix, count, &mut faults, chance);
        let liveness = chaos
            .liveness
            .as_ref()
            .map_or(0.0, |share| *share.get_ref());
        if regions.len() >= 3 && chance.random_bool(liveness) {
            let mut all = core.clone();
            all.shuffle(chance);
            let left_out = chance.random_range(1..=(regions.len() - 1) / 2);
            let (out, kept) = all.split_at(left_out);
            core = kept.to_vec();
            core.sort_unstable();
            let from = lasts.mul_f64(chance.random_range(0.3..0.9));
            faults.push(chaos::lasting_isolation(
                out,
                &core,
                from,
                lasts + file.settle_within.0,
            ));
        }
    }
    faults.sort_by_key(|fault| fault.at);
    let load = &file.load;
    Ok(Plan {
        title: file.title.clone(),
        seed,
        usual_latency: latency("distances.usual", &file.distances.usual)?,
        links: links(&file.distances.between, &sites)?,
        regions,
        workload: WorkloadPlan {
            clients: *load.clients.get_ref(),
            operations_per_second: *load.operations_per_second.get_ref(),
            posts: *load.posts.get_ref(),
            zipf: load.zipf,
            shared_users: *load.shared_users.get_ref(),
            own_users: *load.own_users.get_ref(),
            shared: *load.shared.get_ref(),
            travel: *load.travel.get_ref(),
            request_ids: *load.request_ids.get_ref(),
            repeated: *load.repeated.get_ref(),
            mix: OperationMix {
                like: load.like,
                unlike: load.unlike,
                unlike_by_id: load.unlike_by_id,
                add: load.add,
                read: load.read,
            },
        },
        faults,
        lasts,
        settle_within: file.settle_within.0,
        core,
        node: NodePlan {
            log_retain_bytes: file.node.log_retain_kib.get_ref() << 10,
            log_segment_bytes: file.node.log_segment_kib.get_ref() << 10,
            checkpoint_interval: file.node.checkpoint_every.0,
            relay_after: file.node.relay_after.0,
            absorb_repeated_likes: file.node.absorb_repeated_likes,
        },
    })
}

/// The regions that take part, by their places.
struct Sites<'a>(Vec<&'a str>);

impl Sites<'_> {
    fn find(&self, key: &str, name: &Spanned<String>) -> Checked<Site> {
        let found = self.0.iter().position(|known| known == name.get_ref());
        found.ok_or_else(|| {
            let problem = format!(
                "{key}: there is no region {:?}; regions are {}",
                name.get_ref(),
                self.0.join(", ")
            );
            Mistake::at(name.span(), problem)
        })
    }

    fn all(&self, key: &str, names: &[Spanned<String>]) -> Checked<Vec<Site>> {
        names.iter().map(|name| self.find(key, name)).collect()
    }
}

fn latency(key: &str, spans: &Spanned<[Span; 2]>) -> Checked<(Duration, Duration)> {
    let [least, most] = *spans.get_ref();
    if least > most || most.0 > Duration::from_secs(60) {
        let problem = format!("{key}: must be [least, most], at most 60s");
        return Err(Mistake::at(spans.span(), problem));
    }
    Ok((least.0, most.0))
}

fn links(distances: &[Distance], sites: &Sites<'_>) -> Checked<Vec<Link>> {
    let link = |distance: &Distance| {
        let [a, b] = &distance.regions;
        let between = (
            sites.find("distances.between.regions", a)?,
            sites.find("distances.between.regions", b)?,
        );
        if between.0 == between.1 {
            let problem = "distances.between.regions: must be two";
            return Err(Mistake::at(b.span(), problem));
        }
        Ok(Link {
            between,
            latency: latency("distances.between.latency", &distance.latency)?,
        })
    };
    distances.iter().map(link).collect()
}

/// What a fault's entry says, key by key: each that its kind needs must be there, and no other.
struct Entry<'a> {
    entry: &'a FaultEntry,
    sites: &'a Sites<'a>,
    used: Vec<&'static str>,
}

impl Entry<'_> {
    fn kind_span(&self) -> Range<usize> {
        self.entry.kind.span()
    }

    fn missing(&self, key: &str) -> Mistake {
        Mistake::at(self.kind_span(), format!("fault: this kind needs {key}"))
    }

    /// A key that this kind needs.
    fn needed<T>(&mut self, key: &'static str, given: Option<T>) -> Checked<T> {
        self.used.push(key);
        given.ok_or_else(|| self.missing(key))
    }

    fn length(&mut self, at: Duration, scenario_lasts: Duration) -> Checked<Duration> {
        let given = self.needed("lasts", self.entry.lasts.as_ref())?;
        let length = given.get_ref().0;
        if length.is_zero() || at + length > scenario_lasts {
            let problem = "fault.lasts: must be at least 1ms, and end by the scenario's lasts";
            return Err(Mistake::at(given.span(), problem));
        }
        Ok(length)
    }

    fn site(&mut self) -> Checked<Site> {
        let name = self.needed("region", self.entry.region.as_ref())?;
        self.sites.find("fault.region", name)
    }

    fn ends(&mut self) -> Checked<(Vec<Site>, Vec<Site>)> {
        let from = self.needed("from", self.entry.from.as_ref())?;
        let to = self.needed("to", self.entry.to.as_ref())?;
        let (from, to) = (
            self.sites.all("fault.from", from)?,
            self.sites.all("fault.to", to)?,
        );
        if from.is_empty() || to.is_empty() || from.iter().any(|site| to.contains(site)) {
            let problem = "fault: from and to must each name regions, and none the same";
            return Err(Mistake::at(self.kind_span(), problem));
        }
        Ok((from, to))
    }

    fn between(&mut self) -> Checked<(Site, Site)> {
        match self.ends()? {
            (from, to) if from.len() == 1 && to.len() == 1 => Ok((from[0], to[0])),
            _ => {
                let problem = "fault: this kind takes one region in from and one in to";
                Err(Mistake::at(self.kind_span(), problem))
            }
        }
    }

    /// No key was given that this kind does not take.
    fn finish(&self) -> Checked<()> {
        let entry = self.entry;
        let given = [
            ("lasts", entry.lasts.is_some()),
            ("region", entry.region.is_some()),
            ("from", entry.from.is_some()),
            ("to", entry.to.is_some()),
            ("one_way", entry.one_way.is_some()),
            ("latency", entry.latency.is_some()),
            ("share", entry.share.is_some()),
            ("period", entry.period.is_some()),
            ("by_ms", entry.by_ms.is_some()),
            ("per_million", entry.per_million.is_some()),
            ("as_of", entry.as_of.is_some()),
            ("by", entry.by.is_some()),
        ];
        for (key, is_given) in given {
            if is_given && !self.used.contains(&key) {
                let problem = format!("fault: this kind takes no {key}");
                return Err(Mistake::at(self.kind_span(), problem));
            }
        }
        Ok(())
    }
}

fn planned(entry: &FaultEntry, sites: &Sites<'_>, lasts: Duration) -> Checked<PlannedFault> {
    let at = entry.at.get_ref().0;
    if at >= lasts {
        return Err(Mistake::at(
            entry.at.span(),
            "fault.at: must be before lasts",
        ));
    }
    let mut keys = Entry {
        entry,
        sites,
        used: Vec::new(),
    };
    let fault = fault(&mut keys, at)?;
    let length = match has_an_end(&fault) {
        true => keys.length(at, lasts)?,
        false => Duration::ZERO,
    };
    keys.finish()?;
    let until = at + length;
    Ok(PlannedFault { at, until, fault })
}

/// Others happen at once, or last.
fn has_an_end(fault: &Fault) -> bool {
    !matches!(
        fault,
        Fault::ClockJump { .. } | Fault::Cloned { .. } | Fault::Damaged { .. }
    )
}

fn fault(keys: &mut Entry<'_>, at: Duration) -> Checked<Fault> {
    let entry = keys.entry;
    Ok(match entry.kind.get_ref() {
        FaultKind::Cut => {
            keys.used.push("one_way");
            let (from, to) = keys.ends()?;
            Fault::Cut {
                from,
                to,
                is_one_way: entry.one_way.unwrap_or_default(),
            }
        }
        FaultKind::Isolation => {
            let site = keys.site()?;
            Fault::Cut {
                from: vec![site],
                to: (0..keys.sites.0.len())
                    .filter(|other| *other != site)
                    .collect(),
                is_one_way: false,
            }
        }
        FaultKind::Hold => Fault::Hold {
            between: keys.between()?,
        },
        FaultKind::Slow => {
            let given = keys.needed("latency", entry.latency.as_ref())?;
            Fault::Slow {
                latency: latency("fault.latency", given)?,
                between: keys.between()?,
            }
        }
        FaultKind::Lossy => {
            let share = keys.needed("share", entry.share.as_ref())?;
            check_share("fault.share", share)?;
            Fault::Lossy {
                share: *share.get_ref(),
                between: keys.between()?,
            }
        }
        FaultKind::Flapping => {
            let period = keys.needed("period", entry.period.as_ref())?;
            if period.get_ref().0 < Duration::from_millis(10) {
                return Err(Mistake::at(
                    period.span(),
                    "fault.period: must be at least 10ms",
                ));
            }
            Fault::Flapping {
                period: period.get_ref().0,
                between: keys.between()?,
            }
        }
        FaultKind::Crash => Fault::Crash { site: keys.site()? },
        FaultKind::CrashInSync => Fault::CrashInSync { site: keys.site()? },
        FaultKind::Restart => Fault::Restart { site: keys.site()? },
        FaultKind::DiskFull => Fault::DiskFull { site: keys.site()? },
        FaultKind::SyncFails => Fault::SyncFails { site: keys.site()? },
        FaultKind::ClockJump => Fault::ClockJump {
            by_ms: keys.needed("by_ms", entry.by_ms)?,
            site: keys.site()?,
        },
        FaultKind::ClockDrift => Fault::ClockDrift {
            per_million: keys.needed("per_million", entry.per_million)?,
            site: keys.site()?,
        },
        FaultKind::Restored => {
            let as_of = keys.needed("as_of", entry.as_of.as_ref())?;
            if as_of.get_ref().0 >= at {
                return Err(Mistake::at(as_of.span(), "fault.as_of: must be before at"));
            }
            Fault::Restored {
                as_of: as_of.get_ref().0,
                site: keys.site()?,
            }
        }
        FaultKind::Cloned => Fault::Cloned { site: keys.site()? },
        FaultKind::Wiped => Fault::Wiped { site: keys.site()? },
        FaultKind::Retired => {
            let by = keys.needed("by", entry.by.as_ref())?;
            let (site, other) = (keys.site()?, keys.sites.find("fault.by", by)?);
            if site == other {
                return Err(Mistake::at(by.span(), "fault.by: must be another region"));
            }
            Fault::Retired { site, by: other }
        }
        FaultKind::Hostile => Fault::Hostile { site: keys.site()? },
        FaultKind::SlowWatchers => Fault::SlowWatchers { site: keys.site()? },
        FaultKind::Damaged => Fault::Damaged { site: keys.site()? },
    })
}
