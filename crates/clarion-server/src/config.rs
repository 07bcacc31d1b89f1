//! Configuration: sources in, one valid [`Config`] or all problems out.
//!
//! Sources, later ones win: defaults, a YAML file, the file of a mikudos-message-pusher, the environment
//! (`CLARION_A__B`), `--set a.b=c`, `--data` and `--speak`. Every source is an argument here; nothing reads the environment or a file behind a caller's back except
//! [`read_file`]. Unknown keys, wrong types, values out of range and contradictions are problems, each with its path and
//! source. Must not know: what the values are used for.

mod check;
pub(crate) mod cidr;
pub(crate) mod kinds;
pub(crate) mod listeners;
pub(crate) mod mikudos_file;
pub(crate) mod principals;
mod reader;
pub(crate) mod render;
mod rules;
pub(crate) mod sections;
mod suggest;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod tree;

pub(crate) use reader::Problem;
use reader::{At, Reader, Section, Table};
pub(crate) use rules::read_rules_file;
pub(crate) use sections::Config;
pub(crate) use tree::Origin;

use listeners::{Dialect, check_built};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};
use tree::{Flat, Known, Node, flatten, parse_yaml, unknown_key};

/// The text in front of the names of environment variables.
const ENV_PREFIX: &str = "CLARION_";

/// A configuration file's name and text.
#[derive(Debug, Clone)]
pub(crate) struct FileSource {
    /// For messages.
    pub(crate) name: String,
    /// What it says.
    pub(crate) text: String,
}

/// Everything that may say something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// `--config`.
    pub(crate) file: Option<FileSource>,
    /// `--mikudos-config`.
    pub(crate) mikudos_file: Option<FileSource>,
    /// The environment; other names than `CLARION_…` are ignored, but for `SERVICE_PORT` beside `--mikudos-config`.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Each `--set`.
    pub(crate) sets: Vec<String>,
    /// `--data`.
    pub(crate) data: Option<PathBuf>,
    /// Each `--speak`, names with commas between them.
    pub(crate) speak: Vec<String>,
}

impl Config {
    /// What holds when nobody says anything.
    pub(crate) fn defaults() -> (Self, Table) {
        let flat = Flat::new();
        let mut reader = Reader::new(&flat);
        let config = Self::read(&mut reader, "");
        (config, reader.finish().0)
    }

