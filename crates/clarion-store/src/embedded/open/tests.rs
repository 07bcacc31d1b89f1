use crate::conformance::{all, commit_one, head, put_many, text, user, wait};
use crate::embedded::{Durable, EmbeddedConfig, EmbeddedStore, FORMAT, OpenError};
use clarion_core::port::store::Store;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

type Expected = fn(&OpenError) -> bool;
type Damage = fn(&Path);

fn open(dir: &Path) -> Result<Arc<dyn Store>, OpenError> {
    let store = EmbeddedStore::open(dir, EmbeddedConfig::default())?;
    Ok(Arc::new(store))
}

fn error(dir: &Path) -> OpenError {
    open(dir).err().expect("it must not open")
}

/// A closed directory with ten messages, partly in tables and partly in the journal.
fn filled() -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(EmbeddedStore::open(dir.path(), EmbeddedConfig::default()).unwrap());
    let port: Arc<dyn Store> = store.clone();
    put_many(&port, &user("a"), 5);
    wait(store.read_with(|engine| Ok(engine.ks.log.rotate_memtable_and_wait()?))).unwrap();
    put_many(&port, &user("a"), 5);
    drop(port);
    store.close().unwrap();
    drop(store);
    // An opened journal has no room set aside, so that copies of it are small.
    drop(open(dir.path()).unwrap());
    dir
}

#[test]
fn a_second_process_is_told_who_has_it() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    let error = error(dir.path());
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())));
    drop(store);
    open(dir.path()).unwrap();
}

#[test]
fn a_newer_format_and_a_broken_one_are_refused_and_left_alone() {
    let dir = filled();
    let path = dir.path().join("FORMAT");
    let good = fs::read_to_string(&path).unwrap();
    let newer = good.replace(&format!("format {FORMAT}"), "format 7");
    let cases: [(&str, Expected); 5] = [
        (&newer, |e| matches!(e, OpenError::NewerFormat { found: 7, known: FORMAT })),
        ("", |e| matches!(e, OpenError::Damaged { .. })),
        ("something else\nformat 1\n", |e| matches!(e, OpenError::Damaged { .. })),
        ("clarion-store\nformat x\n", |e| matches!(e, OpenError::Damaged { .. })),
        ("clarion-store\nformat 1\n", |e| matches!(e, OpenError::Damaged { .. })),
    ];
    for (text, expected) in cases {
        fs::write(&path, text).unwrap();
        let error = error(dir.path());
        assert!(expected(&error), "{text:?}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::write(&path, good).unwrap();
    assert_eq!(all(&open(dir.path()).unwrap(), &user("a")).len(), 10);
}

#[test]
fn a_directory_of_others_is_not_touched() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    assert!(matches!(error(dir.path()), OpenError::Foreign { entry, .. } if entry == "letter.txt"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let file = dir.path().join("letter.txt");
    assert!(matches!(error(&file), OpenError::ReadOnly { .. }), "a file is no directory");
}

#[test]
fn what_cannot_be_written_to_is_said() {
    // The kernel's own directory takes no entries, not even from root.
    let error = error(Path::new("/sys/clarion-data"));
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    assert!(error.to_string().contains("cannot be made or written to"));
}

#[test]
fn making_a_directory_survives_being_cut_short() {
    let dir = TempDir::new().unwrap();
    let unfinished = dir.path().join("db.new");
    fs::create_dir_all(unfinished.join("keyspaces/1")).unwrap();
    fs::write(unfinished.join("0.jnl"), "half").unwrap();
    drop(open(dir.path()).unwrap());
    assert!(!unfinished.exists());
    // Everything but the last step.
    fs::remove_file(dir.path().join("FORMAT")).unwrap();
    fs::write(dir.path().join("FORMAT.new"), "clar").unwrap();
    let store = open(dir.path()).unwrap();
    put_many(&store, &user("a"), 1);
    drop(store);
    // The same with data in it is no unfinished directory: it lost its format record.
    fs::remove_file(dir.path().join("FORMAT")).unwrap();
    assert!(matches!(error(dir.path()), OpenError::Damaged { what, .. } if what == "FORMAT"));
}

/// All files below, with their sizes.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

/// Each file in turn is removed, emptied, cut and filled with rubbish: the directory is refused, or it opens and
/// everything is there, or what cannot be read is an error. Never a panic, never an empty store, never wrong bodies.
#[test]
fn damage_is_never_an_empty_store() {
    let base = filled();
    let names: Vec<PathBuf> = files(&base.path().join("db"))
        .into_iter()
        .map(|path| path.strip_prefix(base.path()).unwrap().to_path_buf())
        .collect();
    assert!(names.len() > 10, "{names:?}");
    let damages: [(&str, Damage); 3] = [
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("emptied", |path| fs::write(path, "").unwrap()),
        ("rubbish", |path| {
            let length = fs::metadata(path).unwrap().len().min(4096) as usize;
            fs::write(path, vec![0xa7; length]).unwrap();
        }),
    ];
    let mut refused = 0;
    for name in &names {
        for (what, damage) in damages {
            let dir = copy(base.path());
            damage(&dir.path().join(name));
            match open(dir.path()) {
                Err(OpenError::Damaged { .. }) => {
                    refused += 1;
                    let lost = usize::from(what == "removed");
                    let left = files(&dir.path().join("db")).len();
                    assert!(left + lost >= names.len(), "{}: others went too", name.display());
                }
                Err(other) => panic!("{} {what}: {other}", name.display()),
                Ok(store) => {
                    let range = crate::conformance::range(&user("a"), 1, 99);
                    if let Ok(pages) = wait(store.read(0, vec![range])) {
                        let found: Vec<u64> = pages[0].messages.iter().map(|m| m.seq).collect();
                        // A journal's tail may be torn by a crash, so a lost one cannot be told from that.
                        let expected: &[u64] = &(1..=10).collect::<Vec<u64>>();
                        let journal = name.extension().is_some_and(|x| x == "jnl");
                        assert!(
                            found == expected || journal && expected.starts_with(&found),
                            "{} {what}: {found:?}",
                            name.display()
                        );
                    }
                }
            }
        }
    }
    assert!(refused >= 20, "only {refused} were noticed at the opening");
}

fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for path in files(from) {
        let target = to.path().join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&path, target).unwrap();
    }
    to
}

/// A flipped bit inside what was written to the journal is found by its checksum.
#[test]
fn a_flipped_bit_in_the_journal_is_noticed() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    let needle = b"a body that can be found again";
    for _ in 0..3 {
        crate::conformance::put(&store, crate::conformance::publish_to(&user("a"), text(needle)));
    }
    drop(store);
    let journal = files(&dir.path().join("db"))
        .into_iter()
        .rfind(|path| path.extension().is_some_and(|x| x == "jnl"))
        .unwrap();
    let mut bytes = fs::read(&journal).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at] ^= 1;
    fs::write(&journal, bytes).unwrap();
    assert!(matches!(error(dir.path()), OpenError::Damaged { .. }));
}

