use super::*;
use crate::conformance::{Factory, Subject};
use std::path::PathBuf;
use tempfile::TempDir;

struct Embedded;

struct Directory {
    dir: TempDir,
    config: EmbeddedConfig,
    store: Option<Arc<EmbeddedStore>>,
}

impl Directory {
    fn new(config: EmbeddedConfig) -> Self {
        let mut new = Self { dir: TempDir::new().unwrap(), config, store: None };
        new.open();
        new
    }

    fn open(&mut self) {
        let store = EmbeddedStore::open(self.dir.path(), self.config.clone()).unwrap();
        self.store = Some(Arc::new(store));
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }
}

impl Subject for Directory {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("it is open")
    }

    fn reopen(&mut self) -> bool {
        let store = self.store.take().and_then(Arc::into_inner);
        drop(store.expect("somebody still holds the store"));
        self.open();
        true
    }
}

impl Factory for Embedded {
    fn fresh(&self) -> Box<dyn Subject> {
        Box::new(Directory::new(EmbeddedConfig::default()))
    }

    fn bounded(&self, max_bytes: u64) -> Box<dyn Subject> {
        Box::new(Directory::new(EmbeddedConfig { max_bytes, ..EmbeddedConfig::default() }))
    }
}

crate::conformance!(Embedded);
