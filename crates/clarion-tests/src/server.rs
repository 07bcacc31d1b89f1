//! Server processes. Invariants: a server binds its listeners to a loopback address of its own, so it comes back on the same
//! ports after a restart whatever else runs; it dies with the thread that started it; its standard error is kept in a
//! file.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{self, Child, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use clarion_client::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{binary::binary, binary::target_dir, wait_for};

/// All listeners that there are.
const LISTENERS: [&str; 8] =
    ["http", "grpc", "mqtt", "mqtts", "message-sync", "dino", "mqant", "mqant-ws"];

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    sets: Vec<(String, String)>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    data: Option<PathBuf>,
    preload: Option<PathBuf>,
    binary: Option<PathBuf>,
}

/// A start that ended instead.
#[derive(Debug)]
pub struct FailedStart {
    /// How.
    pub status: ExitStatus,
    /// What it said.
    pub stderr: String,
}

/// A running server, or one that was killed and can be restarted.
#[derive(Debug)]
pub struct Server {
    setup: Builder,
    work: Option<TempDir>,
    child: Child,
    ready: Ready,
}

#[derive(Debug, Clone, Deserialize)]
struct Ready {
    pid: u32,
    listeners: BTreeMap<String, SocketAddr>,
}

impl Builder {
    /// One key of the configuration.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.sets.push((key.into(), value.into()));
        self
    }

    /// One variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// One more argument of `serve`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Another data directory than a new one; the caller removes it.
    #[must_use]
    pub fn data(mut self, dir: &Path) -> Self {
        self.data = Some(dir.into());
        self
    }

    /// A library for `LD_PRELOAD`.
    #[must_use]
    pub fn preload(mut self, library: &Path) -> Self {
        self.preload = Some(library.into());
        self
    }

    /// Another binary than the one under test.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Starts it and waits until it is ready; panics, with what it said, when it ends instead.
    pub fn start(self) -> Server {
        self.try_start().unwrap_or_else(|failed| {
            panic!("the server did not start: {}\n{}", failed.status, failed.stderr)
        })
    }

    /// Starts it and waits until it is ready or has ended.
    pub fn try_start(mut self) -> Result<Server, FailedStart> {
        let tmp = target_dir().join("tmp");
        fs::create_dir_all(&tmp).expect("the target directory is writable");
        let work = tempfile::Builder::new().prefix("server-").tempdir_in(&tmp);
        let work = work.expect("the target directory is writable");
        self.bind_to(&own_address());
        let child = self.spawn(work.path());
        let mut server = Server {
            setup: self,
            work: Some(work),
            child,
            ready: Ready { pid: 0, listeners: BTreeMap::new() },
        };
        match server.wait_ready() {
            Ok(()) => Ok(server),
            Err(status) => Err(FailedStart { status, stderr: server.stderr() }),
        }
    }

    /// Every listener, open or not, that was not given a place takes a free port of this address.
    fn bind_to(&mut self, address: &str) {
        for listener in LISTENERS {
            let key = format!("listeners.{listener}.bind");
            if !self.sets.iter().any(|(set, _)| *set == key) {
                self.sets.push((key, format!("{address}:0")));
            }
        }
    }

    fn spawn(&self, work: &Path) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(work.join("stderr"));
        let data = self.data.clone().unwrap_or_else(|| work.join("data"));
        let _ = fs::remove_file(work.join("ready"));
        // setpriv sets PR_SET_PDEATHSIG and becomes the server: no server outlives a test that was killed.
        let mut command = process::Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(self.binary.as_deref().unwrap_or_else(|| binary())).arg("serve");
        command.arg("--ready-file").arg(work.join("ready")).arg("--data").arg(data);
        for (key, value) in &self.sets {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.args(&self.args).envs(self.env.iter().cloned());
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library);
        }
        command.current_dir(work).stdin(Stdio::null());
        command
            .stdout(File::create(work.join("stdout")).expect("the target directory is writable"));
        command.stderr(log.expect("the target directory is writable"));
        command.spawn().expect("setpriv (util-linux) and the server's binary run")
    }
}

