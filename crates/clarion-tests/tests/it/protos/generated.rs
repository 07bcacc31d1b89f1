//! The protobuf code of clarion-wire is what proto/ says. Invariant: the same files give the same bytes, and no program is
//! needed but rustfmt.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use prost_build::{Config, Module};
use protox::{Compiler, prost_reflect::MethodDescriptor};

/// Set in the environment, it makes the test write what is not current.
const UPDATE: &str = "UPDATE_GENERATED";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where the proto files are.
pub(super) fn proto_folder() -> PathBuf {
    root().join("proto")
}

/// The proto files, by their path below `folder`.
pub(super) fn proto_files(folder: &Path) -> Vec<String> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

fn compiler(folder: &Path, comments: bool) -> Compiler {
    let mut compiler = Compiler::new([folder]).unwrap();
    compiler.include_imports(true).include_source_info(comments);
    compiler.open_files(proto_files(folder)).unwrap_or_else(|e| panic!("{e:?}"));
    compiler
}

/// `PATH CLIENT_STREAMS SERVER_STREAMS` of every method.
pub(super) fn methods() -> BTreeSet<String> {
    let pool = compiler(&proto_folder(), false).descriptor_pool();
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let line = |method: MethodDescriptor| {
        let (service, name) = (method.parent_service().full_name(), method.name());
        let streams = (method.is_client_streaming(), method.is_server_streaming());
        format!("/{service}/{name} {} {}", streams.0, streams.1)
    };
    methods.map(line).collect()
}

fn rustfmt(text: &str) -> String {
    let mut command = Command::new("rustfmt");
    command.args(["--edition", "2024", "--config-path"]).arg(root().join("rustfmt.toml"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // It reads everything before it writes.
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "rustfmt: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that is generated, by file name.
fn generate() -> BTreeMap<String, Vec<u8>> {
    let folder = proto_folder();
    let set = compiler(&folder, true).file_descriptor_set();
    let mut sources: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in &set.file {
        sources.entry(file.package().to_owned()).or_default().push(file.name().to_owned());
    }
    let module = |package: &str| Module::from_protobuf_package_name(package);
    let requests = set.file.into_iter().map(|file| (module(file.package()), file)).collect();
    let mut config = Config::new();
    let code = config.bytes(["."]).btree_map(["."]).generate(requests).unwrap();
    let mut files = BTreeMap::new();
    for (package, names) in sources {
        // The one file without a package gives the name.
        let name = if package.is_empty() { "push".to_owned() } else { package.replace('.', "_") };
        let header = format!("//! Generated from {}; see the module above.\n\n", names.join(", "));
        let text = rustfmt(&(header + &code[&module(&package)]));
        files.insert(format!("{name}.rs"), text.into_bytes());
    }
    let descriptors = compiler(&folder, false).encode_file_descriptor_set();
    files.insert("descriptors.bin".to_owned(), descriptors);
    files
}

#[test]
fn generated_code_is_current() {
    let folder = root().join("crates/clarion-wire/src/proto");
    let update = env::var_os(UPDATE).is_some();
    let expected = generate();
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: BTreeMap<String, Vec<u8>> = entries
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect();
    let mut stale = Vec::new();
    for (name, bytes) in &expected {
        if found.remove(name).as_ref() == Some(bytes) {
            continue;
        }
        if update {
            fs::write(folder.join(name), bytes).unwrap();
        }
        stale.push(name.as_str());
    }
    for name in found.keys() {
        if update {
            fs::remove_file(folder.join(name)).unwrap();
        }
        stale.push(name.as_str());
    }
    assert!(
        update || stale.is_empty(),
        "{stale:?} in {} are not what proto/ says; this writes them:\n\
         {UPDATE}=1 cargo test -p clarion-tests --test it generated_code_is_current",
        folder.display()
    );
}
