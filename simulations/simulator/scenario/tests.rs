use std::path::Path;
use std::time::Duration;

use super::*;

const GOOD: &str = r#"
title = "a try"
lasts = "10s"
regions = ["ap", "eu", "us"]

[[fault]]
kind = "cut"
at = "2s"
lasts = "3s"
from = ["eu"]
to = ["us"]

[chaos]
faults = [5, 9]
longest = "4s"
"#;

fn error_of(text: &str) -> String {
    match Scenario::parse(Path::new("try.toml"), text) {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn one_seed_makes_one_plan_and_another_seed_another() {
    let scenario = Scenario::parse(Path::new("try.toml"), GOOD).expect("good");
    assert_eq!(scenario.plan(3), scenario.plan(3));
    assert_ne!(scenario.plan(3), scenario.plan(4));
    for seed in 0..200 {
        let plan = scenario.plan(seed);
        assert!(
            (6..=10).contains(&plan.faults.len()),
            "{}",
            plan.faults.len()
        );
        assert!(plan.faults.is_sorted_by_key(|fault| fault.at));
        assert!(plan.faults.iter().all(|fault| fault.until <= plan.lasts));
        assert!(
            plan.faults
                .iter()
                .all(|fault| fault.at > Duration::from_secs(1))
        );
    }
}

#[test]
fn mistakes_are_told_with_their_line_and_what_would_be_right() {
    let cases = [
        (
            "title = \"a try\"",
            "titel = \"a try\"",
            "try.toml:2: unknown field `titel`",
        ),
        (
            "[\"ap\", \"eu\", \"us\"]",
            "[]",
            "try.toml:4: regions: there must be from 1 to 9",
        ),
        (
            "[\"ap\", \"eu\", \"us\"]",
            "[\"ap\", \"eu\", \"eu\"]",
            "try.toml:4: regions: \"eu\" is there twice",
        ),
        (
            "[\"ap\", \"eu\", \"us\"]",
            "[\"AP\", \"eu\", \"us\"]",
            "try.toml:4: regions: ",
        ),
        (
            "to = [\"us\"]",
            "to = [\"sa\"]",
            "try.toml:11: fault.to: there is no region \"sa\"; regions are ap, eu, us",
        ),
        (
            "to = [\"us\"]",
            "to = [\"eu\"]",
            "try.toml:7: fault: from and to must each name regions",
        ),
        (
            "at = \"2s\"",
            "at = \"2 s\"",
            "try.toml:8: invalid value: string \"2 s\", expected a length of time",
        ),
        (
            "at = \"2s\"",
            "at = \"20s\"",
            "try.toml:8: fault.at: must be before lasts",
        ),
        (
            "lasts = \"3s\"",
            "lasts = \"30s\"",
            "try.toml:9: fault.lasts: must be at least 1ms, and end by the scenario's lasts",
        ),
        (
            "lasts = \"3s\"",
            "",
            "try.toml:7: fault: this kind needs lasts",
        ),
        (
            "kind = \"cut\"",
            "kind = \"damaged\"\nregion = \"ap\"",
            "try.toml:7: fault: this kind takes no lasts",
        ),
        (
            "lasts = \"10s\"",
            "lasts = \"0s\"",
            "try.toml:3: lasts: must be from 1ms to 60m",
        ),
        (
            "kind = \"cut\"",
            "kind = \"cats\"",
            "try.toml:7: unknown variant `cats`",
        ),
        (
            "kind = \"cut\"",
            "kind = \"crash\"",
            "try.toml:7: fault: this kind needs region",
        ),
        (
            "to = [\"us\"]",
            "to = [\"us\"]\nby_ms = 3",
            "try.toml:7: fault: this kind takes no by_ms",
        ),
        (
            "[5, 9]",
            "[9, 5]",
            "try.toml:14: chaos.faults: must be [least, most]",
        ),
        (
            "longest = \"4s\"",
            "longest = \"40s\"",
            "try.toml:15: chaos.longest: must be from 200ms to half of lasts",
        ),
    ];
    for (right, wrong, told) in cases {
        let text = GOOD.replacen(right, wrong, 1);
        assert_ne!(text, GOOD, "{right}");
        let error = error_of(&text);
        assert!(error.starts_with(told), "{wrong}: {error}");
    }
}
