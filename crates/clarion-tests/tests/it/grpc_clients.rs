//! gRPC clients that others wrote, Python's grpcio and Node's grpc-js: the examples as they are shipped, reflection, the
//! edges of the wire, and the package that users of mikudos gates have. Must not know: our client.

mod gate;
mod pushed;
mod readme;
mod streams;
mod wire;

use crate::clients::{crate_dir, python, run};
use clarion_tests::{Command, Server, target_dir, wait_for};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

fn root() -> PathBuf {
    crate_dir().join("../..").canonicalize().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, kind) = (entry.file_name(), entry.file_type().unwrap());
        if kind.is_dir() && name != "node_modules" && name != "__pycache__" {
            copy(&entry.path(), &to.join(name));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// A folder with a copy of the examples and the protos, the code for Python made by the README's commands.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = target_dir().join("tmp/examples");
        let _ = fs::remove_dir_all(&folder);
        for part in ["examples", "proto"] {
            copy(&root().join(part), &folder.join(part));
        }
        let modules = crate_dir().join("js/node_modules");
        assert!(
            modules.join("@grpc/grpc-js").exists() && modules.join("socket.io").exists(),
            "packages are absent: run ./test.sh, or npm --prefix crates/clarion-tests/js ci"
        );
        let link = folder.join("examples/node/node_modules");
        std::os::unix::fs::symlink(modules.canonicalize().unwrap(), link).unwrap();
        for command in readme::protoc_commands() {
            let args = [folder.to_str().unwrap(), &path(), "bash", "-c", &command];
            run(Path::new("env"), &[&["-C"], &args[..]].concat());
        }
        folder
    })
}

/// The folder with the code that was made for Python.
fn stubs() -> String {
    folder().join("examples/python").to_str().unwrap().to_owned()
}

/// `PATH` with the Python that the tests have.
fn path() -> String {
    let program = python("python");
    let bin = program.parent().unwrap().canonicalize().unwrap();
    format!("PATH={}:{}", bin.display(), std::env::var("PATH").unwrap())
}

fn grpc(server: &Server) -> String {
    server.listener("grpc").to_string()
}

/// Starts a command of the README in the folder of the examples.
fn example(server: &Server, command: &str) -> Command {
    let place = format!("GRPC_SERVER={}", grpc(server));
    let args = ["-C", folder().to_str().unwrap(), &path(), &place, "bash", "-c", command];
    Command::start_listening("env", args)
}

/// Starts an example that reads and waits until its stream is open.
fn reader(server: &Server, command: &str) -> Command {
    let reader = example(server, command);
    until_told(&reader, "# open");
    reader
}

/// Passes over what an example tells until this.
fn until_told(command: &Command, start: &str) {
    while !command.error_line().starts_with(start) {}
}

/// So many lines that several readers print between them.
fn together(readers: &[&Command], count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    wait_for("the readers to print all", || {
        lines.extend(readers.iter().flat_map(|reader| reader.lines_so_far()));
        lines.len() >= count
    });
    lines
}

/// Runs an example that sends to its end; its lines.
fn sent(server: &Server, command: &str) -> Vec<String> {
    let mut sender = example(server, command);
    let lines = sender.rest();
    let status = sender.wait();
    assert!(status.success(), "{command}: {status}: {:?}", sender.errors());
    lines
}

/// The languages of the examples.
#[derive(Clone, Copy)]
enum Language {
    Python,
    Node,
}

impl Language {
    /// The command of an example.
    fn command(self, example: &str, args: &str) -> String {
        match self {
            Self::Python => format!("python examples/python/{example}.py {args}"),
            Self::Node => format!("node examples/node/{example}.mjs {args}"),
        }
    }

    /// Says which client has done what.
    fn tell(self, done: &str) {
        static PYTHON: OnceLock<String> = OnceLock::new();
        static NODE: OnceLock<String> = OnceLock::new();
        let version = match self {
            Self::Python => PYTHON.get_or_init(|| {
                let script = "import grpc; print('grpcio', grpc.__version__)";
                run(&python("python"), &["-c", script])
            }),
            Self::Node => NODE.get_or_init(|| {
                let package = crate_dir().join("js/node_modules/@grpc/grpc-js/package.json");
                let text = fs::read_to_string(package).unwrap();
                let package: serde_json::Value = serde_json::from_str(&text).unwrap();
                format!("@grpc/grpc-js {}", package["version"].as_str().unwrap())
            }),
        };
        println!("{}: {done}", version.trim());
    }
}
