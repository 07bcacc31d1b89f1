//! Seeded bugs for the simulation. A build with `CLARION_MUTANT=<name>` in the environment compiles one of them in
//! (see `build.rs`); the simulation must catch it. An ordinary build has none: every call is the constant `false`.

/// Whether the named seeded bug is compiled in: `mutant!("name")` is a constant.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        cfg!(mutant = $name)
    };
}
