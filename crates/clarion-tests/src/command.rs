//! Commands that run beside a test: `clarion listen` and the like, or any program. Invariants: each dies with its test; its
//! lines are read as they come and kept, up to a bound.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    process::{self, Child, ChildStdin, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{DEADLINE, binary, wait_for};

/// Lines that may wait for the test; a command that writes more has to wait too.
const LINES_MAX: usize = 100_000;

/// A running command.
#[derive(Debug)]
pub struct Command {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Command {
    /// Runs `clarion` with these arguments and waits for its end.
    pub fn clarion<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Output {
        let output = process::Command::new(binary()).args(args).stdin(Stdio::null()).output();
        output.expect("the binary runs")
    }

    /// Starts `clarion` with these arguments.
    pub fn start_clarion<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Self {
        Self::start(binary(), args)
    }

    /// Starts any program.
    pub fn start<I: IntoIterator<Item: AsRef<OsStr>>>(program: impl AsRef<OsStr>, args: I) -> Self {
        Self::start_with(program, args, Stdio::null())
    }

    /// Starts any program that reads what it is told by [`Self::say`].
    pub fn start_listening<I: IntoIterator<Item: AsRef<OsStr>>>(
        program: impl AsRef<OsStr>,
        args: I,
    ) -> Self {
        Self::start_with(program, args, Stdio::piped())
    }

    fn start_with<I: IntoIterator<Item: AsRef<OsStr>>>(
        program: impl AsRef<OsStr>,
        args: I,
        input: Stdio,
    ) -> Self {
        let name = program.as_ref().to_string_lossy().into_owned();
        let mut command = process::Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("setpriv (util-linux) runs");
        let out = lines(child.stdout.take().expect("piped"));
        let err = lines(child.stderr.take().expect("piped"));
        let input = child.stdin.take();
        Self { name, child, input, out, err }
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("started by start_listening");
        input.write_all(format!("{line}\n").as_bytes()).expect("it reads");
    }

    /// The next line of standard output; panics when there is none within the deadline.
    pub fn line(&self) -> String {
        self.next(&self.out).unwrap_or_else(|| panic!("{} ended: {:?}", self.name, self.errors()))
    }

    /// The next line of standard error; panics when there is none within the deadline.
    pub fn error_line(&self) -> String {
        self.next(&self.err).unwrap_or_else(|| panic!("{} ended", self.name))
    }

    /// Lines of standard output up to its end.
    pub fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next(&self.out)).collect()
    }

    /// Lines of standard error up to its end.
    pub fn rest_of_errors(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next(&self.err)).collect()
    }

    /// Lines of standard output that are there.
    pub fn lines_so_far(&self) -> Vec<String> {
        self.out.try_iter().collect()
    }

    /// Lines of standard error that are there.
    pub fn errors(&self) -> Vec<String> {
        self.err.try_iter().collect()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGINT, as Ctrl-C sends it.
    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("own child");
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let child = &mut self.child;
        wait_for("a command's end", || {
            status = child.try_wait().expect("own child");
            status.is_some()
        });
        status.expect("waited for")
    }

    fn next(&self, from: &Receiver<String>) -> Option<String> {
        match from.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!(
                    "{} wrote no line within {DEADLINE:?}; errors: {:?}",
                    self.name,
                    self.errors()
                )
            }
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}
