//! The engines behind [`clarion_core::port::store::Store`]: `memory` and `embedded`, and the one conformance suite
//! that both pass.
//!
//! Must not know: sessions, protocols, configuration files. Whoever wires the server opens an engine here, hands the
//! port to the node and closes the engine last.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod embedded;
pub mod memory;
mod random;
mod rules;

use clarion_core::port::store::{Store, StoreError};
use embedded::{EmbeddedConfig, EmbeddedStore, OpenError};
use memory::{MemoryConfig, MemoryStore};
use std::path::PathBuf;
use std::sync::Arc;

/// Which engine, and what it is told.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// Everything in this process; nothing survives it.
    Memory(MemoryConfig),
    /// A data directory.
    Embedded {
        /// Which.
        dir: PathBuf,
        /// Its settings.
        config: EmbeddedConfig,
    },
}

/// An open engine.
#[derive(Clone)]
pub enum Engine {
    /// See [`StoreConfig::Memory`].
    Memory(Arc<MemoryStore>),
    /// See [`StoreConfig::Embedded`].
    Embedded(Arc<EmbeddedStore>),
}

impl Engine {
    /// Opens what the configuration names. Blocks.
    pub fn open(config: StoreConfig) -> Result<Self, OpenError> {
        Ok(match config {
            StoreConfig::Memory(config) => Self::Memory(Arc::new(MemoryStore::new(config))),
            StoreConfig::Embedded { dir, config } => {
                Self::Embedded(Arc::new(EmbeddedStore::open(&dir, config)?))
            }
        })
    }

    /// The port.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => store.clone(),
            Self::Embedded(store) => store.clone(),
        }
    }

    /// Finishes, syncs, notes that the end was clean and frees what is held. Blocks.
    pub fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Embedded(store) => store.close(),
        }
    }
}
