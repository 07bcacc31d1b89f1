//! File descriptors: as many as the system gives this process, and a word when they are fewer than the limits need.

use crate::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside connections: the store's files, sockets that listen, the runtimes'.
const OWN_FILES: u64 = 500;

/// Raises the soft limit to the hard one.
pub(crate) fn raise_limit(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err()
    {
        tracing::debug!("the limit of open files could not be raised");
    }
    // Every listener has this limit for itself; that all are full at once is left to the accept loops, which wait.
    let needed = config.limits.connections as u64 + OWN_FILES;
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < needed) {
        tracing::warn!(
            files,
            needed,
            "fewer open files than limits.connections needs: connections beyond them wait (raise ulimit -n)"
        );
    }
}
