//! Laying the sources over one another, and saying which of them a bad value came from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Config, Violation};

/// The origin of a value that nobody gave.
const DEFAULT_ORIGIN: &str = "the default";

/// Variables with this prefix are keys; `__` stands between section and key.
pub const ENVIRONMENT_PREFIX: &str = "LIKEWISE__";

/// A key that a flag of the command line sets.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag as it is typed, such as `--region`.
    pub name: &'static str,
    /// The key that it sets, with its section.
    pub key: &'static str,
    /// What it sets it to.
    pub value: Value,
}

/// Where values come from, besides the defaults; later ones win.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those without the prefix are passed over.
    pub environment: BTreeMap<String, String>,
    /// Flags of the command line.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// A file and flags, with the environment of this process between them.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
            .collect();
        Self {
            file,
            environment,
            flags,
        }
    }
}

/// Why there is no configuration. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is no valid TOML: {problem}", path.display())]
    Syntax { path: PathBuf, problem: String },
    #[error("unknown key {key} (from {origin}); {}", known(expected))]
    UnknownKey {
        key: String,
        origin: String,
        expected: Vec<String>,
    },
    #[error("{key} (from {origin}): {problem}")]
    BadValue {
        key: String,
        origin: String,
        problem: String,
    },
    #[error("{}", lines(.0))]
    Violations(Vec<(Violation, String)>),
}

fn known(expected: &[String]) -> String {
    match expected {
        [] => "nothing may stand there".to_owned(),
        keys => format!("known there: {}", keys.join(", ")),
    }
}

fn lines(violations: &[(Violation, String)]) -> String {
    let line = |(violation, origin): &(Violation, String)| {
        let Violation { key, value, rule } = violation;
        format!("{key} = {value} (from {origin}) {rule}")
    };
    violations.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The configuration that the sources give together. An error names the key, its value, the limit
/// and the source; nothing has been changed then.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let layers: Vec<Layer> = layers(sources).into_iter().collect::<Result<_, _>>()?;
    extract(&laid_over(&layers), sources.file.as_deref())
}

/// The configuration of layers that lie over one another, or the first thing that is wrong.
pub(super) fn extract(figment: &Figment, file: Option<&Path>) -> Result<Config, ConfigError> {
    let config: Config = figment
        .extract()
        .map_err(|error| explain(figment, error, file))?;
    let violations = config.violations();
    if violations.is_empty() {
        return Ok(config);
    }
    let with_origin = |violation: Violation| {
        let origin = origin(figment, violation.key);
        (violation, origin)
    };
    Err(ConfigError::Violations(
        violations.into_iter().map(with_origin).collect(),
    ))
}

/// The sources, the defaults first; those that cannot be read are errors.
pub(super) fn layers(sources: &Sources) -> Vec<Result<Layer, ConfigError>> {
    let mut layers = vec![Ok(Layer {
        origin: DEFAULT_ORIGIN.to_owned(),
        data: Serialized::defaults(Config::default()).data(),
    })];
    layers.extend(sources.file.iter().map(|path| file_layer(path)));
    let variables = sources.environment.iter();
    layers.extend(variables.filter_map(|(name, value)| {
        let key = name.strip_prefix(ENVIRONMENT_PREFIX)?;
        Some(environment_layer(name, key, value))
    }));
    layers.extend(sources.flags.iter().map(|flag| {
        let origin = format!("the flag {}", flag.name);
        Ok(Layer::of_key(origin, flag.key, flag.value.clone()))
    }));
    layers
}

/// Later layers win.
pub(super) fn laid_over(layers: &[Layer]) -> Figment {
    layers.iter().fold(Figment::new(), |figment, layer| {
        figment.merge(layer.clone())
    })
}

fn file_layer(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(Layer {
        origin: path.display().to_string(),
        data: Toml::string(&text).data(),
    })
}

fn environment_layer(name: &str, key: &str, text: &str) -> Result<Layer, ConfigError> {
    let key = key.to_ascii_lowercase().replace("__", ".");
    let origin = format!("the environment variable {name}");
    if key.split('.').any(str::is_empty) {
        return Err(ConfigError::UnknownKey {
            key,
            origin,
            expected: vec![format!("{ENVIRONMENT_PREFIX}SECTION__KEY")],
        });
    }
    let Ok(value) = text.parse::<Value>();
    Ok(Layer::of_key(origin, &key, value))
}

