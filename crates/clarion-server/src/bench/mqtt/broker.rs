//! The brokers that are measured: one that runs already, or one that is started here and ends with the measurement; and
//! how either is killed and started again.
//!
//! Invariants: what is started here listens on a free loopback port, keeps its data in a new directory that goes with it, and
//! dies with this process. Must not know: what is measured.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, geteuid, kill_process, pidfd_open},
};

use super::super::{BenchError, process::ServerProcess};

/// How long a broker may take to be there.
const START: Duration = Duration::from_secs(30);
/// How often it is looked for meanwhile.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// How much of what a broker says is told when it does not start.
const SAID_MAX: usize = 2000;

/// What connections to it look like.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dress {
    pub(super) tls: bool,
    pub(super) websocket: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) at: SocketAddr,
    pub(super) process: Option<ServerProcess>,
    /// If it was started here.
    running: Option<Running>,
    /// The last command that started one again which was not.
    restart: Option<Child>,
}

/// When Mosquitto saves its data; what is not said is as it is by itself.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Autosave {
    /// Mosquitto's autosave_interval: seconds, or changes with --autosave-on-changes.
    #[arg(long, value_name = "N")]
    autosave_interval: Option<u32>,
    /// Mosquitto's autosave_on_changes.
    #[arg(long)]
    autosave_on_changes: bool,
}

impl Broker {
    /// One that runs already.
    pub(super) fn running(at: SocketAddr, process: Option<ServerProcess>) -> Self {
        Self { at, process, running: None, restart: None }
    }

    /// Debian's Mosquitto, with room for everything and, unless it is to save, nothing on disk.
    pub(super) fn mosquitto(dress: Dress, saves: Option<&Autosave>) -> Result<Self, BenchError> {
        let dir = Dir::new("mosquitto")?;
        let at = free_port()?;
        let config = dir.path().join("mosquitto.conf");
        fs::write(&config, mosquitto_config(at, dress, saves, &dir)?)?;
        let mut command = guarded("mosquitto");
        command.arg("-c").arg(&config);
        Self::start(command, "mosquitto", dir, Place::Port(at))
    }

    /// This executable as a server, with these settings.
    pub(super) fn clarion(dress: Dress, settings: &[String]) -> Result<Self, BenchError> {
        let dir = Dir::new("clarion")?;
        let ready = dir.path().join("ready");
        let mut command = guarded(std::env::current_exe()?);
        command.args(["serve", "--speak", "mqtt", "--data"]).arg(dir.path().join("data"));
        command.arg("--ready-file").arg(&ready);
        for name in ["http", "grpc", "mqtt"] {
            command.arg("--set").arg(format!("listeners.{name}.bind=127.0.0.1:0"));
        }
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        if dress.tls {
            let (certificate, key) = certificate(&dir)?;
            for (name, file) in [("cert", certificate), ("key", key)] {
                command.arg("--set").arg(format!("listeners.mqtt.tls.{name}={}", file.display()));
            }
        }
        Self::start(command, "clarion", dir, Place::ReadyFile(ready))
    }

    fn start(
        mut command: Command,
        name: &'static str,
        dir: Dir,
        place: Place,
    ) -> Result<Self, BenchError> {
        let errors = dir.path().join("stderr");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&errors)?);
        let child = spawn(&mut command)?;
        let mut running = Running { child, command, name, errors, place, _dir: dir };
        let at = running.wait()?;
        let process = ServerProcess::find(Some(running.child.id()), None, at)?;
        Ok(Self { at, process, running: Some(running), restart: None })
    }

    /// SIGKILL; it is dead afterwards.
    pub(super) fn kill(&mut self) -> Result<(), BenchError> {
        if let Some(running) = &mut self.running {
            running.kill();
            return Ok(());
        }
        let unknown = || BenchError::Other("the server's process is not known (--pid)".into());
        let process = self.process.take().ok_or_else(unknown)?;
        let raw = i32::try_from(process.pid()).ok();
        let pid = raw.and_then(Pid::from_raw).ok_or_else(unknown)?;
        let end = pidfd_open(pid, PidfdFlags::empty())?;
        kill_process(pid, Signal::KILL)?;
        let patience = Timespec::try_from(START).ok();
        poll(&mut [PollFd::new(&end, PollFlags::IN)], patience.as_ref())?;
        Ok(())
    }

    /// After [`Self::kill`]: on the same data, by this command if it was not started here. It accepts
    /// afterwards.
    pub(super) fn start_again(&mut self, command: Option<&str>) -> Result<(), BenchError> {
        match (&mut self.running, command) {
            (Some(running), _) => {
                if let Place::ReadyFile(file) = &running.place {
                    fs::remove_file(file)?;
                }
                running.child = spawn(&mut running.command)?;
                self.at = running.wait()?;
                self.process = ServerProcess::find(Some(running.child.id()), None, self.at)?;
                Ok(())
            }
            (None, Some(command)) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null());
                let started = shell.spawn().map_err(|e| no_start("sh", &e.to_string()))?;
                self.process = Some(wait_for_listener(self.restart.insert(started), self.at)?);
                Ok(())
            }
            (None, None) => Err(no_start("the broker", "there is no --restart-command")),
        }
    }
}

