//! Turns `CLARION_MUTANT=<name>` into `--cfg mutant="<name>"` for the simulation's builds with a seeded bug.

fn main() {
    println!("cargo::rerun-if-env-changed=CLARION_MUTANT");
    println!("cargo::rustc-check-cfg=cfg(mutant, values(any()))");
    if let Ok(name) = std::env::var("CLARION_MUTANT")
        && !name.is_empty()
    {
        println!("cargo::rustc-cfg=mutant=\"{name}\"");
    }
}