/// One source, by the name that errors call it.
#[derive(Clone)]
pub(super) struct Layer {
    origin: String,
    data: figment::Result<Map<Profile, Dict>>,
}

impl Layer {
    fn of_key(origin: String, key: &str, value: Value) -> Self {
        let nested = figment::util::nest(key, value);
        let dict = nested.into_dict().expect("a key that is not empty nests");
        let data = Ok(Map::from([(Profile::Default, dict)]));
        Self { origin, data }
    }

    pub(super) fn is_readable(&self) -> bool {
        self.data.is_ok()
    }

    /// Takes a key out, or the list around it. Returns whether it was there; a default stays.
    pub(super) fn take_out(&mut self, key: &str) -> bool {
        match &mut self.data {
            Ok(data) if self.origin != DEFAULT_ORIGIN => {
                data.values_mut().any(|dict| take_out(dict, key))
            }
            _ => false,
        }
    }
}

fn take_out(dict: &mut Dict, key: &str) -> bool {
    let Some((first, rest)) = key.split_once('.') else {
        return dict.remove(key).is_some();
    };
    match dict.get_mut(first) {
        Some(Value::Dict(_, inner)) => take_out(inner, rest),
        Some(_) => dict.remove(first).is_some(),
        None => false,
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        self.data.clone()
    }
}

/// The source of a key, or of what stands around it.
pub(super) fn origin(figment: &Figment, key: &str) -> String {
    let mut key = key;
    loop {
        if let Some(metadata) = figment.find_metadata(key) {
            return metadata.name.to_string();
        }
        match key.rsplit_once('.') {
            Some((parent, _)) => key = parent,
            None => return "the configuration".to_owned(),
        }
    }
}

