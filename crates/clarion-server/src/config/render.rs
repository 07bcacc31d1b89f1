//! The table of keys as a documented YAML file and as a Markdown page.

use super::{Config, env_name, reader::Row};
use std::fmt::Write;

const WIDTH: usize = 100;

/// `clarion config --defaults`: every key with its default and what it does. Parses back to the defaults.
pub(crate) fn defaults_yaml() -> String {
    let (_, table) = Config::defaults();
    let mut out = String::from(
        "# Every key of Clarion with its default. All are optional: a file needs only what differs.\n\
         # Environment: CLARION_ + the path in capitals, __ between levels. Command line: --set path=value.\n",
    );
    for row in &table.rows {
        out.push('\n');
        match row {
            Row::Section { path, doc } => {
                let indent = indent_of(path);
                comment(&mut out, &indent, doc);
                let _ = writeln!(out, "{indent}{}:", leaf(path));
            }
            Row::Key { path, kind, default, doc } => {
                let indent = indent_of(path);
                comment(&mut out, &indent, doc);
                comment(&mut out, &indent, &format!("({kind})"));
                let _ = writeln!(out, "{indent}{}: {default}", leaf(path));
            }
        }
    }
    out
}

fn indent_of(path: &str) -> String {
    "  ".repeat(path.matches('.').count())
}

fn leaf(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// A text as comment lines, broken between words.
fn comment(out: &mut String, indent: &str, text: &str) {
    for paragraph in text.lines() {
        let mut line = format!("{indent}#");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                out.push_str(&line);
                out.push('\n');
                line = format!("{indent}#");
            }
            line.push(' ');
            line.push_str(word);
        }
        out.push_str(&line);
        out.push('\n');
    }
}

const PREAMBLE: &str = "\
# Configuration

This page is made from the program's own table of keys (`clarion config --markdown`); a test keeps it current.

Clarion starts without any configuration. What differs from the defaults can be said in five places; a later one wins:

1. a YAML file: `clarion serve --config clarion.yaml`. `clarion config --defaults` prints one with every key.
2. `--mikudos-config FILE`: the configuration of a mikudos-message-pusher, see below.
3. the environment: `CLARION_` + the path in capitals, `__` between levels, `_` for `-`:
   `CLARION_LIMITS__BODY_BYTES=4MiB`.
4. `--set path=value`, as often as needed: `--set limits.body_bytes=4MiB`.
5. `--data DIR` (the same as `--set data_dir=DIR`) and `--speak DIALECT,…` (switches a dialect on where it is at home).

`clarion check-config --config clarion.yaml` tells whether all of it is right without starting anything. Unknown keys,
wrong types, values out of range and contradictions are errors, all are reported at once with their path and place,
and the exit code is 64. Variables without `__` are ignored unless they are, or nearly are, the name of a key.

| written | means |
|---|---|
| `10s`, `100ms`, `15m`, `2h`, `30d` | durations; the unit is required |
| `64MiB`, `8KiB`, `1GiB`, `4096` | sizes: B, KiB, MiB, GiB, TiB, or a plain number of bytes |
| `[a, b]` | lists; in the environment and in `--set` also `a,b` |

## Trust

Trust belongs to a listener. With `auth: none` the name that a client gives is taken as the user without proof: right
on a machine of one's own, and behind a backend that checks its users itself. `auth: required` asks everybody for a proof:
a bearer key of `auth.keys`, a user and password of `auth.password_file`, a token (`auth.jwt`), or a client certificate.
`allow_from` refuses connections from all other addresses. A listener that is bound beyond loopback with neither of both
is refused at the start. [security.md](security.md) tells how the proofs work and what access rules (`auth.acl`) can say.

```yaml
auth:
  keys:
    - name: app
      # printf %s change-me | sha256sum
      sha256: e2186dbdb1bb4193608605e84f33208765b5693b55edd4f730a719a100eeea6f
      allow: [publish, subscribe, read]
listeners:
  http:
    bind: 0.0.0.0:8080
    auth: required
```

## In place of a mikudos-message-pusher

`clarion serve --mikudos-config config.yaml` takes that server's own file, its keys in any case. It opens
`listeners.grpc` for `mikudos` and `grpc`, and `listeners.http` for operations, both on loopback; no other listener. What
it says can be overruled by the environment and by `--set`.

| key | means |
|---|---|
| `port` | the port of `listeners.grpc.bind`; the variable `SERVICE_PORT` is stronger |
| `mode` | `mikudos.mode`: unify, group or every |
| `storageType` | redis or mysql are errors: stores that servers share do not exist yet. With `--set store.kind=embedded` the same file starts, and messages are kept in `data_dir`. |
| `redisSource`, `mySQLSource` | ignored, which the start tells |

The start prints what opens the port to other machines, for instance:
`--set listeners.grpc.bind=0.0.0.0:50051 --set 'listeners.grpc.allow_from=[10.0.0.0/8]'`.

## Exit codes of `clarion serve`

| code | meaning |
|---|---|
| 0 | stopped by SIGTERM or SIGINT; what was not done when the time for it was over is told in the log |
| 64 | wrong command line or configuration; every problem is printed |
| 69 | an address is busy or cannot be bound; the message names the key |
| 70 | stopped by an internal failure |
| 73 | the data directory or the ready file cannot be made or written, or another process holds the directory |
| 74 | the data directory cannot be read: damaged, or of a newer version |

## Keys
";

/// `clarion config --markdown`: the page `docs/configuration.md`.
pub(crate) fn markdown() -> String {
    let (_, table) = Config::defaults();
    let mut out = String::from(PREAMBLE);
    let mut in_table = false;
    for row in &table.rows {
        match row {
            Row::Section { path, doc } => {
                in_table = false;
                let _ = write!(out, "\n### `{path}`\n\n{}\n", doc.replace('\n', "\n\n"));
            }
            Row::Key { path, kind, default, doc } => {
                if !in_table {
                    out.push_str("\n| key | default | value | what it does |\n|---|---|---|---|\n");
                    in_table = true;
                }
                let doc = doc.replace('|', "\\|").replace('\n', "<br>");
                let _ = writeln!(out, "| `{path}` | `{default}` | {kind} | {doc} |");
            }
        }
    }
    let _ = write!(
        out,
        "\nThe variable of `listeners.message-sync.bind`, as an example, is `{}`.\n",
        env_name("listeners.message-sync.bind")
    );
    out
}
