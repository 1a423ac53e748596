//! Looking at a configuration without using it: everything that is wrong, and each value with its origin.

use figment::Provider;
use figment::providers::Serialized;
use figment::value::{Dict, Value};

use super::load::{self, ConfigError, Layer, Sources};

/// What stands in place of a secret.
const MASK: &str = "(not shown)";
/// Keys that end in one of these hold secrets. Paths of files with secrets are none.
const SECRETS: [&str; 3] = ["secret", "password", "token"];

/// A key with the value that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// With its section.
    pub key: String,
    /// A secret is masked.
    pub value: Value,
    /// Where the value comes from: the default, a file, a variable of the environment, a flag.
    pub origin: String,
}

/// Everything that is wrong with the sources: what cannot be read, unknown keys, bad values, broken rules. Rules
/// between values are looked at with the defaults in place of what was bad.
pub fn problems(sources: &Sources) -> Vec<ConfigError> {
    let (mut layers, mut found) = (Vec::new(), Vec::new());
    for layer in load::layers(sources) {
        match layer {
            Ok(layer) => layers.push(layer),
            Err(error) => found.push(error),
        }
    }
    // Each round takes out what it found, so it ends.
    loop {
        let figment = load::laid_over(&layers);
        let Err(error) = load::extract(&figment, sources.file.as_deref()) else {
            return found;
        };
        let goes_on = take_out(&mut layers, &error);
        found.push(error);
        if !goes_on {
            return found;
        }
    }
}

/// Takes out what the error is about. Returns whether anything went.
fn take_out(layers: &mut Vec<Layer>, error: &ConfigError) -> bool {
    match error {
        ConfigError::Syntax { .. } => {
            let before = layers.len();
            layers.retain(Layer::is_readable);
            layers.len() < before
        }
        // The layer that wins, for each may have its own.
        ConfigError::UnknownKey { key, .. } => {
            layers.iter_mut().rev().any(|layer| layer.take_out(key))
        }
        ConfigError::BadValue { key, .. } => {
            let taken = layers.iter_mut().map(|layer| layer.take_out(key));
            taken.fold(false, |any, taken| any | taken)
        }
        ConfigError::Unreadable { .. } | ConfigError::Violations(_) => false,
    }
}

/// All keys with the values that hold and their origins, in the order of the keys' names.
pub fn effective(sources: &Sources) -> Result<Vec<Effective>, ConfigError> {
    let layers: Vec<Layer> = load::layers(sources)
        .into_iter()
        .collect::<Result<_, _>>()?;
    let figment = load::laid_over(&layers);
    let config = load::extract(&figment, sources.file.as_deref())?;
    let data = Serialized::defaults(config).data();
    let data = data.expect("a configuration that was read can be written");
    let mut leaves = Vec::new();
    for dict in data.into_values() {
        flatten("", dict, &mut leaves);
    }
    let effective = leaves.into_iter().map(|(key, value)| Effective {
        origin: load::origin(&figment, &key),
        value: masked(&key, value),
        key,
    });
    Ok(effective.collect())
}

fn flatten(section: &str, dict: Dict, leaves: &mut Vec<(String, Value)>) {
    for (name, value) in dict {
        let key = match section {
            "" => name,
            section => format!("{section}.{name}"),
        };
        match value {
            Value::Dict(_, inner) => flatten(&key, inner, leaves),
            value => leaves.push((key, value)),
        }
    }
}

fn masked(key: &str, value: Value) -> Value {
    match SECRETS.iter().any(|end| key.ends_with(end)) {
        true => Value::from(MASK),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flag;

    fn environment<const N: usize>(pairs: [(&str, &str); N]) -> Sources {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Sources {
            environment: pairs.into_iter().map(own).collect(),
            ..Sources::default()
        }
    }

    #[test]
    fn every_problem_is_found_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.toml");
        let text = "[log]\nsegment_byts = 1\n[engine]\nshards = 3\n\
                    [[peers.static]]\nregion = \"eu\"\naddress = \"e\"\n";
        std::fs::write(&path, text).expect("written");
        let mut sources = environment([
            ("LIKEWISE__NOISE", "1"),
            ("LIKEWISE__NODE____REGION", "x"),
            ("LIKEWISE__LOG__SEGMENT_BYTS", "2"),
            ("LIKEWISE__READS__WAITING_MAX", "many"),
        ]);
        sources.file = Some(path);
        sources.flags = vec![Flag {
            name: "--region",
            key: "node.region",
            value: Value::from("EU West"),
        }];
        let found = problems(&sources);
        let said: Vec<String> = found.iter().map(ToString::to_string).collect();
        let said = said.join("\n");
        for part in [
            "unknown key node..region",
            "unknown key noise",
            "unknown key log.segment_byts (from the environment variable",
            "reads.waiting_max",
            "the flag --region",
            "no port",
            "engine.shards = 3",
            "must be a power of two from 1 to 256",
        ] {
            assert!(said.contains(part), "{part} in\n{said}");
        }
        assert_eq!(
            said.matches("unknown key log.segment_byts").count(),
            2,
            "{said}"
        );
        assert!(problems(&Sources::default()).is_empty());
    }

    #[test]
    fn a_file_that_is_no_toml_hides_nothing_of_the_rest() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.toml");
        std::fs::write(&path, "[node\n").expect("written");
        let mut sources = environment([("LIKEWISE__ENGINE__SHARDS", "5")]);
        sources.file = Some(path);
        let found = problems(&sources);
        assert_eq!(found.len(), 2, "{found:?}");
        sources.file = Some(folder.path().join("absent.toml"));
        assert_eq!(problems(&sources).len(), 2);
    }

    #[test]
    fn each_value_has_its_origin() {
        let mut sources = environment([("LIKEWISE__ENGINE__SHARDS", "8")]);
        sources.flags = vec![Flag {
            name: "--region",
            key: "node.region",
            value: Value::from("eu"),
        }];
        let all = effective(&sources).expect("sound");
        let of = |key: &str| {
            let found = all.iter().find(|value| value.key == key);
            found.expect("there").clone()
        };
        assert_eq!(of("engine.shards").value.to_u128(), Some(8));
        let variable = "the environment variable LIKEWISE__ENGINE__SHARDS";
        assert_eq!(of("engine.shards").origin, variable);
        assert_eq!(of("node.region").origin, "the flag --region");
        assert_eq!(of("log.recent_bytes").origin, "the default");
        assert!(all.is_sorted_by(|a, b| a.key < b.key));
    }

    #[test]
    fn secrets_are_masked_and_paths_are_not() {
        let shown = |key| masked(key, Value::from("x")).into_string();
        assert_eq!(shown("client.api_token").as_deref(), Some(MASK));
        assert_eq!(shown("peers.tls.key").as_deref(), Some("x"));
    }
}