fn explain(figment: &Figment, error: figment::Error, file: Option<&Path>) -> ConfigError {
    let mut path = error.path.clone();
    let source = |path: &[String]| match &error.metadata {
        Some(metadata) if path.iter().any(|part| part.parse::<usize>().is_ok()) => {
            metadata.name.to_string()
        }
        _ => origin(figment, &path.join(".")),
    };
    match &error.kind {
        Kind::UnknownField(field, expected) => {
            if path.last() != Some(field) {
                path.push(field.clone());
            }
            ConfigError::UnknownKey {
                origin: source(&path),
                key: path.join("."),
                expected: expected.iter().map(|key| (*key).to_owned()).collect(),
            }
        }
        kind => match (file, path.is_empty()) {
            (Some(file), true) => ConfigError::Syntax {
                path: file.to_owned(),
                problem: kind.to_string(),
            },
            _ => ConfigError::BadValue {
                origin: source(&path),
                key: path.join("."),
                problem: kind.to_string(),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(sources: &Sources) -> String {
        load(sources).unwrap_err().to_string()
    }

    fn environment<const N: usize>(pairs: [(&str, &str); N]) -> Sources {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Sources {
            environment: pairs.into_iter().map(own).collect(),
            ..Sources::default()
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        let sources = Sources {
            file: Some(path),
            ..Sources::default()
        };
        (folder, sources)
    }

    fn in_repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    #[test]
    fn nothing_gives_the_defaults() {
        assert_eq!(load(&Sources::default()).unwrap(), Config::default());
    }

    #[test]
    fn the_complete_file_says_exactly_the_defaults() {
        let only_the_file =
            Figment::new().merge(Toml::file_exact(in_repository("config/node.toml")));
        assert_eq!(
            only_the_file.extract::<Config>().unwrap(),
            Config::default()
        );
    }

    #[test]
    fn the_three_regions_know_one_another() {
        let regions = ["us", "eu", "ap"].map(|region| {
            let path = in_repository(&format!("config/three-regions/{region}.toml"));
            let sources = Sources {
                file: Some(path),
                ..Sources::default()
            };
            load(&sources).unwrap()
        });
        for config in &regions {
            assert_eq!(config.peers.static_peers.len(), 2);
            for peer in &config.peers.static_peers {
                let other = regions
                    .iter()
                    .find(|c| c.node.region == peer.region)
                    .unwrap();
                assert_eq!(other.peers.listen.to_string(), peer.address.to_string());
            }
        }
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file() {
        let (_folder, mut sources) =
            file("[node]\nregion = \"a\"\ndata_dir = \"a\"\n[engine]\nshards = 2\n");
        sources.environment = environment([
            ("LIKEWISE__NODE__REGION", "b"),
            ("LIKEWISE__NODE__DATA_DIR", "b"),
        ])
        .environment;
        sources.flags.push(Flag {
            name: "--region",
            key: "node.region",
            value: Value::from("c"),
        });
        let config = load(&sources).unwrap();
        assert_eq!(config.node.region.as_str(), "c");
        assert_eq!(config.node.data_dir, Path::new("b"));
        assert_eq!(config.engine.shards, 2);
    }

    #[test]
    fn peers_can_be_given_by_environment() {
        let list = r#"[{region="eu",address="eu.example:7401"},{region="ap",address="[::1]:1"}]"#;
        let config = load(&environment([("LIKEWISE__PEERS__STATIC", list)])).unwrap();
        let peers: Vec<_> = config.peers.static_peers.iter().collect();
        assert_eq!(peers[0].address.to_string(), "eu.example:7401");
        assert_eq!(peers[1].region.as_str(), "ap");
    }

    #[test]
    fn unknown_keys_are_named_with_their_source() {
        let (folder, sources) = file("[log]\nsegment_byts = 1\n");
        let path = folder.path().join("node.toml").display().to_string();
        let message = refusal(&sources);
        assert!(
            message.contains("unknown key log.segment_byts"),
            "{message}"
        );
        assert!(message.contains(&path), "{message}");
        assert!(message.contains("segment_bytes"), "{message}");

        let cases = [
            (
                "LIKEWISE__LOG__SEGMENT_BYTS",
                "unknown key log.segment_byts",
            ),
            ("LIKEWISE__NOISE__LEVEL", "unknown key noise"),
            ("LIKEWISE__REGION", "unknown key region"),
            ("LIKEWISE__NODE____REGION", "unknown key node..region"),
            ("LIKEWISE__", "unknown key"),
        ];
        for (name, expected) in cases {
            let message = refusal(&environment([(name, "x")]));
            assert!(message.contains(expected), "{message}");
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn unknown_keys_of_a_peer_are_named() {
        let (_folder, sources) =
            file("[[peers.static]]\nregion = \"eu\"\naddress = \"e:1\"\nport = 1\n");
        let message = refusal(&sources);
        assert!(message.contains("port"), "{message}");
        assert!(message.contains("peers.static"), "{message}");
        assert!(message.contains("node.toml"), "{message}");
    }

    #[test]
    fn values_of_the_wrong_kind_name_key_value_and_source() {
        let cases = [
            ("LIKEWISE__ENGINE__SHARDS", "many", "engine.shards"),
            ("LIKEWISE__NODE__REGION", "EU West", "node.region"),
            ("LIKEWISE__CLIENT__LISTEN", "localhost", "client.listen"),
            (
                "LIKEWISE__LOG__ON_SYNC_FAILURE",
                "ignore",
                "log.on_sync_failure",
            ),
            ("LIKEWISE__LOGGING__FORMAT", "xml", "logging.format"),
        ];
        for (name, value, key) in cases {
            let message = refusal(&environment([(name, value)]));
            for part in [name, value, key] {
                assert!(message.contains(part), "{part} in {message}");
            }
        }
        let (_folder, sources) = file("[[peers.static]]\nregion = \"eu\"\naddress = \"e\"\n");
        let message = refusal(&sources);
        assert!(message.contains("no port"), "{message}");
        assert!(message.contains("node.toml"), "{message}");
    }

    #[test]
    fn broken_relations_name_key_value_limit_and_source() {
        let sources = environment([("LIKEWISE__REPLICATION__SILENCE_MS", "1500")]);
        assert_eq!(
            refusal(&sources),
            "replication.silence_ms = 1500 (from the environment variable \
             LIKEWISE__REPLICATION__SILENCE_MS) must be above twice replication.heartbeat_ms = 1000"
        );
        let (_folder, sources) = file("[engine]\nshards = 3\n[reads]\nwait_max_ms = 1\n");
        let message = refusal(&sources);
        assert!(message.contains("engine.shards = 3"), "{message}");
        assert!(
            message.contains("reads.wait_default_ms = 2000 (from the default)"),
            "{message}"
        );
    }

    #[test]
    fn files_that_cannot_be_read_or_parsed_are_named() {
        let sources = Sources {
            file: Some(PathBuf::from("/nowhere/node.toml")),
            ..Sources::default()
        };
        assert!(refusal(&sources).contains("/nowhere/node.toml"));
        let (_folder, sources) = file("[node\n");
        let message = refusal(&sources);
        assert!(message.contains("no valid TOML"), "{message}");
        assert!(message.contains("node.toml"), "{message}");
    }
}