    /// Reads all sources; the problems are all that there are.
    pub(crate) fn load(sources: &Sources) -> Result<Self, Vec<Problem>> {
        let (_, known) = Self::defaults();
        let mut problems = Vec::new();
        let mut flat = Flat::new();
        if let Some(file) = &sources.file {
            match parse_yaml(&file.text, &file.name, false) {
                Ok(root) => flat = flatten(root, &known, &mut problems),
                Err(error) => {
                    problems.push(Problem::new("", error, &Origin::untyped(&file.name)));
                }
            }
        }
        let mikudos = sources.mikudos_file.as_ref().map(|file| {
            let wanted = mikudos_file::PORT_VARIABLE;
            let port = sources.env.iter().find(|(name, _)| name == wanted);
            let port = port.map(|(_, value)| value.as_os_str());
            mikudos_file::translate(file, port, &mut flat, &mut problems)
        });
        read_environment(&sources.env, &known, &mut flat, &mut problems);
        read_sets(&sources.sets, &known, &mut flat, &mut problems);
        if let Some(data) = &sources.data {
            match data.to_str() {
                Some(text) => {
                    flat.insert("data_dir".into(), Node::untyped(text, "--data"));
                }
                None => problems.push(not_utf8("data_dir", "--data")),
            }
        }
        let notices = mikudos.map(|file| file.finish(&flat, &mut problems));
        let spoken = read_speak(&sources.speak, &mut problems);
        let mut reader = Reader::new(&flat);
        let mut config = Self::read(&mut reader, "");
        config.mikudos_file = notices;
        for dialect in spoken {
            config.speak(dialect);
        }
        check::check(&config, &mut reader);
        problems.extend(reader.finish().1);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Switches a dialect on where it is at home.
    fn speak(&mut self, dialect: Dialect) {
        for listener in &mut self.listeners {
            if dialect.homes().contains(&listener.name) && !listener.speaks.contains(&dialect) {
                listener.speaks.push(dialect);
            }
        }
    }
}

/// Reads `--config`.
pub(crate) fn read_file(path: &Path) -> Result<FileSource, Problem> {
    let name = path.display().to_string();
    let problem = |text: String| Problem::new("", text, &Origin::untyped(&name));
    let file = File::open(path).map_err(|error| problem(format!("cannot be opened: {error}")))?;
    let mut text = String::new();
    // One byte more than allowed, so that "too long" is seen without reading it all.
    file.take(tree::FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| problem(format!("cannot be read: {error}")))?;
    if text.len() as u64 > tree::FILE_BYTES_MAX {
        return Err(problem(format!("is longer than {} bytes", tree::FILE_BYTES_MAX)));
    }
    Ok(FileSource { name, text })
}

fn not_utf8(path: &str, source: &str) -> Problem {
    Problem::new(path, "is not UTF-8", &Origin::untyped(source))
}

/// The name of a key's environment variable: `limits.body_bytes` → `CLARION_LIMITS__BODY_BYTES`.
pub(crate) fn env_name(path: &str) -> String {
    format!("{ENV_PREFIX}{}", path.replace('.', "__").replace('-', "_").to_uppercase())
}

/// Names with `__` are ours. Others are only ours when they are, or nearly are, the name of a key at the top: an
/// orchestrator puts variables such as `CLARION_PORT` there for a service called `clarion`.
fn read_environment(
    env: &[(OsString, OsString)],
    known: &Table,
    flat: &mut Flat,
    problems: &mut Vec<Problem>,
) {
    let mut env: Vec<(&str, &OsStr)> = env
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?, value.as_os_str())))
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
        .collect();
    env.sort_unstable();
    for (name, value) in env {
        let wanted = |path: &&str| known.is_key(path) && env_name(path) == name;
        let Some(path) = known.paths().into_iter().find(wanted) else {
            let path = name[ENV_PREFIX.len()..].replace("__", ".").to_lowercase();
            let near = suggest::nearest(&path, &["data_dir"]).is_some();
            if name.contains("__") || near {
                let mut problem = unknown_key(&path, known, &Origin::untyped(name));
                problem.text = problem.text.replace("unknown key", "no key has this variable");
                problems.push(problem);
            }
            continue;
        };
        match value.to_str() {
            Some(text) => {
                flat.insert(path.to_owned(), Node::untyped(text, name));
            }
            None => problems.push(not_utf8(path, name)),
        }
    }
}

fn read_sets(sets: &[String], known: &Table, flat: &mut Flat, problems: &mut Vec<Problem>) {
    for set in sets {
        let Some((path, text)) = set.split_once('=') else {
            let text = format!("expected --set key=value, found '{}'", tree::clip(set));
            problems.push(Problem::new("", text, &Origin::untyped("--set")));
            continue;
        };
        let path = path.trim();
        if known.is_key(path) {
            flat.insert(path.to_owned(), Node::untyped(text, "--set"));
        } else if known.is_section(path) {
            let text = "is a section of keys; set one of them";
            problems.push(Problem::new(path, text, &Origin::untyped("--set")));
        } else {
            problems.push(unknown_key(path, known, &Origin::untyped("--set")));
        }
    }
}

/// The dialects that `--speak` can name besides what is always there.
const SPEAKABLE: [Dialect; 6] = [
    Dialect::Mikudos,
    Dialect::MessageSync,
    Dialect::Mqtt,
    Dialect::Dino,
    Dialect::Mage,
    Dialect::Mqant,
];

fn read_speak(speak: &[String], problems: &mut Vec<Problem>) -> Vec<Dialect> {
    let mut spoken: Vec<Dialect> = Vec::new();
    let names = speak.iter().flat_map(|names| names.split(',')).map(str::trim);
    for name in names.filter(|name| !name.is_empty()) {
        let wanted = match name {
            "all" => Ok(SPEAKABLE.to_vec()),
            name => Dialect::parse(name).map(|dialect| vec![dialect]),
        };
        let checked = wanted.and_then(|wanted| check_built(&wanted).map(|()| wanted));
        match checked {
            Ok(wanted) => spoken.extend(wanted),
            Err(error) => {
                let text = format!("'{}': {error}", tree::clip(name));
                problems.push(Problem::new("", text, &Origin::untyped("--speak")));
            }
        }
    }
    spoken
}
