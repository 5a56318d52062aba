//! Lends the bodies of the fuzz targets a scene that lives as long as the process.
//!
//! Refuses to know any law: those are in `bodies.rs`, which `tests/props` runs over the corpus too.

pub mod bodies;

use std::sync::OnceLock;

use bodies::{Body, Scene};

/// Runs a body on bytes; a law that does not hold panics.
pub fn run(body: Body, bytes: &[u8]) {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    body(SCENE.get_or_init(Scene::new), bytes);
}