#[test]
fn an_unclean_end_after_answers_from_memory_begins_new_histories() {
    let dir = TempDir::new().unwrap();
    let config = |durability| EmbeddedConfig { durability, ..EmbeddedConfig::default() };
    let open = |durability| EmbeddedStore::open(dir.path(), config(durability)).unwrap();
    let epoch = |store: EmbeddedStore, clean: bool| {
        let store = Arc::new(store);
        let port: Arc<dyn Store> = store.clone();
        put_many(&port, &user("a"), 1);
        let head = head(&port, &user("a"));
        drop(port);
        if clean {
            store.close().unwrap();
        }
        (head.epoch, head.last)
    };
    let (first, _) = epoch(open(Durable::Disk), false);
    let second = epoch(open(Durable::Memory), true);
    assert_eq!(second, (first, 2), "a clean end and answers from disk change nothing");
    assert_eq!(epoch(open(Durable::Memory), false), (first, 3));
    let fourth = epoch(open(Durable::Memory), false);
    assert_eq!(fourth, (first.wrapping_add(1), 4), "the numbers go on in a new history");
    let fifth = epoch(open(Durable::Disk), false);
    assert_eq!(fifth, (first.wrapping_add(2), 5));
    assert_eq!(epoch(open(Durable::Disk), false), (first.wrapping_add(2), 6));
    // Nothing was answered from memory this time.
    drop(open(Durable::Memory));
    assert_eq!(epoch(open(Durable::Disk), false), (first.wrapping_add(2), 7));
}

#[test]
fn a_closed_one_refuses_and_frees_the_directory() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), EmbeddedConfig::default()).unwrap();
    let store = Arc::new(store);
    let port: Arc<dyn Store> = store.clone();
    put_many(&port, &user("a"), 1);
    store.close().unwrap();
    store.close().unwrap();
    let refused = wait(port.heads(vec![user("a")])).unwrap_err();
    assert_eq!(refused.code(), clarion_core::Code::ShuttingDown);
    let refused = wait(port.commit(clarion_core::port::store::Batch::default())).unwrap_err();
    assert_eq!(refused.code(), clarion_core::Code::ShuttingDown);
    assert!(wait(port.check()).failed.is_some());
    let again = open(dir.path()).unwrap();
    assert_eq!(all(&again, &user("a")).len(), 1);
    let unit = clarion_core::port::store::Unit::Erase { channel: user("a"), seq: 1 };
    commit_one(&again, unit);
}