/// Where a broker says that it accepts.
#[derive(Debug)]
enum Place {
    /// It writes its addresses there.
    ReadyFile(PathBuf),
    /// It listens there. Not found by connecting: as long as nobody listens there, that may connect to itself.
    Port(SocketAddr),
}

impl Place {
    fn at(&self) -> Option<SocketAddr> {
        match self {
            Self::ReadyFile(file) => {
                let ready: serde_json::Value =
                    serde_json::from_slice(&fs::read(file).ok()?).ok()?;
                ready["listeners"]["mqtt"].as_str()?.parse().ok()
            }
            Self::Port(at) => ServerProcess::find(None, None, *at).ok().flatten().map(|_| *at),
        }
    }
}

fn spawn(command: &mut Command) -> Result<Child, BenchError> {
    command.spawn().map_err(|e| no_start("setpriv (util-linux)", &e.to_string()))
}

fn no_start(what: &str, why: &str) -> BenchError {
    BenchError::Other(format!("{what} does not start: {why}"))
}

/// The process that listens there, as soon as one does.
fn wait_for_listener(command: &mut Child, at: SocketAddr) -> Result<ServerProcess, BenchError> {
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        if let Some(process) = ServerProcess::find(None, None, at)? {
            return Ok(process);
        }
        // It may well end before, when it leaves the server in the background.
        if let Some(status) = command.try_wait()?.filter(|status| !status.success()) {
            return Err(no_start("the broker", &format!("--restart-command ended with {status}")));
        }
        poll(&mut [], Some(&LOOK))?;
    }
    Err(no_start("the broker", &format!("nobody listens at {at}")))
}

/// setpriv sets PR_SET_PDEATHSIG and becomes the program.
fn guarded(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A process that ends when this is dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    command: Command,
    name: &'static str,
    /// What it says.
    errors: PathBuf,
    place: Place,
    _dir: Dir,
}

impl Running {
    /// Waits until it accepts; where.
    fn wait(&mut self) -> Result<SocketAddr, BenchError> {
        let end = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let deadline = Instant::now() + START;
        loop {
            if let Some(at) = self.place.at() {
                return Ok(at);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("did not start ({status})")));
            }
            if Instant::now() > deadline {
                return Err(self.failed("does not accept"));
            }
            poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&LOOK))?;
        }
    }

    fn failed(&self, what: &str) -> BenchError {
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        let last = said.len().saturating_sub(SAID_MAX);
        let last = said.get(said.ceil_char_boundary(last)..).unwrap_or_default().trim();
        BenchError::Other(format!("{} {what}: {last}", self.name))
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory that is removed when this is dropped.
#[derive(Debug)]
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> io::Result<Self> {
        let parent = std::env::temp_dir();
        for n in 0..u32::MAX {
            let path = parent.join(format!("clarion-bench-{}-{name}-{n}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ports that systems give to nobody by themselves, so that no connection of before still holds one.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that nobody has: somebody else may take it before the broker does, which then says so.
fn free_port() -> io::Result<SocketAddr> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Several benches at once begin at different ones.
    let first = (process::id() % u32::from(PORTS.end - PORTS.start)) as u16;
    for _ in PORTS {
        let at = first.wrapping_add(TRIED.fetch_add(1, Relaxed)) % (PORTS.end - PORTS.start);
        let address = SocketAddr::from(([127, 0, 0, 1], PORTS.start + at));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free"))
}

fn mosquitto_config(
    at: SocketAddr,
    dress: Dress,
    saves: Option<&Autosave>,
    dir: &Dir,
) -> Result<String, BenchError> {
    let mut config = String::new();
    if dress.websocket {
        // Mosquitto does not start with a WebSocket listener alone.
        let other = free_port()?;
        config = format!("listener {} {}\n", other.port(), other.ip());
    }
    config += &format!(
        "allow_anonymous true\npersistence {}\nmax_inflight_messages 0\nmax_queued_messages 0\n\
         max_connections -1\nlog_dest stderr\nlog_type error\nlog_type warning\n\
         connection_messages false\nlistener {} {}\n",
        saves.is_some(),
        at.port(),
        at.ip()
    );
    if let Some(saves) = saves {
        config += &saves.config(dir);
    }
    if geteuid().is_root() {
        // Else it becomes a user who cannot read the directory.
        config.push_str("user root\n");
    }
    if dress.websocket {
        config.push_str("protocol websockets\n");
    }
    if dress.tls {
        let (certificate, key) = certificate(dir)?;
        let lines = format!("certfile {}\nkeyfile {}\n", certificate.display(), key.display());
        config.push_str(&lines);
    }
    Ok(config)
}

impl Autosave {
    fn config(&self, dir: &Dir) -> String {
        let mut config = format!("persistence_location {}/\n", dir.path().display());
        if let Some(interval) = self.autosave_interval {
            config += &format!("autosave_interval {interval}\n");
        }
        if self.autosave_on_changes {
            config += "autosave_on_changes true\n";
        }
        config
    }
}

/// A new certificate and its key, signed by nobody else.
fn certificate(dir: &Dir) -> Result<(PathBuf, PathBuf), BenchError> {
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "30", "-newkey", "ec"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]);
    command.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout"]);
    command.arg(&key).arg("-out").arg(&certificate);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| BenchError::Other(format!("openssl does not run: {e}")))?;
    if output.status.success() {
        return Ok((certificate, key));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(BenchError::Other(format!("openssl made no certificate: {}", said.trim())))
}
