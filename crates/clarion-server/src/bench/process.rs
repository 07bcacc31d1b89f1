//! The server's process, seen from outside: CPU seconds and memory from /proc. Must not know: what it serves.

use std::{fs, io, net::SocketAddr, path::Path};

/// The unit of CPU times in /proc/PID/stat: USER_HZ, fixed by the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerProcess {
    pid: u32,
}

impl ServerProcess {
    /// By its number, its ready file, or the socket that listens there; `None` when it is not on this machine, or
    /// another user's.
    pub(super) fn find(
        pid: Option<u32>,
        ready_file: Option<&Path>,
        at: SocketAddr,
    ) -> io::Result<Option<Self>> {
        if let Some(pid) = pid {
            return Ok(Some(Self { pid }));
        }
        if let Some(file) = ready_file {
            let odd = |what: &str| io::Error::other(format!("{}: {what}", file.display()));
            let ready: serde_json::Value =
                serde_json::from_slice(&fs::read(file)?).map_err(|e| odd(&e.to_string()))?;
            let pid = ready["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            return Ok(Some(Self { pid: pid.ok_or_else(|| odd("no pid"))? }));
        }
        if !at.ip().is_loopback() {
            return Ok(None);
        }
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let inode = tables
            .iter()
            .find_map(|table| listener_inode(&fs::read_to_string(table).ok()?, at.port()));
        Ok(inode.and_then(|inode| owner(&format!("socket:[{inode}]"))))
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU time used so far, by all threads, in user and kernel mode.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        cpu_ticks(&stat).map(|ticks| ticks as f64 / TICKS_PER_SECOND)
    }

    /// Resident memory now.
    pub(super) fn rss_kib(&self) -> Option<u64> {
        self.status("VmRSS:")
    }

    /// The most there was since [`Self::reset_peak`].
    pub(super) fn peak_rss_kib(&self) -> Option<u64> {
        self.status("VmHWM:")
    }

    /// Forgets the peak; without the right to, the peak is that of the process's whole life.
    pub(super) fn reset_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.pid), "5");
    }

    fn status(&self, field: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

/// utime + stime: the 14th and 15th field; the second, the name, may hold anything up to its last parenthesis.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

/// The inode of the socket in state LISTEN (0A) on this port.
fn listener_inode(table: &str, port: u16) -> Option<u64> {
    let wanted = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(3) == Some(&"0A") && fields.get(1)?.ends_with(&wanted);
        listens.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

fn owner(socket: &str) -> Option<ServerProcess> {
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds =
            |file: fs::DirEntry| fs::read_link(file.path()).is_ok_and(|l| l.as_os_str() == socket);
        if files.flatten().any(holds) {
            return Some(ServerProcess { pid });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_process_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 250 31 0 0 20 0";
        assert_eq!(cpu_ticks(&stat.replace("11 250", "250")), Some(281));
        assert_eq!(cpu_ticks("7 (x"), None);
    }

    #[test]
    fn the_owner_of_a_listening_socket_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found =
            ServerProcess::find(None, None, listener.local_addr().unwrap()).unwrap().unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(found.rss_kib().unwrap() > 100);
        assert!(found.peak_rss_kib().unwrap() >= 100);
        assert!(found.cpu_seconds().is_some());
    }
}