/// A loopback address that no other server of this test process has.
fn own_address() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{}", 1 + process::id() % 250, n / 250 % 250, 2 + n % 250)
}

impl Server {
    /// With defaults.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// With more.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The HTTP listener's address.
    pub fn addr(&self) -> SocketAddr {
        self.listener("http")
    }

    /// A listener's address.
    pub fn listener(&self, name: &str) -> SocketAddr {
        *self.ready.listeners.get(name).unwrap_or_else(|| panic!("the listener {name} is not open"))
    }

    /// The names of the listeners that are open.
    pub fn listeners(&self) -> Vec<&str> {
        self.ready.listeners.keys().map(String::as_str).collect()
    }

    /// The HTTP listener's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// A new client, with connections of its own.
    pub fn client(&self) -> Client {
        Client::new(self.url().parse().expect("an address makes a URL"))
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.ready.pid
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.setup.data.clone().unwrap_or_else(|| self.work_dir().join("data"))
    }

    /// All that it and its predecessors wrote to standard error.
    pub fn stderr(&self) -> String {
        let bytes = fs::read(self.work_dir().join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What it wrote to standard output since its last start.
    pub fn stdout(&self) -> String {
        fs::read_to_string(self.work_dir().join("stdout")).unwrap_or_default()
    }

    /// Most memory the process had, in KiB.
    pub fn peak_rss_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// Memory that the process has, in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits for the end.
    pub fn kill9(&mut self) {
        self.child.kill().expect("own child");
        let status = self.child.wait().expect("own child");
        assert!(status.signal() == Some(9) || status.code().is_some(), "{status}");
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("own child");
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let child = &mut self.child;
        wait_for("the server's end", || {
            status = child.try_wait().expect("own child");
            status.is_some()
        });
        status.expect("waited for")
    }

    /// Starts it again on the same data and the same ports; kills it first if it still runs. To be called on the thread
    /// that started it: the process dies with the thread that called this last.
    pub fn restart(&mut self) {
        if let Err(status) = self.try_restart() {
            panic!("the server did not start again: {status}\n{}", self.stderr());
        }
    }

    /// The same, for a start that may fail.
    pub fn try_restart(&mut self) -> Result<(), ExitStatus> {
        if self.is_running() {
            self.kill9();
        }
        for (name, address) in &self.ready.listeners {
            let key = format!("listeners.{name}.bind");
            self.setup.sets.retain(|(set, _)| *set != key);
            self.setup.sets.push((key, address.to_string()));
        }
        self.child = self.setup.spawn(self.work_dir());
        self.wait_ready()
    }

    /// Changes what the next restart is given.
    pub fn reconfigure(&mut self, change: impl FnOnce(Builder) -> Builder) {
        self.setup = change(std::mem::take(&mut self.setup));
    }

    fn wait_ready(&mut self) -> Result<(), ExitStatus> {
        let file = self.work_dir().join("ready");
        let mut ended = None;
        let child = &mut self.child;
        wait_for("the server's ready file", || {
            ended = child.try_wait().expect("own child");
            ended.is_some() || file.exists()
        });
        if let Some(status) = ended {
            return Err(status);
        }
        let text = fs::read(&file).expect("the ready file is readable");
        self.ready = serde_json::from_slice(&text).expect("the ready file is JSON as documented");
        assert_eq!(self.ready.pid, self.child.id(), "the ready file names the process");
        Ok(())
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a known field");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn work_dir(&self) -> &Path {
        self.work.as_ref().expect("only the drop takes it").path()
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "a failed test tells where its data is")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            return;
        }
        let stderr = self.stderr();
        if let Some(work) = self.work.take() {
            let lines: Vec<&str> = stderr.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!(
                "the server's data is kept in {}; its last lines:\n{tail}",
                work.keep().display()
            );
        }
    }
}
