//! `config`: writes, checks and shows what an operator may decide about a node.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use figment::value::{Dict, Empty, Value};
use serde_json::json;

use super::serve::SourceArgs;
use super::{EXIT_FAILED, Output};
use crate::config::{self, COMPLETE_FILE, Effective};
use crate::display::output;
use crate::display::table::{Align, Table};

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Write a file with every key, its default and what it means; nothing is overwritten
    Init {
        /// Where to write it
        #[arg(default_value = "node.toml")]
        file: PathBuf,
    },
    /// Say everything that is wrong; exit code 0 if nothing is, else 1
    Check {
        #[command(flatten)]
        sources: SourceArgs,
    },
    /// Show the values that hold, each with its origin
    Show {
        #[command(flatten)]
        sources: SourceArgs,
        /// How to answer
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

pub fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        ConfigCommand::Init { file } => init(&file),
        ConfigCommand::Check { sources } => check(&sources),
        ConfigCommand::Show { sources, output } => show(&sources, output),
    }
}

fn init(path: &PathBuf) -> anyhow::Result<ExitCode> {
    let shown = path.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{shown} is there already and is left as it is; name another file")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {shown}")),
    };
    file.write_all(COMPLETE_FILE.as_bytes())
        .with_context(|| format!("cannot write {shown}"))?;
    output::line(format!(
        "{shown} is written; start a node with: likewise serve --config {shown}"
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn check(sources: &SourceArgs) -> anyhow::Result<ExitCode> {
    let problems = config::problems(&sources.sources());
    if problems.is_empty() {
        output::line("the configuration is sound")?;
        return Ok(ExitCode::SUCCESS);
    }
    for problem in &problems {
        output::complain(crate::causes::told(problem));
    }
    Ok(ExitCode::from(EXIT_FAILED))
}

fn show(sources: &SourceArgs, how: Output) -> anyhow::Result<ExitCode> {
    let all = config::effective(&sources.sources())?;
    match how {
        Output::Table => output::lines(&table(&all).lines())?,
        Output::Json => {
            let entry = |effective: &Effective| {
                json!({
                    "key": effective.key, "value": effective.value, "origin": effective.origin,
                })
            };
            output::line(all.iter().map(entry).collect::<serde_json::Value>())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(all: &[Effective]) -> Table {
    let mut table = Table::new([
        ("KEY", Align::Left),
        ("VALUE", Align::Left),
        ("ORIGIN", Align::Left),
    ]);
    for effective in all {
        table.row([
            effective.key.clone(),
            written(&effective.value),
            effective.origin.clone(),
        ]);
    }
    table
}

/// A value as it would stand in a file; `-` for none.
fn written(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, character) => format!("{:?}", character.to_string()),
        Value::Bool(_, bool) => bool.to_string(),
        Value::Num(_, number) => number_text(*number),
        Value::Empty(_, Empty::None | Empty::Unit) => "-".to_owned(),
        Value::Array(_, values) => {
            let values: Vec<String> = values.iter().map(written).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Dict(_, dict) => {
            let pair = |(key, value): (&String, &Value)| format!("{key} = {}", written(value));
            let pairs: Vec<String> = Dict::iter(dict).map(pair).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

fn number_text(number: figment::value::Num) -> String {
    let whole = number.to_u128().map(|number| number.to_string());
    let signed = || number.to_i128().map(|number| number.to_string());
    let broken = || number.to_f64().map(|number| number.to_string());
    whole.or_else(signed).or_else(broken).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_a_file_has_them() {
        let peer = Dict::from([("region".to_owned(), Value::from("eu"))]);
        let cases = [
            (Value::from("a \"b\""), r#""a \"b\"""#),
            (Value::from(7_u64), "7"),
            (Value::from(-7), "-7"),
            (Value::from(true), "true"),
            (Value::from(vec![peer]), r#"[{ region = "eu" }]"#),
            (Value::from(Empty::None), "-"),
        ];
        for (value, text) in cases {
            assert_eq!(written(&value), text);
        }
    }
}
