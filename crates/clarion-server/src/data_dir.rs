//! The store as the configuration wants it, and what a data directory that cannot be opened means for the exit code.

use crate::{
    config::{
        Config,
        sections::{StoreDurability, StoreKind},
    },
    exit::{self, Failure},
};
use clarion_store::{
    StoreConfig,
    embedded::{Durable, EmbeddedConfig, OpenError},
    memory::MemoryConfig,
};

/// What the engine is told.
pub(crate) fn store_config(config: &Config) -> StoreConfig {
    let store = &config.store;
    if store.kind == StoreKind::Memory {
        return StoreConfig::Memory(MemoryConfig {
            max_bytes: store.max_bytes,
            ..MemoryConfig::default()
        });
    }
    let embedded = EmbeddedConfig {
        durability: match store.durability {
            StoreDurability::Disk => Durable::Disk,
            StoreDurability::Memory => Durable::Memory,
        },
        max_bytes: store.max_bytes,
        min_free_bytes: store.min_free_bytes,
        cache_bytes: store.cache_bytes,
        log_memtable_bytes: store.memtable_bytes,
        memtable_bytes: store.small_memtable_bytes,
        journal_bytes: store.journal_bytes,
        separate_bytes: store.separate_bytes,
        worker_threads: store.worker_threads,
        reader_threads: store.reader_threads,
        read_queue: store.read_queue,
        commit_queue: store.commit_queue,
        cached_channels: store.cached_channels,
        epoch_seed: None,
    };
    StoreConfig::Embedded { dir: config.data_dir.clone(), config: embedded }
}

/// Why the command ends: 73 where the directory cannot be had, 74 where it cannot be understood.
pub(crate) fn failure(error: &OpenError) -> Failure {
    let code = match error {
        OpenError::Locked { .. } | OpenError::ReadOnly { .. } | OpenError::Foreign { .. } => {
            exit::CANNOT_CREATE
        }
        OpenError::NewerFormat { .. } | OpenError::Damaged { .. } | OpenError::Io { .. } => {
            exit::IO
        }
    };
    Failure::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_configuration_and_engine_agree() {
        let StoreConfig::Embedded { dir, config } = store_config(&Config::defaults().0) else {
            panic!("the default store is the embedded one");
        };
        assert_eq!(dir, std::path::Path::new("./clarion-data"));
        assert_eq!(format!("{config:?}"), format!("{:?}", EmbeddedConfig::default()));
    }

    #[test]
    fn what_cannot_be_opened_has_its_code() {
        let dir = tempfile::tempdir().unwrap();
        let open = |dir: &std::path::Path| {
            let opened =
                clarion_store::embedded::EmbeddedStore::open(dir, EmbeddedConfig::default());
            failure(&opened.err().unwrap())
        };
        let foreign = dir.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("thesis.txt"), "x").unwrap();
        assert_eq!(open(&foreign).code, exit::CANNOT_CREATE);
        let newer = dir.path().join("newer");
        std::fs::create_dir(&newer).unwrap();
        std::fs::write(newer.join("FORMAT"), "clarion-store\nformat 999\n").unwrap();
        let failure = open(&newer);
        assert_eq!(failure.code, exit::IO);
        assert!(failure.text.contains("format 999"), "{failure}");
    }
}
